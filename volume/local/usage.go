package local

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
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

// Usage implements volume.Store: the sum of file sizes, each inode once. What
// disappears meanwhile is left out. The walk cannot leave the volume.
func (s *Store) Usage(ctx context.Context, name string) (int64, error) {
	s.mu.Lock()
	_, err := s.find(name)
	s.mu.Unlock()
	if err != nil {
		return 0, err
	}
	root, err := os.OpenRoot(s.path(name))
	if err != nil {
		return 0, fmt.Errorf("measure volume %s: %w", name, err)
	}
	defer root.Close()
	var total int64
	seen := map[uint64]struct{}{}
	err = fs.WalkDir(root.FS(), ".", func(_ string, d fs.DirEntry, err error) error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if errors.Is(err, fs.ErrNotExist) || err == nil && d.IsDir() {
			return nil
		}
		if err != nil {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return nil //nolint:nilerr // it disappeared
		}
		if st, ok := fi.Sys().(*syscall.Stat_t); ok && st.Nlink > 1 {
			if _, again := seen[st.Ino]; again {
				return nil
			}
			seen[st.Ino] = struct{}{}
		}
		total += fi.Size()
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("measure volume %s: %w", name, err)
	}
	return total, nil
}
