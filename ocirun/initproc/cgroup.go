package initproc

import (
	"fmt"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/ocirun/wire"
)

// hierarchyAttr are the flags of the hierarchies below a cgroup v1 mount.
func hierarchyAttr(m *wire.Mount) uint64 { return m.Set }

// enterCgroups moves this thread, which will execute the program, into the
// control groups it was not born in. The Go runtime's other threads stay where
// they are; they end with the exec at the latest.
func (s *setup) enterCgroups() error {
	for _, i := range s.cfg.CgroupFDs {
		fd, err := s.fd(i)
		if err != nil {
			return err
		}
		if _, err := unix.Write(fd, []byte("0")); err != nil {
			name, _ := s.readProcLink(fd)
			return fmt.Errorf("enter %s: %w", name, err)
		}
	}
	return nil
}

// readProcLink names what a descriptor is of.
func (s *setup) readProcLink(fd int) (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(s.proc, "thread-self/fd/"+itoa(fd), buf)
	return string(buf[:max(n, 0)]), err
}

// cgroup shows the container its control groups.
func (s *setup) cgroup(m *wire.Mount) error {
	target, err := s.target(m.Target, true)
	if err != nil {
		return err
	}
	defer unix.Close(target)
	if len(s.cfg.CgroupV1) == 1 && s.cfg.CgroupV1[0].Unified {
		fd, err := s.hierarchy(m, &s.cfg.CgroupV1[0])
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return attach(fd, target)
	}
	top, err := newMount("tmpfs", "tmpfs", []string{"mode=755"}, int(m.Set&^unix.MOUNT_ATTR_RDONLY))
	if err != nil {
		return err
	}
	defer unix.Close(top)
	if err := attach(top, target); err != nil {
		return err
	}
	for i := range s.cfg.CgroupV1 {
		if err := s.subHierarchy(m, top, &s.cfg.CgroupV1[i]); err != nil {
			return fmt.Errorf("%s: %w", s.cfg.CgroupV1[i].Name, err)
		}
	}
	if m.Set&unix.MOUNT_ATTR_RDONLY != 0 {
		return mountSetattr(top, false, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY})
	}
	return nil
}

// subHierarchy mounts one hierarchy in a directory of the tmpfs, with links
// for the controllers that share it.
func (s *setup) subHierarchy(m *wire.Mount, top int, h *wire.Hierarchy) error {
	fd, err := s.hierarchy(m, h)
	if err != nil {
		if h.Unified {
			return nil // hybrid: an extra, not a must
		}
		return err
	}
	defer unix.Close(fd)
	if err := unix.Mkdirat(top, h.Name, 0o755); err != nil {
		return err
	}
	dir, err := s.child(top, h.Name)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	if err := attach(fd, dir); err != nil {
		return err
	}
	for _, o := range h.Options {
		if o != h.Name && !strings.HasPrefix(o, "name=") {
			if err := unix.Symlinkat(h.Name, top, o); err != nil {
				return err
			}
		}
	}
	return nil
}

// hierarchy makes a detached mount of one hierarchy: rooted at the container's
// own cgroup by its namespace, or else by binding only that directory.
func (s *setup) hierarchy(m *wire.Mount, h *wire.Hierarchy) (int, error) {
	if s.cfg.CgroupBind == "" {
		typ, data := "cgroup", h.Options
		if h.Unified {
			typ, data = "cgroup2", m.Data
		} else if len(data) > 0 && strings.HasPrefix(data[0], "name=") {
			data = append([]string{"none"}, data...)
		}
		return newMount(typ, "cgroup", data, int(hierarchyAttr(m)))
	}
	fd, err := unix.OpenTree(unix.AT_FDCWD, path.Join(h.Mount, s.cfg.CgroupBind), unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("open source: %w", err)
	}
	attr := unix.MountAttr{Attr_set: hierarchyAttr(m), Attr_clr: m.Clear, Propagation: unix.MS_PRIVATE}
	if err := mountSetattr(fd, false, &attr); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}
