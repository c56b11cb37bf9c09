// Package initproc is the program inside a new container: it sets everything
// up from one message and then becomes the user's process.
package initproc

// Main is the face "init" of wherry-runtime; it returns only on failure, or as
// the built-in reaper when its child is gone.
func Main(args []string) int { return 1 }
