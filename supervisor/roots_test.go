package supervisor

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/wherry-engine/wherry/task"
)

// mountsHeld counts the descriptors of a process that are roots of detached mounts.
func mountsHeld(t *testing.T, pid int) int {
	t.Helper()
	links, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, l := range links {
		if to, err := os.Readlink(l); err == nil && to == "/" {
			n++
		}
	}
	return n
}

// TestBorrowedRoot: a root that a daemon has opened is unmounted when it is gone,
// be it that it was killed, and no root is given back by who has not opened it.
func TestBorrowedRoot(t *testing.T) {
	b := newBox(t)
	b.connect()
	supervisor, keeper := b.inv.SupervisorPid, b.inv.KeeperPid
	before := mountsHeld(t, supervisor) + mountsHeld(t, keeper)
	open := func(n int) {
		for range n {
			f, err := b.client.OpenRoot(b.ctx, "x", task.Root{Bind: b.root})
			if err != nil {
				t.Fatal(err)
			}
			f.Close()
		}
	}
	returned := func() bool { return mountsHeld(t, supervisor)+mountsHeld(t, keeper) == before }
	open(2)
	if returned() {
		t.Fatal("there is nothing to be seen")
	}
	b.reconnect()
	waitFor(t, "the end of the mount", returned)

	open(1)
	if err := b.client.CloseRoot(b.ctx, "x"); err != nil {
		t.Error(err)
	}
	if err := b.client.CloseRoot(b.ctx, "x"); !errdefs.IsNotFound(err) {
		t.Errorf("closed twice: %v", err)
	}
	waitFor(t, "the end of the mount", returned)
}
