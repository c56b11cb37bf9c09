package local

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Mount implements volume.Store.
func (s *Store) Mount(ctx context.Context, name, containerID string) (string, error) {
	s.mu.Lock()
	e, err := s.find(name)
	s.mu.Unlock()
	if err != nil {
		return "", err
	}
	e.mounting.Lock()
	defer e.mounting.Unlock()
	m, err := parseMount(e.Options)
	if err != nil {
		return "", err
	}
	path := s.path(name)
	if m != nil {
		if err := m.attach(ctx, path); err != nil {
			return "", fmt.Errorf("error while mounting volume '%s': failed to mount local volume: %w", path, err)
		}
	}
	e.mounts[containerID]++
	return path, nil
}

// Unmount implements volume.Store. What is not mounted is no error.
func (s *Store) Unmount(_ context.Context, name, containerID string) error {
	s.mu.Lock()
	e := s.volumes[name]
	s.mu.Unlock()
	if e == nil {
		return nil
	}
	e.mounting.Lock()
	defer e.mounting.Unlock()
	if e.mounts[containerID]--; e.mounts[containerID] <= 0 {
		delete(e.mounts, containerID)
	}
	if len(e.mounts) > 0 || len(e.Options) == 0 {
		return nil
	}
	return unmountAll(s.path(name))
}

// Settle unmounts what no container uses. It is called once after a start,
// when the containers that live have mounted their volumes again.
func (s *Store) Settle() {
	s.mu.Lock()
	var idle []*entry
	for _, e := range s.volumes {
		if len(e.Options) > 0 {
			idle = append(idle, e)
		}
	}
	s.mu.Unlock()
	for _, e := range idle {
		e.mounting.Lock()
		if len(e.mounts) == 0 {
			if err := unmountAll(s.path(e.Name)); err != nil {
				s.log.Warn("unmount an unused volume", "volume", e.Name, "err", err)
			}
		}
		e.mounting.Unlock()
	}
}

// isMounted reports whether path is the root of a mount.
func isMounted(path string) (bool, error) {
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT, 0, &st)
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	if err != nil {
		return false, &os.PathError{Op: "statx", Path: path, Err: err}
	}
	return st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0, nil
}

// unmountAll takes every mount off path.
func unmountAll(path string) error {
	for {
		on, err := isMounted(path)
		if err != nil || !on {
			return err
		}
		err = unix.Unmount(path, unix.UMOUNT_NOFOLLOW)
		if errors.Is(err, unix.EBUSY) {
			err = unix.Unmount(path, unix.UMOUNT_NOFOLLOW|unix.MNT_DETACH)
		}
		if err != nil {
			return &os.PathError{Op: "unmount", Path: path, Err: err}
		}
	}
}
