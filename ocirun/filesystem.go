package ocirun

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/ocirun/wire"
)

// rootfs decides on the mount that becomes the root.
func (r *Runtime) rootfs(p *plan, req *CreateRequest) error {
	p.cfg.RootReadonly = req.Spec.Root.Readonly
	p.cfg.Propagation = unix.MS_SLAVE | unix.MS_REC
	if name := req.Spec.Linux.RootfsPropagation; name != "" {
		flags, ok := propagationOf(name)
		if !ok {
			return invalidf("unknown propagation %q of the root", name)
		}
		p.cfg.RootPropagation = flags &^ unix.MS_REC
		if flags&unix.MS_UNBINDABLE == 0 {
			p.cfg.Propagation = flags
		}
	}
	if !p.cfg.NewMountNS {
		var err error
		p.cfg.RootPath, err = rootPath(req.Spec, req.Bundle)
		return err
	}
	if req.Root != nil {
		fd, err := r.cloneRoot(req.Root)
		if err != nil {
			return err
		}
		return r.passRoot(p, fd)
	}
	name := req.Spec.Root.Path
	if !filepath.IsAbs(name) {
		name = filepath.Join(req.Bundle, name)
	}
	fd, err := unix.OpenTree(unix.AT_FDCWD, name, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
	if err != nil {
		return invalidf("open root %s: %v", name, err)
	}
	return r.passRoot(p, fd)
}

func (r *Runtime) passRoot(p *plan, fd int) error {
	f := os.NewFile(uintptr(fd), "root")
	p.opened = append(p.opened, f)
	p.cfg.RootFD = p.pass(fd)
	return nil
}

func (r *Runtime) mounts(p *plan, req *CreateRequest) error {
	for i := range req.Spec.Mounts {
		m := &req.Spec.Mounts[i]
		w, err := parseMount(m)
		if err != nil {
			return err
		}
		if w.Kind == wire.MountBind && !filepath.IsAbs(w.Source) {
			w.Source = filepath.Join(req.Bundle, w.Source)
		}
		label(&w, req.Spec.Linux.MountLabel)
		if pid, inside, ok := otherRoot(w.Source); ok && w.Kind == wire.MountBind {
			tree, err := openOther(pid, inside, w.Recursive)
			if err != nil {
				return invalidf("mount at %s: open source %s: %v", w.Target, w.Source, err)
			}
			p.opened = append(p.opened, tree)
			w.SourceFD = p.pass(int(tree.Fd()))
		}
		if sub := Subpath(m); sub != "" && w.Kind == wire.MountBind && w.SourceFD < 0 {
			tree, err := openPart(w.Source, sub, w.Recursive)
			if err != nil {
				return invalidf("mount at %s: open %s in source %s: %v", w.Target, sub, w.Source, err)
			}
			p.opened = append(p.opened, tree)
			w.SourceFD = p.pass(int(tree.Fd()))
			if err := p.separate(tree); err != nil {
				return fmt.Errorf("mount at %s: %w", w.Target, err)
			}
		}
		idmapped := w.Kind == wire.MountBind && w.IDMapFD == -2
		if w.Kind == wire.MountBind && w.SourceFD < 0 && (len(p.cfg.Enter) > 0 || p.cfg.UserNS || idmapped) {
			// The source is ours, not one of the namespace that init enters, and root
			// of a user namespace may have no right to pass through its parents.
			tree, err := cloneSource(w.Source, w.Recursive)
			if err != nil {
				return invalidf("mount at %s: open source %s: %v", w.Target, w.Source, err)
			}
			p.opened = append(p.opened, tree)
			w.SourceFD = p.pass(int(tree.Fd()))
			if err := p.separate(tree); err != nil {
				return fmt.Errorf("mount at %s: %w", w.Target, err)
			}
		}
		if w.IDMapFD == -2 {
			ns, err := r.mountIDs(m, req.Spec.Linux, p.userNS)
			if err != nil {
				return err
			}
			p.opened = append(p.opened, ns)
			if idmapped {
				// Root of a container's user namespace must not.
				if err := mapIDs(p.fds[w.SourceFD], w.IDMapRecursive, ns); err != nil {
					return fmt.Errorf("mount at %s: %w", w.Target, noIDMaps(w.Source, err))
				}
				w.IDMapFD = -1
			} else {
				w.IDMapFD = p.pass(int(ns.Fd()))
			}
		}
		if path.Clean(w.Target) == "/dev" {
			p.cfg.DevSetup = w.Kind != wire.MountBind
		}
		p.cfg.Mounts = append(p.cfg.Mounts, w)
	}
	if len(p.cfg.Mounts) == 0 || !slices.ContainsFunc(p.cfg.Mounts, func(m wire.Mount) bool { return path.Clean(m.Target) == "/dev" }) {
		p.cfg.DevSetup = true // a /dev in the root itself
	}
	return nil
}

// separate gives a copy of the host's mount the propagation that it would have, had
// init made it in its mount namespace: it is not a peer of the host's, or what root of
// a user namespace mounts there would be the host's.
func (p *plan) separate(tree *os.File) error {
	attr := unix.MountAttr{Propagation: unix.MS_SLAVE}
	switch {
	case !p.cfg.NewMountNS || p.cfg.Propagation&unix.MS_SHARED != 0:
		return nil
	case p.cfg.Propagation&unix.MS_PRIVATE != 0:
		attr.Propagation = unix.MS_PRIVATE
	}
	if err := unix.MountSetattr(int(tree.Fd()), "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &attr); err != nil {
		return fmt.Errorf("set propagation: %w", err)
	}
	return nil
}

// cloneSource makes a detached copy of a mount.
func cloneSource(name string, recursive bool) (*os.File, error) {
	flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC)
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	fd, err := unix.OpenTree(unix.AT_FDCWD, name, flags)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// mapIDs makes a detached mount an idmapped one (mount_setattr(2)).
func mapIDs(mount int, recursive bool, userNS *os.File) error {
	flags := uint(unix.AT_EMPTY_PATH)
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	return unix.MountSetattr(mount, "", flags, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(userNS.Fd())})
}

