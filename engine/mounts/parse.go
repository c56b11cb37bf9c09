package mounts

import (
	"path"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/mount"

	"github.com/wherry-engine/wherry/container"
)

// ParseBind reads SOURCE:DEST[:MODE], where SOURCE is a path or the name of a
// volume, or DEST alone for an anonymous volume. InvalidArgument.
func ParseBind(bind, driver string) (container.Mount, error) {
	parts := strings.Split(bind, ":")
	bad := invalid("invalid volume specification: '%s'", bind)
	if len(parts) > 3 || slices.Contains(parts, "") {
		return container.Mount{}, bad
	}
	m := container.Mount{RW: true, Copy: true}
	dest := parts[0]
	if len(parts) > 1 {
		dest = parts[1]
	}
	if len(parts) == 3 {
		m.Mode = parts[2]
	}
	var err error
	if m.Destination, err = destination(dest, bind); err != nil {
		return m, err
	}
	isPath := len(parts) > 1 && path.IsAbs(parts[0])
	switch {
	case isPath:
		m.Type, m.Source, m.CreateSource = mount.TypeBind, path.Clean(parts[0]), true
		m.Propagation, m.Copy = mount.PropagationRPrivate, false
	case len(parts) == 1:
		m.Type, m.Driver, m.Anonymous = mount.TypeVolume, driverOr(driver), true
	default:
		if strings.HasPrefix(parts[0], ".") || strings.Contains(parts[0], "/") {
			return m, invalid("create %s: %q includes invalid characters for a local volume name, only "+
				"\"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path",
				parts[0], parts[0])
		}
		m.Type, m.Name, m.Driver = mount.TypeVolume, parts[0], driverOr(driver)
	}
	return m, applyMode(&m)
}

// applyMode reads the comma separated words after the second colon.
func applyMode(m *container.Mount) error {
	if m.Mode == "" {
		return nil
	}
	bad := invalid("invalid mode: %s", m.Mode)
	seen := map[string]bool{}
	once := func(kind string) bool {
		dup := seen[kind]
		seen[kind] = true
		return !dup
	}
	for word := range strings.SplitSeq(m.Mode, ",") {
		ok := false
		switch {
		case word == "rw" || word == "ro":
			ok, m.RW = once("rw"), word == "rw"
		case word == "z" || word == "Z":
			ok = once("label")
		case word == "nocopy":
			ok, m.Copy = once("copy") && m.Type == mount.TypeVolume, false
		case word == "consistent" || word == "cached" || word == "delegated" || word == "default":
			ok = once("consistency")
		case slices.Contains(mount.Propagations, mount.Propagation(word)):
			ok, m.Propagation = once("propagation") && m.Type == mount.TypeBind, mount.Propagation(word)
		}
		if !ok {
			return bad
		}
	}
	return nil
}

// fromMount translates an entry of HostConfig.Mounts.
func fromMount(req *mount.Mount) (container.Mount, error) {
	bad := func(format string, args ...any) (container.Mount, error) {
		return container.Mount{}, invalid("invalid mount config for type \"%s\": "+format, append([]any{req.Type}, args...)...)
	}
	if req.Target == "" {
		return bad("field Target must not be empty")
	}
	if !path.IsAbs(req.Target) {
		return bad("invalid mount path: '%s' mount path must be absolute", req.Target)
	}
	if path.Clean(req.Target) == "/" {
		return bad("invalid specification: destination can't be '/'")
	}
	m := container.Mount{Type: req.Type, Destination: path.Clean(req.Target), RW: !req.ReadOnly, Request: req}
	switch req.Type {
	case mount.TypeBind:
		return bindMount(m, req, bad)
	case mount.TypeVolume:
		return volumeMount(m, req, bad)
	case mount.TypeTmpfs:
		return tmpfsMount(m, req, bad)
	case mount.TypeImage, mount.TypeNamedPipe, mount.TypeCluster:
		return m, errdefs.ErrNotImplemented.WithMessage("mounts of type \"" + string(req.Type) + "\" are not supported by this engine yet")
	}
	return m, invalid("mount type unknown: %q", req.Type)
}

type badFunc func(format string, args ...any) (container.Mount, error)

func bindMount(m container.Mount, req *mount.Mount, bad badFunc) (container.Mount, error) {
	switch {
	case req.Source == "":
		return bad("field Source must not be empty")
	case !path.IsAbs(req.Source):
		return bad("invalid mount path: '%s' mount path must be absolute", req.Source)
	case req.VolumeOptions != nil:
		return bad("field VolumeOptions must not be specified")
	case req.TmpfsOptions != nil:
		return bad("field TmpfsOptions must not be specified")
	}
	m.Source, m.Propagation = path.Clean(req.Source), mount.PropagationRPrivate
	if o := req.BindOptions; o != nil {
		if o.Propagation != "" {
			if !slices.Contains(mount.Propagations, o.Propagation) {
				return bad("invalid propagation mode: %s", o.Propagation)
			}
			m.Propagation = o.Propagation
		}
		m.CreateSource = o.CreateMountpoint
		if o.ReadOnlyForceRecursive && !req.ReadOnly {
			return bad("mount must be read-only for ReadOnlyForceRecursive")
		}
	}
	if m.CreateSource {
		return m, nil
	}
	return m, Exists(m.Source)
}

func volumeMount(m container.Mount, req *mount.Mount, bad badFunc) (container.Mount, error) {
	if req.BindOptions != nil {
		return bad("field BindOptions must not be specified")
	}
	if req.TmpfsOptions != nil {
		return bad("field TmpfsOptions must not be specified")
	}
	m.Name, m.Driver, m.Copy, m.Anonymous = req.Source, "local", true, req.Source == ""
	m.Mode = "z"
	if o := req.VolumeOptions; o != nil {
		m.Copy = !o.NoCopy
		m.Subpath = o.Subpath
		if o.Subpath != "" && (path.IsAbs(o.Subpath) || !fsLocal(o.Subpath)) {
			return bad("subpath must be a relative path within the volume")
		}
		if o.Subpath != "" && m.Anonymous {
			return bad("must not set Subpath when using anonymous volumes")
		}
		if o.DriverConfig != nil && o.DriverConfig.Name != "" {
			m.Driver = o.DriverConfig.Name
		}
	}
	return m, nil
}

func fsLocal(p string) bool {
	return p != ".." && !strings.HasPrefix(path.Clean(p), "../") && path.Clean(p) != ".."
}

func tmpfsMount(m container.Mount, req *mount.Mount, bad badFunc) (container.Mount, error) {
	switch {
	case req.Source != "":
		return bad("field Source must not be specified")
	case req.BindOptions != nil:
		return bad("field BindOptions must not be specified")
	case req.VolumeOptions != nil:
		return bad("field VolumeOptions must not be specified")
	}
	if o := req.TmpfsOptions; o != nil && o.SizeBytes < 0 {
		return bad("invalid tmpfs size: %d", o.SizeBytes)
	}
	return m, checkTmpfs(m.Options)
}
