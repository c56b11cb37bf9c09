package main

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/wherry-engine/wherry/internal/entry/entrytest"
)

// TestEntry: commands run on one processor unless told otherwise, and start
// with any environment.
func TestEntry(t *testing.T) {
	bin := entrytest.Build(t)
	const trace = "GODEBUG=schedtrace=1000"
	for want, env := range map[string][]string{
		"gomaxprocs=1 ": {trace, "A=", "B=b"}, "gomaxprocs=3 ": {"GOMAXPROCS=3", trace},
	} {
		if got := scheduler(t, bin, env); !strings.Contains(got, want) {
			t.Errorf("with %q: %s, want %s", env, got, want)
		}
	}
	cmd := exec.Command(bin, "--version")
	cmd.Env = []string{}
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "spec:") {
		t.Errorf("without an environment: %v: %s", err, out)
	}
}

// scheduler returns what the Go runtime says of a command's scheduler. The
// command waits for a writer of its configuration until it has, and says nothing
// before: the runtime writes its line piece by piece.
func scheduler(t *testing.T, bin string, env []string) (line string) {
	t.Helper()
	dir := t.TempDir()
	config := filepath.Join(dir, "config.json")
	if err := syscall.Mkfifo(config, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(bin, "--root", filepath.Join(dir, "root"), "create", "--bundle", dir, "x")
	cmd.Env = env
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for lines := bufio.NewScanner(stderr); !strings.HasPrefix(line, "SCHED") && lines.Scan(); {
		line = lines.Text()
	}
	f, err := os.OpenFile(config, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_ = f.Close()
	_ = cmd.Wait() // nothing is no configuration
	return line
}
