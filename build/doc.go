// Package build embeds BuildKit: its solver, Dockerfile frontend and control
// API run in the daemon's process, over the engine's own content store and
// snapshotter, so that what a build makes is an image at once, without an
// export. Build steps run through the supervisor like any container; they die
// with the daemon that started them, because nobody else could use their
// result.
//
// BuildKit is started by the first build, not with the daemon: it costs memory
// and opens three databases.
package build
