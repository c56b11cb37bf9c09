// Package command is the OCI command line over the runtime library: one file
// per command, state files under --root.
package command

import "os"

// Main runs one command and returns the exit code.
func Main(args []string) int {
	_, _ = os.Stderr.WriteString("wherry-runtime: the OCI command line is not built yet\n")
	return 1
}
