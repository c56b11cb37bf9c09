// Package testenv is the harness of the integration tests: it starts built
// daemons with roots, sockets, bridges and subnets of their own, drives them
// with our command line and the stock one, and checks that nothing of them is
// left on the machine. It knows the public interfaces only.
package testenv

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/wherry-engine/wherry/fixtures"
)

// NeedsRoot skips the test without root; with WHERRY_TEST_NO_SKIP it fails
// instead, so that a privileged job cannot pass by skipping.
func NeedsRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		Skip(t, "needs root")
	}
}

// Skip skips the test for a stated reason, or fails it where skipping is not
// allowed.
func Skip(t testing.TB, reason string) {
	t.Helper()
	if os.Getenv("WHERRY_TEST_NO_SKIP") != "" {
		t.Fatalf("may not skip here: %s", reason)
	}
	t.Skip(reason)
}

// NeedsProgram returns the path of a program, or skips.
func NeedsProgram(t testing.TB, name string) string {
	t.Helper()
	path, err := fixtures.FindProgram(name)
	if err != nil {
		Skip(t, err.Error())
	}
	return path
}

// Bin returns the path of a built binary: from $WHERRY_BIN, or bin/ of this
// source tree.
func Bin(t testing.TB, name string) string {
	t.Helper()
	dir := os.Getenv("WHERRY_BIN")
	if dir == "" {
		dir = filepath.Join(SourceRoot(), "bin")
	}
	path, err := exec.LookPath(filepath.Join(dir, name))
	if err != nil {
		Skip(t, "needs the built binaries: run `make static` ("+err.Error()+")")
	}
	return path
}

// SourceRoot is the directory of go.mod, found from the working directory
// (that of the package under test).
func SourceRoot() string {
	dir, err := os.Getwd()
	if err != nil {
		panic(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			panic("no go.mod above " + dir)
		}
		dir = parent
	}
}

// Arch is the architecture in image platforms.
const Arch = runtime.GOARCH
