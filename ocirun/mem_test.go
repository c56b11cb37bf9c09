package ocirun

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// TestInitMemory keeps the reaper small: it stays as long as its container.
func TestInitMemory(t *testing.T) {
	r := newRuntime(t)
	root := busyboxRoot(t)
	req := sh(root, "exec sleep 60")
	req.Init = true
	c := start(t, r, req)
	time.Sleep(100 * time.Millisecond)
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", c.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if strings.HasPrefix(line, "Rss") || strings.HasPrefix(line, "Pss:") || strings.HasPrefix(line, "Private_Dirty") || strings.HasPrefix(line, "Anonymous") {
			t.Log(strings.TrimSpace(line))
		}
	}
}
