// Package shm keeps the shared memory of containers whose IPC namespace may be
// shared: their /dev/shm is on the host, because a mount inside one container
// cannot be given to another. All other containers have theirs inside only.
package shm

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/container"
)

// Dir holds the mount points, one for each container, by its ID.
type Dir string

// Path is where the shared memory of a container is mounted.
func (d Dir) Path(id container.ID) string { return filepath.Join(string(d), string(id)) }

// Open mounts the shared memory of a container, of so many bytes, and returns its
// path. It belongs to root of the container.
func (d Dir) Open(id container.ID, size int64, ids container.IDMap) (string, error) {
	dir := d.Path(id)
	if err := d.Close(id); err != nil {
		return "", err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	uid, gid := ids.Root()
	opts := fmt.Sprintf("mode=1777,size=%d,uid=%d,gid=%d", size, uid, gid)
	if err := unix.Mount("shm", dir, "tmpfs", unix.MS_NOEXEC|unix.MS_NOSUID|unix.MS_NODEV, opts); err != nil {
		return "", fmt.Errorf("mount shared memory: %w", err)
	}
	return dir, nil
}

// Close undoes Open; it may be called without one.
func (d Dir) Close(id container.ID) error {
	dir := d.Path(id)
	for {
		err := unix.Unmount(dir, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
			break
		}
		if err != nil {
			return fmt.Errorf("unmount shared memory: %w", err)
		}
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// Collect releases the shared memory of containers that do not live.
func (d Dir) Collect(lives func(container.ID) bool) error {
	entries, err := os.ReadDir(string(d))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	errs := []error{err}
	for _, entry := range entries {
		if id := container.ID(entry.Name()); !lives(id) {
			errs = append(errs, d.Close(id))
		}
	}
	return errors.Join(errs...)
}

// Remove removes the directory itself, unless something is mounted in it still.
func (d Dir) Remove() { _ = os.Remove(string(d)) }
