package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/wherry-engine/wherry/internal/entry/entrytest"
)

// TestPluginNoticesNothing: what the program's entry does for itself is not left
// to those it becomes.
func TestPluginNoticesNothing(t *testing.T) {
	bin, dir := entrytest.Build(t), t.TempDir()
	script := "#!/bin/sh\necho \"$GOMAXPROCS\" $(cat /proc/self/timerslack_ns)\n"
	if err := os.Mkdir(filepath.Join(dir, "cli-plugins"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "cli-plugins", "docker-peek"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	for want, env := range map[string]string{" 50000\n": "A=b", "3 50000\n": "GOMAXPROCS=3"} {
		cmd := exec.Command(bin, "peek")
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "DOCKER_CONFIG=" + dir, env}
		out, err := cmd.CombinedOutput()
		if err != nil || string(out) != want {
			t.Errorf("with %s: %v: %q, want %q", env, err, out, want)
		}
	}
}
