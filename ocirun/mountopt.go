package ocirun

import (
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/ocirun/wire"
)

// attrChange is what an option does to the flags of a mount.
type attrChange struct{ set, clr uint64 }

// attrOf knows the options that are flags of a mount, with and without the
// leading r that makes them recursive.
func attrOf(option string) (attrChange, bool) {
	const atime = unix.MOUNT_ATTR__ATIME
	switch option {
	case "ro":
		return attrChange{unix.MOUNT_ATTR_RDONLY, 0}, true
	case "rw":
		return attrChange{0, unix.MOUNT_ATTR_RDONLY}, true
	case "nosuid":
		return attrChange{unix.MOUNT_ATTR_NOSUID, 0}, true
	case "suid":
		return attrChange{0, unix.MOUNT_ATTR_NOSUID}, true
	case "nodev":
		return attrChange{unix.MOUNT_ATTR_NODEV, 0}, true
	case "dev":
		return attrChange{0, unix.MOUNT_ATTR_NODEV}, true
	case "noexec":
		return attrChange{unix.MOUNT_ATTR_NOEXEC, 0}, true
	case "exec":
		return attrChange{0, unix.MOUNT_ATTR_NOEXEC}, true
	case "nodiratime":
		return attrChange{unix.MOUNT_ATTR_NODIRATIME, 0}, true
	case "diratime":
		return attrChange{0, unix.MOUNT_ATTR_NODIRATIME}, true
	case "nosymfollow":
		return attrChange{unix.MOUNT_ATTR_NOSYMFOLLOW, 0}, true
	case "symfollow":
		return attrChange{0, unix.MOUNT_ATTR_NOSYMFOLLOW}, true
	case "noatime": // the four ways of counting exclude each other
		return attrChange{unix.MOUNT_ATTR_NOATIME, atime}, true
	case "strictatime":
		return attrChange{unix.MOUNT_ATTR_STRICTATIME, atime}, true
	case "relatime", "atime", "norelatime", "nostrictatime":
		return attrChange{0, atime}, true
	}
	return attrChange{}, false
}

func propagationOf(option string) (uint64, bool) {
	flags := uint64(0)
	name := option
	if r, ok := strings.CutPrefix(option, "r"); ok && r != "" {
		flags, name = unix.MS_REC, r
	}
	switch name {
	case "private":
		return flags | unix.MS_PRIVATE, true
	case "shared":
		return flags | unix.MS_SHARED, true
	case "slave":
		return flags | unix.MS_SLAVE, true
	case "unbindable":
		return flags | unix.MS_UNBINDABLE, true
	}
	return 0, false
}

// apply merges a change into accumulated flags; later options win.
func (c attrChange) apply(set, clr *uint64) {
	*set = *set&^c.clr | c.set
	*clr = *clr&^c.set | c.clr
}

// parseMount takes the options of one mount apart.
func parseMount(m *specs.Mount) (wire.Mount, error) {
	w := wire.Mount{Target: m.Destination, Source: m.Source, Type: m.Type, SourceFD: -1, IDMapFD: -1}
	if !strings.HasPrefix(w.Target, "/") {
		w.Target = "/" + w.Target
	}
	var data []string
	remount := false
	for _, o := range m.Options {
		if c, ok := attrOf(o); ok {
			c.apply(&w.Set, &w.Clear)
			continue
		}
		if p, ok := propagationOf(o); ok {
			w.Propagation = append(w.Propagation, p)
			continue
		}
		if r, ok := strings.CutPrefix(o, "r"); ok {
			if c, ok := attrOf(r); ok {
				c.apply(&w.RecSet, &w.RecClear)
				continue
			}
		}
		if strings.HasPrefix(o, subpathOption) {
			continue // a path, see Subpath
		}
		switch o {
		case "", "defaults":
		case "bind":
			w.Kind = wire.MountBind
		case "rbind":
			w.Kind, w.Recursive = wire.MountBind, true
		case "remount":
			remount = true
		case "tmpcopyup":
			w.CopyUp = true
		case "idmap":
			w.IDMapFD = -2
		case "ridmap":
			w.IDMapFD, w.IDMapRecursive = -2, true
		default:
			data = append(data, o)
		}
	}
	if m.Type == "bind" && w.Kind != wire.MountBind {
		w.Kind = wire.MountBind
	}
	if len(m.UIDMappings)+len(m.GIDMappings) > 0 && w.IDMapFD == -1 {
		w.IDMapFD = -2
	}
	return finishMount(&w, m, data, remount)
}

