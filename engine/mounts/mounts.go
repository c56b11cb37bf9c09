// Package mounts resolves what a user asked to be mounted (binds, volumes,
// tmpfs, the image's volumes, those of other containers) into the mount points
// of a container, and those into mounts of the OCI configuration. It creates
// nothing; volumes are made by its caller.
package mounts

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	apicontainer "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"

	"github.com/wherry-engine/wherry/container"
)

func invalid(format string, args ...any) error {
	return errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf(format, args...))
}

// Lookup finds the mounts of another container, for VolumesFrom. NotFound.
type Lookup func(ref string) ([]container.Mount, error)

// Resolve returns the mount points of a new container, without names for
// anonymous volumes. InvalidArgument, NotImplemented, NotFound (VolumesFrom).
func Resolve(c *apicontainer.Config, h *apicontainer.HostConfig, other Lookup) ([]container.Mount, error) {
	var points set
	for _, from := range h.VolumesFrom {
		if err := points.from(from, other); err != nil {
			return nil, err
		}
	}
	inherited := len(points)
	for _, bind := range h.Binds {
		m, err := ParseBind(bind, h.VolumeDriver)
		if err != nil {
			return nil, err
		}
		if err := points.add(m, inherited); err != nil {
			return nil, err
		}
	}
	for i := range h.Mounts {
		m, err := fromMount(&h.Mounts[i])
		if err != nil {
			return nil, err
		}
		if err := points.add(m, inherited); err != nil {
			return nil, err
		}
	}
	for dest, opts := range h.Tmpfs {
		m, err := fromTmpfs(dest, opts)
		if err != nil {
			return nil, err
		}
		if err := points.add(m, inherited); err != nil {
			return nil, err
		}
	}
	if err := points.image(c.Volumes, h.VolumeDriver); err != nil {
		return nil, err
	}
	for _, m := range points {
		if err := outsideProc(m); err != nil {
			return nil, err
		}
	}
	slices.SortStableFunc(points, func(a, b container.Mount) int {
		return strings.Count(a.Destination, "/") - strings.Count(b.Destination, "/")
	})
	return points, nil
}

type set []container.Mount

// add appends m; one inherited by VolumesFrom (the first n) gives way.
func (s *set) add(m container.Mount, inherited int) error {
	for i, have := range *s {
		if have.Destination != m.Destination {
			continue
		}
		if i >= inherited {
			return invalid("Duplicate mount point: %s", m.Destination)
		}
		(*s)[i] = m
		return nil
	}
	*s = append(*s, m)
	return nil
}

func (s *set) from(spec string, other Lookup) error {
	ref, mode, _ := strings.Cut(spec, ":")
	if ref == "" {
		return invalid("malformed volumes-from specification: %s", spec)
	}
	if mode != "" && mode != "rw" && mode != "ro" && mode != "z" && mode != "Z" {
		return invalid("invalid mode for volumes-from: %s", mode)
	}
	mounts, err := other(ref)
	if err != nil {
		return err
	}
	for _, m := range mounts {
		if m.Type == mount.TypeTmpfs {
			continue
		}
		m.RW = m.RW && mode != "ro"
		m.Copy, m.Anonymous, m.CreateSource = false, false, false
		if i := slices.IndexFunc(*s, func(x container.Mount) bool { return x.Destination == m.Destination }); i >= 0 {
			(*s)[i] = m
			continue
		}
		*s = append(*s, m)
	}
	return nil
}

// image adds the anonymous volumes of the image's and the request's Volumes.
func (s *set) image(volumes map[string]struct{}, driver string) error {
	dests := make([]string, 0, len(volumes))
	for dest := range volumes {
		dests = append(dests, dest)
	}
	slices.Sort(dests)
	for _, dest := range dests {
		clean, err := destination(dest, dest)
		if err != nil {
			return err
		}
		if slices.ContainsFunc(*s, func(m container.Mount) bool { return m.Destination == clean }) {
			continue
		}
		*s = append(*s, container.Mount{
			Type: mount.TypeVolume, Destination: clean, Driver: driverOr(driver), RW: true, Copy: true, Anonymous: true,
		})
	}
	return nil
}

// outsideProc refuses mounts over /proc, on which the confinement of the
// container rests; files that emulate single ones of it may be bound, and the
// host's own /proc.
func outsideProc(m container.Mount) error {
	bind := m.Type == mount.TypeBind
	switch m.Destination {
	case "/proc":
		if bind && m.Source == "/proc" {
			return nil
		}
		return invalid("%q cannot be mounted because it is not of type proc", m.Destination)
	case "/proc/cpuinfo", "/proc/diskstats", "/proc/meminfo", "/proc/stat", "/proc/swaps", "/proc/uptime", "/proc/loadavg",
		"/proc/slabinfo", "/proc/sys/kernel/ns_last_pid", "/proc/net/dev":
		if bind {
			return nil
		}
	}
	if strings.HasPrefix(m.Destination, "/proc/") {
		return invalid("%q cannot be mounted because it is inside /proc", m.Destination)
	}
	return nil
}

func driverOr(name string) string {
	if name == "" {
		return "local"
	}
	return name
}

func destination(dest, spec string) (string, error) {
	if strings.ContainsRune(dest, 0) {
		return "", invalid("invalid mount path: %q contains a NUL byte", dest)
	}
	if !path.IsAbs(dest) {
		return "", invalid("invalid mount path: '%s' mount path must be absolute", dest)
	}
	clean := path.Clean(dest)
	if clean == "/" {
		return "", invalid("invalid volume specification: '%s': invalid mount config for type \"bind\": invalid specification: destination can't be '/'", spec)
	}
	return clean, nil
}

func fromTmpfs(dest, opts string) (container.Mount, error) {
	clean, err := destination(dest, dest)
	if err != nil {
		return container.Mount{}, err
	}
	if err := checkTmpfs(opts); err != nil {
		return container.Mount{}, err
	}
	m := container.Mount{Type: mount.TypeTmpfs, Destination: clean, Options: opts, RW: true, Mode: opts}
	for o := range strings.SplitSeq(opts, ",") {
		if o == "ro" {
			m.RW = false
		}
	}
	return m, nil
}

func checkTmpfs(opts string) error {
	for o := range strings.SplitSeq(opts, ",") {
		name, _, _ := strings.Cut(o, "=")
		switch name {
		case "", "ro", "rw", "exec", "noexec", "suid", "nosuid", "dev", "nodev", "sync", "async", "dirsync", "remount",
			"mand", "nomand", "atime", "noatime", "diratime", "nodiratime", "relatime", "norelatime", "strictatime",
			"nostrictatime", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "size", "mpol", "huge",
			"private", "rprivate", "shared", "rshared", "slave", "rslave":
		default:
			return invalid("invalid tmpfs option %q", o)
		}
	}
	return nil
}

// Exists checks that the source of a --mount bind is there. InvalidArgument.
func Exists(source string) error {
	if _, err := os.Lstat(source); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return invalid("invalid mount config for type \"bind\": bind source path does not exist: %s", source)
		}
		return invalid("invalid mount config for type \"bind\": %v", err)
	}
	return nil
}
