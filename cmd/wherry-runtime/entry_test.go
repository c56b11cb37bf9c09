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
// command waits for a reader of its log until it has.
func scheduler(t *testing.T, bin string, env []string) (line string) {
	t.Helper()
	log := filepath.Join(t.TempDir(), "log")
	if err := syscall.Mkfifo(log, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(bin, "--log", log, "nonsense")
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
	f, err := os.Open(log)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	_ = cmd.Wait() // there is no such command
	return line
}