// standardDevices every container has.
var standardDevices = [...]wire.Device{
	{Path: "/dev/null", Type: "c", Major: 1, Minor: 3, Mode: 0o666},
	{Path: "/dev/zero", Type: "c", Major: 1, Minor: 5, Mode: 0o666},
	{Path: "/dev/full", Type: "c", Major: 1, Minor: 7, Mode: 0o666},
	{Path: "/dev/random", Type: "c", Major: 1, Minor: 8, Mode: 0o666},
	{Path: "/dev/urandom", Type: "c", Major: 1, Minor: 9, Mode: 0o666},
	{Path: "/dev/tty", Type: "c", Major: 5, Minor: 0, Mode: 0o666},
}

func (r *Runtime) devices(p *plan, req *CreateRequest) error {
	p.cfg.Devices = append(p.cfg.Devices, standardDevices[:]...)
	for i := range req.Spec.Linux.Devices {
		d := &req.Spec.Linux.Devices[i]
		name := path.Clean("/" + d.Path)
		if name == "/" || name == "/dev/ptmx" {
			continue // ptmx is a link to the container's own
		}
		w := wire.Device{Path: name, Type: d.Type, Major: d.Major, Minor: d.Minor, Mode: 0o666}
		switch d.Type {
		case "c", "u":
			w.Type = "c"
		case "b", "p":
		default:
			return invalidf("device %s: unknown type %q", d.Path, d.Type)
		}
		if d.FileMode != nil {
			w.Mode = uint32(*d.FileMode) & 0o7777
		}
		if d.UID != nil {
			w.UID = *d.UID
		}
		if d.GID != nil {
			w.GID = *d.GID
		}
		if i := slices.IndexFunc(p.cfg.Devices, func(h wire.Device) bool { return h.Path == name }); i >= 0 {
			p.cfg.Devices[i] = w
			continue
		}
		p.cfg.Devices = append(p.cfg.Devices, w)
	}
	return nil
}
