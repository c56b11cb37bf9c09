package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
)

// TestPluginNoticesNothing: what the program's entry does for itself is not left
// to those it becomes.
func TestPluginNoticesNothing(t *testing.T) {
	if _, err := os.Stat("../../internal/entry/entry_" + runtime.GOARCH + ".s"); err != nil {
		t.Skip("no entry of its own on " + runtime.GOARCH)
	}
	dir := t.TempDir()
	bin := filepath.Join(dir, "wherry")
	build := exec.Command("go", "build", "-ldflags", "-E github.com/wherry-engine/wherry/internal/entry.start", "-o", bin, ".")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
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
