// Package archive copies files in and out of container roots: cp, export and
// their tar streams. The container, its files and the archives are hostile:
// every path is resolved from a pinned descriptor with openat2 and
// RESOLVE_IN_ROOT, nothing is followed out of the root, nothing is executed.
//
// A View is made of descriptors the caller owns: the root mount (from the
// supervisor's OpenRoot) and the directories of volumes and bind mounts, so that
// running and stopped containers look the same.
package archive
