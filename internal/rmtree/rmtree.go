// Package rmtree removes directory trees that hostile programs have made: of
// any depth, with a bounded number of descriptors, following no link.
package rmtree

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// maxDepth is how many directories are open at once.
const maxDepth = 64

// Remove deletes name with all that is below it; a name that does not exist is
// no error. Directories that lie too deep are first moved beside name, as name
// with a number behind it: so they are found and removed with it after a kill.
// Nobody else may change the tree. What cannot be removed stays, and the first
// such error is returned.
func Remove(name string) error {
	parent, err := unix.Open(filepath.Dir(name), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return &os.PathError{Op: "remove", Path: name, Err: err}
	}
	defer unix.Close(parent)
	r := &remover{parent: parent, base: filepath.Base(name)}
	err = r.entry(parent, r.base, 0)
	for i := 0; i < len(r.moved); i++ {
		err = errors.Join(err, r.entry(parent, r.moved[i], 0))
		r.moved[i] = ""
	}
	if err != nil {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	return nil
}

type remover struct {
	parent int
	base   string
	moved  []string
}

// entry removes one name of a directory.
func (r *remover) entry(dir int, name string, depth int) error {
	err := unix.Unlinkat(dir, name, 0)
	if err == nil || errors.Is(err, unix.ENOENT) {
		return nil
	}
	if !errors.Is(err, unix.EISDIR) {
		return fmt.Errorf("%.100q: %w", name, err)
	}
	if depth == maxDepth {
		return r.move(dir, name)
	}
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("%.100q: %w", name, err)
	}
	f := os.NewFile(uintptr(fd), name)
	err = r.contents(f, depth)
	f.Close()
	if err == nil {
		err = unix.Unlinkat(dir, name, unix.AT_REMOVEDIR)
	}
	return err
}

// contents empties an open directory. A listing that is read while names go
// away may miss some: it is read until nothing is left.
func (r *remover) contents(f *os.File, depth int) error {
	for {
		names, err := f.Readdirnames(1000)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		for _, n := range names {
			if err := r.entry(int(f.Fd()), n, depth+1); err != nil {
				return err
			}
		}
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return err
		}
	}
}

// move puts a directory beside the tree, to be removed later.
func (r *remover) move(dir int, name string) error {
	to := fmt.Sprintf("%s-%d", r.base, len(r.moved)+1)
	if err := unix.Renameat2(dir, name, r.parent, to, unix.RENAME_NOREPLACE); err != nil {
		return fmt.Errorf("move %.100q up: %w", name, err)
	}
	r.moved = append(r.moved, to)
	return nil
}
