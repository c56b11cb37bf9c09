// Package keeper holds duplicates of every descriptor and restarts the other helpers.
package keeper

import "os"

// Main is the face of wherry-runtime; it returns the exit code.
func Main(args []string) int {
	_, _ = os.Stderr.WriteString("wherry-runtime: keeper is not built yet\n")
	return 1
}
