package lifecycle

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/container"
)

// A container whose IPC namespace may be shared has its /dev/shm on the host,
// because a mount inside one container cannot be given to another. All other
// containers have theirs inside only.

func (e *Engine) shmDir(id container.ID) string {
	return filepath.Join(e.o.ExecRoot, "shm", string(id))
}

// openShm mounts the shared memory of a shareable container and returns its path.
func (e *Engine) openShm(s *container.Spec) (string, error) {
	dir := e.shmDir(s.ID)
	if err := e.closeShm(s.ID); err != nil {
		return "", err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	opts := fmt.Sprintf("mode=1777,size=%d", s.HostConfig.ShmSize)
	if err := unix.Mount("shm", dir, "tmpfs", unix.MS_NOEXEC|unix.MS_NOSUID|unix.MS_NODEV, opts); err != nil {
		return "", fmt.Errorf("mount shared memory: %w", err)
	}
	return dir, nil
}

// closeShm undoes openShm; it may be called without one.
func (e *Engine) closeShm(id container.ID) error {
	dir := e.shmDir(id)
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

// collectShm releases the shared memory of containers that do not live.
func (e *Engine) collectShm() error {
	entries, err := os.ReadDir(filepath.Join(e.o.ExecRoot, "shm"))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	errs := []error{err}
	for _, d := range entries {
		if u := e.index.get(container.ID(d.Name())); u == nil || !u.up() {
			errs = append(errs, e.closeShm(container.ID(d.Name())))
		}
	}
	return errors.Join(errs...)
}
