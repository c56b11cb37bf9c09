package rmtree

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestRemove removes a tree that is deeper than this process may open
// descriptors, with a link to what must stay.
func TestRemove(t *testing.T) {
	top := t.TempDir()
	outside := filepath.Join(top, "outside")
	if err := os.WriteFile(outside, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	tree := filepath.Join(top, "tree")
	nest(t, tree, 3000, top)
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	few := old
	few.Cur = 256
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &few); err != nil {
		t.Fatal(err)
	}
	err := Remove(tree)
	if serr := unix.Setrlimit(unix.RLIMIT_NOFILE, &old); serr != nil {
		t.Fatal(serr)
	}
	if err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(top)
	if err != nil || len(left) != 1 || left[0].Name() != "outside" {
		t.Errorf("left: %v %v", left, err)
	}
	if err := Remove(tree); err != nil {
		t.Errorf("again: %v", err)
	}
	if err := Remove(filepath.Join(top, "no/such")); err != nil {
		t.Errorf("without a parent: %v", err)
	}
	if err := Remove(outside); err != nil {
		t.Errorf("a file: %v", err)
	}
}

// nest makes directories in directories, each with a file and a link beside it.
func nest(t *testing.T, dir string, depth int, link string) {
	t.Helper()
	fd, err := unix.Open(filepath.Dir(dir), unix.O_PATH|unix.O_DIRECTORY, 0)
	name := filepath.Base(dir)
	for range depth {
		if err == nil {
			err = unix.Mkdirat(fd, name, 0o755)
		}
		next := -1
		if err == nil {
			next, err = unix.Openat(fd, name, unix.O_PATH|unix.O_DIRECTORY, 0)
		}
		_ = syscall.Close(fd)
		if err == nil {
			err = unix.Symlinkat(link, next, "link")
		}
		if err == nil {
			err = unix.Mknodat(next, "file", unix.S_IFREG|0o600, 0)
		}
		if err != nil {
			t.Fatal(err)
		}
		fd, name = next, "d"
	}
	_ = syscall.Close(fd)
}
