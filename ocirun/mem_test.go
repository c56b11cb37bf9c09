package ocirun

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// TestInitMemory keeps the reaper small: it stays as long as its container.
// What it shares with others of its kind does not count.
func TestInitMemory(t *testing.T) {
	r := newRuntime(t)
	root := busyboxRoot(t)
	req := sh(root, "exec sleep 60")
	req.Init = true
	c := start(t, r, req)
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", c.Pid))
	if err != nil {
		t.Fatal(err)
	}
	const limit = 4096
	for line := range strings.Lines(string(b)) {
		var kib int
		if n, _ := fmt.Sscanf(line, "Anonymous: %d kB", &kib); n == 1 {
			t.Log(strings.TrimSpace(line))
			if kib > limit {
				t.Errorf("%d KiB of its own, at most %d", kib, limit)
			}
		}
	}
}
