package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// NeedsPopulating implements volume.Store. A volume with something mounted on
// it is never filled: it is not ours.
func (s *Store) NeedsPopulating(_ context.Context, name string) (bool, error) {
	s.mu.Lock()
	e, err := s.find(name)
	if err != nil {
		s.mu.Unlock()
		return false, err
	}
	no := e.Populated || len(e.Options) > 0
	s.mu.Unlock()
	if no {
		return false, nil
	}
	f, err := os.Open(s.path(name))
	if err != nil {
		return false, fmt.Errorf("look into volume %s: %w", name, err)
	}
	defer f.Close()
	names, _ := f.Readdirnames(1) // an error ends in the copy's
	return len(names) == 0, nil
}

// Populated implements volume.Store.
func (s *Store) Populated(_ context.Context, name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, err := s.find(name)
	if err != nil || e.Populated {
		return err
	}
	r := e.record
	r.Populated = true
	if err := s.save(r); err != nil {
		return fmt.Errorf("update volume %s: %w", name, err)
	}
	e.Populated = true
	return nil
}

// maxDepth bounds the directories held open; nobody gets deeper with paths of
// the kernel's size (PATH_MAX).
const maxDepth = 2048

// Usage implements volume.Store: the sum of file sizes, each inode once. What
// disappears meanwhile is left out, and what is nested deeper than maxDepth. The
// walk goes by descriptors and cannot leave the volume.
func (s *Store) Usage(ctx context.Context, name string) (int64, error) {
	s.mu.Lock()
	_, err := s.find(name)
	s.mu.Unlock()
	if err != nil {
		return 0, err
	}
	root, err := os.Open(s.path(name))
	if err != nil {
		return 0, fmt.Errorf("measure volume %s: %w", name, err)
	}
	m := &measure{seen: map[uint64]struct{}{}}
	if err := m.dir(ctx, root, 0); err != nil {
		return 0, fmt.Errorf("measure volume %s: %w", name, err)
	}
	return m.total, nil
}

// measure sums up file sizes.
type measure struct {
	total int64
	seen  map[uint64]struct{} // inodes of several names
}

// dir adds what is in an open directory and closes it.
func (m *measure) dir(ctx context.Context, dir *os.File, depth int) error {
	defer dir.Close()
	for {
		names, err := dir.Readdirnames(1000)
		if errors.Is(err, io.EOF) || errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		for _, name := range names {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err := m.entry(ctx, dir, name, depth); err != nil {
				return err
			}
		}
	}
}

func (m *measure) entry(ctx context.Context, dir *os.File, name string, depth int) error {
	var st unix.Stat_t
	if unix.Fstatat(int(dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW) != nil {
		return nil // it disappeared
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		if depth == maxDepth {
			return nil
		}
		fd, err := unix.Openat(int(dir.Fd()), name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
			return nil
		}
		if err != nil {
			return &os.PathError{Op: "open", Path: name, Err: err}
		}
		return m.dir(ctx, os.NewFile(uintptr(fd), name), depth+1)
	}
	if st.Nlink > 1 {
		if _, again := m.seen[st.Ino]; again {
			return nil
		}
		m.seen[st.Ino] = struct{}{}
	}
	m.total += st.Size
	return nil
}
