package initproc

import (
	"errors"
	"fmt"
	"path"

	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/ocirun/wire"
)

// devices fills /dev, if it is the container's own.
func (s *setup) devices() error {
	if !s.cfg.DevSetup {
		return nil
	}
	for i := range s.cfg.Devices {
		d := &s.cfg.Devices[i]
		if err := s.device(d); err != nil {
			return fmt.Errorf("device %s: %w", d.Path, err)
		}
	}
	return s.devLinks()
}

func (s *setup) device(d *wire.Device) error {
	dir, err := s.mkdirAll(path.Dir(d.Path), 0o755)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	base := path.Base(d.Path)
	if s.cfg.UserNS {
		return s.bindDevice(d, dir, base)
	}
	typ := nodeType(d)
	dev := unix.Mkdev(uint32(d.Major), uint32(d.Minor))
	err = unix.Mknodat(dir, base, typ|d.Mode&0o7777, int(dev))
	switch {
	case errors.Is(err, unix.EEXIST):
		var st unix.Stat_t
		if err := unix.Fstatat(dir, base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
		if st.Mode&unix.S_IFMT != typ || typ != unix.S_IFIFO && st.Rdev != dev {
			return errors.New("another file is in its place")
		}
	case errors.Is(err, unix.EPERM):
		return s.bindDevice(d, dir, base) // a user namespace above us
	case err != nil:
		return fmt.Errorf("mknod: %w", err)
	}
	if d.UID != 0 || d.GID != 0 {
		return unix.Fchownat(dir, base, int(d.UID), int(d.GID), unix.AT_SYMLINK_NOFOLLOW)
	}
	return nil
}

// nodeType of a device, as in the mode of its node.
func nodeType(d *wire.Device) uint32 {
	switch d.Type {
	case "b":
		return unix.S_IFBLK
	case "p":
		return unix.S_IFIFO
	}
	return unix.S_IFCHR
}

// bindDevice binds the host's node: nodes cannot be made in a user namespace. The
// mount is read-only, see cloneNull.
func (s *setup) bindDevice(d *wire.Device, dir int, base string) error {
	src, err := unix.OpenTree(unix.AT_FDCWD, d.Path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return fmt.Errorf("open the host's: %w", err)
	}
	defer unix.Close(src)
	var st unix.Stat_t
	if err := unix.Fstat(src, &st); err != nil {
		return fmt.Errorf("look at the host's: %w", err)
	}
	// The path is the container's; on the host it may be anything.
	if dev := unix.Mkdev(uint32(d.Major), uint32(d.Minor)); st.Mode&unix.S_IFMT != nodeType(d) || d.Type != "p" && st.Rdev != dev {
		return errors.New("the host has another file at this path, and no node can be made here")
	}
	fd, err := unix.Openat(dir, base, unix.O_CREAT|unix.O_NOFOLLOW|unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0o600)
	if err != nil && !errors.Is(err, unix.ENXIO) && !errors.Is(err, unix.EACCES) {
		return fmt.Errorf("create: %w", err)
	}
	if err == nil {
		unix.Close(fd)
	}
	if err := mountSetattr(src, false, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}); err != nil {
		return fmt.Errorf("make it read-only: %w", err)
	}
	target, err := s.child(dir, base)
	if err != nil {
		return err
	}
	defer unix.Close(target)
	return attach(src, target)
}

// devLinks makes the links every program expects.
func (s *setup) devLinks() error {
	dev, err := s.inRoot("/dev", unix.O_PATH|unix.O_DIRECTORY)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open /dev: %w", err)
	}
	defer unix.Close(dev)
	links := [...][2]string{
		{"/proc/self/fd", "fd"},
		{"/proc/self/fd/0", "stdin"},
		{"/proc/self/fd/1", "stdout"},
		{"/proc/self/fd/2", "stderr"},
		{"/proc/kcore", "core"},
	}
	for _, l := range links {
		if l[1] == "core" && unix.Faccessat(s.proc, "kcore", unix.F_OK, 0) != nil {
			continue
		}
		if err := unix.Symlinkat(l[0], dev, l[1]); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("link /dev/%s: %w", l[1], err)
		}
	}
	err = unix.Symlinkat("pts/ptmx", dev, "ptmx")
	if errors.Is(err, unix.EEXIST) {
		// A node made for the host's terminals.
		if err = unix.Unlinkat(dev, "ptmx", 0); err == nil {
			err = unix.Symlinkat("pts/ptmx", dev, "ptmx")
		}
	}
	if err != nil {
		return fmt.Errorf("link /dev/ptmx: %w", err)
	}
	return nil
}
