// Package entrytest builds programs that begin at the entry of package entry, for
// tests.
package entrytest

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
)

// Build builds the command of the test's directory, below cmd, and returns the
// program. It skips where there is no such entry.
func Build(t *testing.T) string {
	t.Helper()
	if _, err := os.Stat("../../internal/entry/entry_" + runtime.GOARCH + ".s"); err != nil {
		t.Skip("no entry of its own on " + runtime.GOARCH)
	}
	bin := filepath.Join(t.TempDir(), "program")
	build := exec.Command("go", "build", "-ldflags", "-E github.com/wherry-engine/wherry/internal/entry.start", "-o", bin, ".")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return bin
}
