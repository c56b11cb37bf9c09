package initproc

import (
	"errors"
	"fmt"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// kernelFS is a procfs or sysfs that init has mounted. What is to be hidden in it
// is found through its descriptor: whoever can change the root's directory while
// the container starts may have exchanged the mount point meanwhile, and a path
// would lead elsewhere.
type kernelFS struct {
	target string // clean path
	fd     int
}

// visible tells whether the mount point's path still leads to the mount.
func (s *setup) visible(k *kernelFS) bool {
	fd, err := s.inRoot(k.target, unix.O_PATH)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	var a, b unix.Statx_t
	err = errors.Join(
		unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_MNT_ID, &a),
		unix.Statx(k.fd, "", unix.AT_EMPTY_PATH, unix.STATX_MNT_ID, &b))
	return err == nil && a.Mnt_id == b.Mnt_id
}

// protect applies f to each of the paths: in the mounts that init made, and where
// the path leads if that is elsewhere, because something else was mounted there.
// What ignore says of the error that opening it brings needs nothing.
func (s *setup) protect(paths []string, ignore func(error) bool, f func(target int) error) error {
	hidden := make([]bool, len(s.kernel))
	for i := range s.kernel {
		hidden[i] = !s.visible(&s.kernel[i])
	}
	for _, name := range paths {
		byPath := true
		for i := range s.kernel {
			rest, ok := strings.CutPrefix(path.Clean(name), s.kernel[i].target+"/")
			if !ok {
				continue
			}
			byPath = byPath && hidden[i]
			how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS}
			fd, err := unix.Openat2(s.kernel[i].fd, rest, &how)
			if err := protected(fd, err, ignore, f); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
		if byPath {
			fd, err := s.inRoot(name, unix.O_PATH)
			if err := protected(fd, err, ignore, f); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	return nil
}

func protected(fd int, err error, ignore func(error) bool, f func(target int) error) error {
	if ignore(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return f(fd)
}

// readonlyPaths binds paths onto themselves, read-only with all below.
func (s *setup) readonlyPaths() error { return s.protect(s.cfg.Readonly, absent, readonlyPath) }

func readonlyPath(target int) error {
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
	ignore := func(err error) bool { return absent(err) || errors.Is(err, unix.EACCES) }
	err := s.protect(s.cfg.Masked, ignore, func(target int) error { return s.maskedPath(target, &empty) })
	if empty >= 0 {
		unix.Close(empty)
	}
	return err
}

func (s *setup) maskedPath(target int, empty *int) error {
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

// cloneNull makes a detached mount of the host's /dev/null. It is read-only,
// which keeps nobody from writing to the device, but from changing its mode: the
// container's root owns it.
func (s *setup) cloneNull() (int, error) {
	fd, err := unix.OpenTree(s.null, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH)
	if err != nil {
		return -1, fmt.Errorf("clone /dev/null: %w", err)
	}
	if err := mountSetattr(fd, false, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NOEXEC}); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("make the mount of /dev/null read-only: %w", err)
	}
	return fd, nil
}
