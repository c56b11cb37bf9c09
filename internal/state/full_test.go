package state

import (
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// On a full disk every change fails as a whole and says why; what was there
// stays, and things go on once there is room.
func TestFullDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting a small file system needs root")
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Skipf("mount tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	s, err := Open(Options{Dir: dir, FoldBytes: 64 << 10})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{}
	val := make([]byte, 3000)
	failed := 0
	for i := range 1000 {
		key := fmt.Sprint(i)
		err := s.PutDurable("a", key, val)
		switch {
		case err == nil:
			want[key] = string(val)
		case errors.Is(err, unix.ENOSPC):
			failed++
		default:
			t.Fatal(err)
		}
	}
	if failed == 0 {
		t.Fatal("the disk never filled up")
	}
	if diff := cmp.Diff(want, dump(t, s, "a")); diff != "" {
		t.Errorf("while full: %s", diff)
	}
	s.folders.Wait()
	abandon(t, s)
	// A start on the full disk finds everything, too.
	if s, err = Open(Options{Dir: dir, FoldBytes: 64 << 10}); err != nil {
		t.Fatalf("open on a full disk: %v", err)
	}
	if diff := cmp.Diff(want, dump(t, s, "a")); diff != "" {
		t.Errorf("after a restart on a full disk: %s", diff)
	}
	abandon(t, s)
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT, "size=16m"); err != nil {
		t.Fatal(err)
	}
	s, err = Open(Options{Dir: dir, FoldBytes: 64 << 10})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, dump(t, s, "a")); diff != "" {
		t.Errorf("after a restart: %s", diff)
	}
	if err := s.PutDurable("a", "more", val); err != nil {
		t.Errorf("with room again: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
