// Package supervisor is the parent of all containers of one daemon.
package supervisor

import "os"

// Main is the face of wherry-runtime; it returns the exit code.
func Main(args []string) int {
	_, _ = os.Stderr.WriteString("wherry-runtime: supervisor is not built yet\n")
	return 1
}
