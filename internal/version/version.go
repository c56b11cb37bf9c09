// Package version holds what the build says about itself. The Makefile sets
// the variables with -ldflags -X; a plain go build leaves the defaults.
package version

// Set by the linker.
var (
	// Version is the release, without a leading v.
	Version = "0.1.0-dev"
	// Commit is the short hash of the source, or "unknown".
	Commit = "unknown"
	// BuildTime is the committer's date of that commit in RFC 3339, so that
	// the same source gives the same bytes; empty if unknown.
	BuildTime = ""
)
