package store

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// TestDeepSnapshots removes snapshots whose directories have more levels than
// this process may open descriptors: one that was removed by this store, and
// one that an earlier store did not come to delete.
func TestDeepSnapshots(t *testing.T) {
	root := t.TempDir()
	s := open(t, Options{Root: root})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	stray := filepath.Join(root, "snapshots/snapshots/99")
	if err := os.MkdirAll(stray+"/fs", 0o700); err != nil {
		t.Fatal(err)
	}
	nest(t, stray+"/fs", 3000)

	s = open(t, Options{Root: root})
	s.Adopt(t.Context(), nil)
	ctx := s.context(t.Context())
	if _, err := s.snap.Prepare(ctx, "deep", ""); err != nil {
		t.Fatal(err)
	}
	info, err := s.snap.Stat(ctx, "deep")
	if err != nil {
		t.Fatal(err)
	}
	nest(t, info.Labels[upperLabel], 3000)
	if err := s.snap.Remove(ctx, "deep"); err != nil {
		t.Fatal(err)
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	few := limit
	few.Cur = 512
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &few); err != nil {
		t.Fatal(err)
	}
	_, err = s.GarbageCollect(ctx)
	if serr := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); serr != nil {
		t.Fatal(serr)
	}
	if err != nil {
		t.Fatal(err)
	}
	if list, err := filepath.Glob(filepath.Join(root, "snapshots/snapshots/*")); err != nil || len(list) != 0 {
		t.Errorf("snapshots left: %v, %v", list, err)
	}
}

// nest makes directories in directories below dir.
func nest(t *testing.T, dir string, depth int) {
	t.Helper()
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	for range depth {
		if err == nil {
			err = unix.Mkdirat(fd, "d", 0o755)
		}
		next := -1
		if err == nil {
			next, err = unix.Openat(fd, "d", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		}
		_ = unix.Close(fd)
		fd = next
	}
	_ = unix.Close(fd)
	if err != nil {
		t.Fatal(err)
	}
}

// TestStrayNumber: a process was killed after it had made the directory of a
// snapshot and before that was entered; its number is given out again.
func TestStrayNumber(t *testing.T) {
	root := t.TempDir()
	s := open(t, Options{Root: root})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		if err := os.MkdirAll(filepath.Join(root, "snapshots/snapshots", strconv.Itoa(i+1), "fs"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	s = open(t, Options{Root: root})
	s.Adopt(t.Context(), nil)
	ctx := s.context(t.Context())
	for _, key := range []string{"a", "b"} {
		if _, err := s.snap.Prepare(ctx, key, ""); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.GarbageCollect(ctx); err != nil {
		t.Fatal(err)
	}
	if list, err := filepath.Glob(filepath.Join(root, "snapshots/snapshots/"+strayPrefix+"*")); err != nil || len(list) != 0 {
		t.Errorf("left: %v, %v", list, err)
	}
}