func finishMount(w *wire.Mount, m *specs.Mount, data []string, remount bool) (wire.Mount, error) {
	switch {
	case remount:
		if w.Kind != wire.MountBind { // with bind, the flags of the mount alone
			w.Data = withoutNoops(w, data)
		}
		w.Kind = wire.MountRemount
	case w.Kind == wire.MountBind:
		for _, d := range data {
			// Values are the file system's, which the kernel does not hear of here
			// (mount(2), MS_BIND); callers give them all the same.
			if !superblockOption(d) && !strings.Contains(d, "=") {
				return *w, fmt.Errorf("mount at %s: a bind mount has no option %q: %w", m.Destination, d, errdefs.ErrInvalidArgument)
			}
		}
		if m.Source == "" {
			return *w, fmt.Errorf("mount at %s: a bind mount needs a source: %w", m.Destination, errdefs.ErrInvalidArgument)
		}
	case m.Type == "cgroup" || m.Type == "cgroup2":
		w.Kind = wire.MountCgroup
		for _, d := range data {
			if strings.HasPrefix(d, "nsdelegate") || strings.HasPrefix(d, "memory_recursiveprot") {
				w.Data = append(w.Data, d)
			}
		}
	case m.Type == "":
		return *w, fmt.Errorf("mount at %s: no type given: %w", m.Destination, errdefs.ErrInvalidArgument)
	default:
		w.Data = withoutNoops(w, data)
	}
	if w.CopyUp && m.Type != "tmpfs" {
		return *w, fmt.Errorf("mount at %s: tmpcopyup is for tmpfs only: %w", m.Destination, errdefs.ErrInvalidArgument)
	}
	return *w, nil
}

// withoutNoops takes options out that say how mount(2) is to be called, or what
// is so anyway, and that file systems do not know.
func withoutNoops(w *wire.Mount, data []string) []string {
	return slices.DeleteFunc(data, func(o string) bool {
		switch o {
		case "iversion":
			w.IVersion = true
			return true
		case "silent", "loud", "noiversion", "acl":
			return true
		}
		return false
	})
}

// superblockOption: flags of the file system, without meaning for a bind mount.
func superblockOption(o string) bool {
	switch o {
	case "sync", "async", "dirsync", "mand", "nomand", "lazytime", "nolazytime", "silent", "loud", "iversion", "noiversion", "acl", "noacl":
		return true
	}
	return false
}

// MountOptions lists the options that are not the file system's own.
func MountOptions() []string {
	var out []string
	for _, o := range strings.Fields("atime diratime dev exec noatime nodev nodiratime noexec norelatime nostrictatime nosuid nosymfollow " +
		"relatime ro rw strictatime suid symfollow") {
		out = append(out, o, "r"+o)
	}
	out = append(out, strings.Fields("async dirsync iversion lazytime loud mand noiversion nolazytime nomand silent sync")...)
	out = append(out, strings.Fields("bind defaults idmap private rbind remount ridmap rprivate rshared rslave runbindable shared slave tmpcopyup unbindable")...)
	slices.Sort(out)
	return out
}

// subpathOption is followed by the part of a bind mount's source to mount.
const subpathOption = "wherry.subpath="

// Subpath returns the part of a mount's source that is to be mounted, "" for all.
func Subpath(m *specs.Mount) string {
	for _, o := range m.Options {
		if sub, ok := strings.CutPrefix(o, subpathOption); ok {
			return sub
		}
	}
	return ""
}
