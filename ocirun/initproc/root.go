package initproc

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// attachRoot cuts the propagation to the host and attaches the container's
// root on top of the namespace's own, where only descriptors lead to it.
func (s *setup) attachRoot() error {
	if !s.cfg.NewMountNS {
		return s.hostRoot()
	}
	if err := unix.Mount("", "/", "", uintptr(s.cfg.Propagation), ""); err != nil {
		return fmt.Errorf("set propagation of the host's mounts: %w", err)
	}
	// pivot_root wants a parent that is not shared.
	if s.cfg.Propagation&unix.MS_SHARED != 0 {
		if err := unix.Mount("", "/", "", unix.MS_PRIVATE, ""); err != nil {
			return fmt.Errorf("make the host's root private: %w", err)
		}
	}
	var err error
	if s.null, err = unix.Open("/dev/null", unix.O_PATH|unix.O_CLOEXEC, 0); err != nil {
		return fmt.Errorf("open /dev/null: %w", err)
	}
	if s.root, err = s.fd(s.cfg.RootFD); err != nil {
		return err
	}
	if err := s.setPropagation(s.root); err != nil {
		return err
	}
	if err := unix.MoveMount(s.root, "", unix.AT_FDCWD, "/", unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("attach the root: %w", err)
	}
	return nil
}

// setPropagation keeps mounts that a bound root brings along from telling
// the host of what happens below them.
func (s *setup) setPropagation(root int) error {
	prop := uint64(unix.MS_SLAVE)
	if s.cfg.Propagation&unix.MS_PRIVATE != 0 {
		prop = unix.MS_PRIVATE
	}
	if s.cfg.Propagation&unix.MS_SHARED != 0 {
		return nil
	}
	attr := unix.MountAttr{Propagation: prop}
	if err := mountSetattr(root, true, &attr); err != nil {
		return fmt.Errorf("set propagation of the root: %w", err)
	}
	return nil
}

// hostRoot is for containers in a mount namespace that exists already.
func (s *setup) hostRoot() error {
	var err error
	if s.null, err = unix.Open("/dev/null", unix.O_PATH|unix.O_CLOEXEC, 0); err != nil {
		return fmt.Errorf("open /dev/null: %w", err)
	}
	if s.cfg.RootPath == "" {
		return errors.New("a container without a mount namespace of its own needs a root path")
	}
	s.root, err = unix.Open(s.cfg.RootPath, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open the root %s: %w", s.cfg.RootPath, err)
	}
	if !s.cfg.RootReadonly {
		return nil
	}
	// A mount of its own, whose flag is not that of others.
	fd, err := unix.OpenTree(s.root, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH|unix.AT_RECURSIVE)
	if err != nil {
		return fmt.Errorf("clone the root: %w", err)
	}
	if err := mountSetattr(fd, false, &unix.MountAttr{Propagation: unix.MS_PRIVATE}); err != nil {
		return err
	}
	if err := attach(fd, s.root); err != nil {
		return err
	}
	unix.Close(s.root)
	s.root = fd
	return nil
}

// pivot makes the container's root the root of the namespace and drops
// everything of the host's.
func (s *setup) pivot() error {
	if s.cfg.RootReadonly {
		attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
		if err := mountSetattr(s.root, false, &attr); err != nil {
			return fmt.Errorf("make the root read-only: %w", err)
		}
	}
	if err := unix.Fchdir(s.root); err != nil {
		return fmt.Errorf("enter the root: %w", err)
	}
	switch {
	case !s.cfg.NewMountNS:
		if err := unix.Chroot("."); err != nil {
			return fmt.Errorf("chroot: %w", err)
		}
	case s.cfg.NoPivot:
		// For a host whose root is an initramfs, which cannot be moved away.
		if err := unix.Chroot("."); err != nil {
			return fmt.Errorf("chroot: %w", err)
		}
	default:
		if err := s.pivotRoot(); err != nil {
			return err
		}
	}
	if err := unix.Chdir("/"); err != nil {
		return fmt.Errorf("chdir /: %w", err)
	}
	if s.cfg.RootPropagation != 0 && s.cfg.NewMountNS {
		if err := unix.Mount("", "/", "", uintptr(s.cfg.RootPropagation), ""); err != nil {
			return fmt.Errorf("set propagation of the root: %w", err)
		}
	}
	return nil
}

func (s *setup) pivotRoot() error {
	old, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open the old root: %w", err)
	}
	defer unix.Close(old)
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot_root: %w", err)
	}
	if err := unix.Fchdir(old); err != nil {
		return fmt.Errorf("enter the old root: %w", err)
	}
	if err := unix.Mount("", ".", "", unix.MS_SLAVE|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("detach the old root's propagation: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount the old root: %w", err)
	}
	return nil
}

// sysctls are written through the container's own procfs where it has one.
func (s *setup) sysctls() error {
	dir := s.newProc
	if dir < 0 {
		dir = s.proc
	}
	for _, kv := range s.cfg.Sysctl {
		name := "sys/" + strings.ReplaceAll(kv.Key, ".", "/")
		if strings.Contains(kv.Key, "/") { // "net/ipv4/conf/eth0.1/forwarding"
			name = "sys/" + kv.Key
		}
		how := unix.OpenHow{Flags: unix.O_WRONLY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS}
		fd, err := unix.Openat2(dir, name, &how)
		if err != nil {
			return fmt.Errorf("open sysctl %s: %w", kv.Key, err)
		}
		_, err = unix.Write(fd, []byte(kv.Value))
		unix.Close(fd)
		if err != nil {
			return fmt.Errorf("set sysctl %s=%s: %w", kv.Key, kv.Value, err)
		}
	}
	return nil
}
