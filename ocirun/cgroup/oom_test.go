package cgroup

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestWatchOOM counts what happens from the moment on at which it is ready, in
// files that change as those of v2 do.
func TestWatchOOM(t *testing.T) {
	h := &Host{All: []Hierarchy{{Mount: t.TempDir(), Unified: true}}, V2: true}
	file := filepath.Join(h.Unified().Dir("/box"), "memory.events")
	if err := os.Mkdir(filepath.Dir(file), 0o700); err != nil {
		t.Fatal(err)
	}
	kills := func(n string) {
		if err := os.WriteFile(file, []byte("oom 9\noom_kill "+n+"\n"), 0o600); err != nil {
			t.Error(err)
		}
	}
	kills("3")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	seen := 0
	err := h.WatchOOM(ctx, "/box", func() { kills("5") }, func() {
		if seen++; seen == 2 {
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) || seen != 2 {
		t.Errorf("%d kills seen, %v", seen, err)
	}
}
