package initproc

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// readonlyPaths binds paths onto themselves, read-only with all below.
func (s *setup) readonlyPaths() error {
	for _, p := range s.cfg.Readonly {
		if err := s.readonlyPath(p); err != nil {
			return fmt.Errorf("%s: %w", p, err)
		}
	}
	return nil
}

func (s *setup) readonlyPath(name string) error {
	target, err := s.inRoot(name, unix.O_PATH)
	if absent(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(target)
	fd, err := unix.OpenTree(target, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH|unix.AT_RECURSIVE)
	if err != nil {
		return fmt.Errorf("clone: %w", err)
	}
	defer unix.Close(fd)
	if err := mountSetattr(fd, true, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}); err != nil {
		return err
	}
	return attach(fd, target)
}

func absent(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR)
}

// maskedPaths hides files behind /dev/null and directories behind one empty
// read-only tmpfs, which is mounted once and bound from there on.
func (s *setup) maskedPaths() error {
	empty := -1
	for _, p := range s.cfg.Masked {
		if err := s.maskedPath(p, &empty); err != nil {
			return fmt.Errorf("%s: %w", p, err)
		}
	}
	if empty >= 0 {
		unix.Close(empty)
	}
	return nil
}

func (s *setup) maskedPath(name string, empty *int) error {
	target, err := s.inRoot(name, unix.O_PATH)
	if absent(err) || errors.Is(err, unix.EACCES) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(target)
	var st unix.Stat_t
	if err := unix.Fstat(target, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		fd, err := s.cloneNull()
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return attach(fd, target)
	}
	if *empty < 0 {
		fd, err := newMount("tmpfs", "tmpfs", []string{"mode=755", "nr_blocks=1", "nr_inodes=1"}, unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
		if err != nil {
			return err
		}
		*empty = fd
		return attach(fd, target)
	}
	fd, err := unix.OpenTree(*empty, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH)
	if err != nil {
		return fmt.Errorf("clone the empty directory: %w", err)
	}
	defer unix.Close(fd)
	return attach(fd, target)
}

// cloneNull makes a detached mount of the host's /dev/null.
func (s *setup) cloneNull() (int, error) {
	fd, err := unix.OpenTree(s.null, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH)
	if err != nil {
		return -1, fmt.Errorf("clone /dev/null: %w", err)
	}
	return fd, nil
}
