package successor

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestRuns(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, content := range map[string][]byte{"same": b, "shorter": b[1:], "other": append(append([]byte(nil), b[:len(b)-1]...), b[len(b)-1]+1)} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := Runs(0, path); err != nil || got != (name == "same") {
			t.Errorf("%s: %t, %v", name, got, err)
		}
	}
	if got, err := Runs(os.Getpid(), self); err != nil || !got {
		t.Errorf("itself: %t, %v", got, err)
	}
	if _, err := Runs(0, filepath.Join(dir, "missing")); err == nil {
		t.Error("a program that is not there was compared")
	}
}

func TestAsk(t *testing.T) {
	dir := t.TempDir()
	script := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text), 0o700); err != nil {
			t.Fatal(err)
		}
		return path
	}
	if err := Ask(t.Context(), script("yes", `[ "$*" = "keeper --takes 3" ]`), "keeper", 3); err != nil {
		t.Error(err)
	}
	err := Ask(t.Context(), script("no", "echo too old >&2; exit 1"), "keeper", 3)
	if err == nil || !strings.Contains(err.Error(), "too old") {
		t.Errorf("refused by: %v", err)
	}
	if err := Ask(t.Context(), filepath.Join(dir, "missing"), "keeper", 3); err == nil {
		t.Error("a program that is not there agreed")
	}
}

func TestTakes(t *testing.T) {
	if Takes("keeper", 1, 1, 2) != nil || Takes("keeper", 2, 1, 2) != nil {
		t.Error("the version before and its own are refused")
	}
	if Takes("keeper", 3, 1, 2) == nil || Takes("keeper", 0, 1, 2) == nil {
		t.Error("a newer or a far older one is taken")
	}
}
