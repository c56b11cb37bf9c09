// Package dataplane is the net helper: DNS, port reservations and the splice proxy.
package dataplane

import "os"

// Main is the face of wherry-runtime; it returns the exit code.
func Main(args []string) int {
	_, _ = os.Stderr.WriteString("wherry-runtime: dataplane is not built yet\n")
	return 1
}
