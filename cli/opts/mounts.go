package opts

import (
	"encoding/csv"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/mount"
)

// Mounts is the flag --mount.
type Mounts []mount.Mount

// Type is the word that help shows.
func (*Mounts) Type() string { return "mount" }

// String shows nothing before the first Set.
func (m *Mounts) String() string {
	if len(*m) == 0 {
		return ""
	}
	return fmt.Sprint(len(*m)) + " mounts"
}

// Set parses comma-separated key=value fields, quoted as in CSV.
func (m *Mounts) Set(v string) error {
	mt, err := ParseMount(v)
	if err != nil {
		return err
	}
	*m = append(*m, mt)
	return nil
}

// ParseMount parses one value of --mount.
func ParseMount(v string) (mount.Mount, error) {
	m := mount.Mount{Type: mount.TypeVolume}
	fields, err := Fields(v)
	if err != nil {
		return m, err
	}
	for _, f := range fields {
		key, val, has := strings.Cut(f, "=")
		key = strings.ToLower(key)
		if !has {
			switch key {
			case "readonly", "ro", "volume-nocopy", "bind-create-src":
				val = "true"
			default:
				return m, invalidf("invalid field '%s' must be a key=value pair", f)
			}
		}
		if err := mountField(&m, key, val); err != nil {
			return m, err
		}
	}
	return m, checkMount(m)
}

// Fields splits comma-separated values, quoted as in CSV.
func Fields(v string) ([]string, error) {
	if v == "" {
		return nil, invalidf("value is empty")
	}
	if !strings.ContainsAny(v, "\"\n") {
		return strings.Split(v, ","), nil
	}
	f, err := csv.NewReader(strings.NewReader(v)).Read()
	if err != nil {
		return nil, invalidf("%v", err)
	}
	return f, nil
}

func mountField(m *mount.Mount, key, val string) error {
	switch key {
	case "type":
		return mountType(m, val)
	case "source", "src":
		m.Source = val
		if val == "." || strings.HasPrefix(val, "./") || strings.HasPrefix(val, "../") || val == ".." {
			abs, err := filepath.Abs(val)
			if err != nil {
				return err
			}
			m.Source = abs
		}
		return nil
	case "target", "dst", "destination":
		m.Target = val
		return nil
	case "readonly", "ro":
		return boolField(&m.ReadOnly, key, val)
	case "consistency":
		m.Consistency = mount.Consistency(strings.ToLower(val))
		return nil
	}
	kind, sub, _ := strings.Cut(key, "-")
	switch kind {
	case "bind":
		return bindField(m, sub, key, val)
	case "volume":
		return volumeField(m, sub, key, val)
	case "image":
		if sub == "subpath" {
			m.ImageOptions = &mount.ImageOptions{Subpath: val}
			return nil
		}
	case "tmpfs":
		return tmpfsField(m, sub, key, val)
	}
	return unexpectedKey(key, val)
}

func mountType(m *mount.Mount, val string) error {
	m.Type = mount.Type(strings.ToLower(val))
	switch m.Type {
	case mount.TypeBind, mount.TypeVolume, mount.TypeTmpfs, mount.TypeImage:
		return nil
	case mount.TypeNamedPipe, mount.TypeCluster:
		return unsupportedf("mount type %q is not supported on this platform", val)
	}
	return invalidf("invalid mount type %q", val)
}

func bindField(m *mount.Mount, sub, key, val string) error {
	if m.BindOptions == nil {
		m.BindOptions = &mount.BindOptions{}
	}
	b := m.BindOptions
	switch sub {
	case "propagation":
		b.Propagation = mount.Propagation(strings.ToLower(val))
		return nil
	case "create-src":
		return boolField(&b.CreateMountpoint, key, val)
	case "nonrecursive":
		return boolField(&b.NonRecursive, key, val)
	case "recursive":
		switch val {
		case "enabled":
		case "disabled":
			b.NonRecursive = true
		case "writable":
			b.ReadOnlyNonRecursive = true
		case "readonly":
			b.ReadOnlyForceRecursive = true
		default:
			return invalidf("invalid value for %s: %s (must be \"enabled\", \"disabled\", \"writable\", or \"readonly\")", key, val)
		}
		return nil
	}
	return unexpectedKey(key, val)
}

func volumeField(m *mount.Mount, sub, key, val string) error {
	if m.VolumeOptions == nil {
		m.VolumeOptions = &mount.VolumeOptions{}
	}
	v := m.VolumeOptions
	switch sub {
	case "nocopy":
		return boolField(&v.NoCopy, key, val)
	case "subpath":
		v.Subpath = val
		return nil
	case "label":
		setPair(&v.Labels, val)
		return nil
	case "driver", "opt":
		if v.DriverConfig == nil {
			v.DriverConfig = &mount.Driver{}
		}
		if sub == "driver" {
			v.DriverConfig.Name = val
			return nil
		}
		setPair(&v.DriverConfig.Options, val)
		return nil
	}
	return unexpectedKey(key, val)
}

func tmpfsField(m *mount.Mount, sub, key, val string) error {
	if m.TmpfsOptions == nil {
		m.TmpfsOptions = &mount.TmpfsOptions{}
	}
	switch sub {
	case "size":
		n, err := units.RAMInBytes(val)
		if err != nil {
			return invalidf("invalid value for %s: %s", key, val)
		}
		m.TmpfsOptions.SizeBytes = n
		return nil
	case "mode":
		n, err := strconv.ParseUint(val, 8, 32)
		if err != nil {
			return invalidf("invalid value for %s: %s", key, val)
		}
		m.TmpfsOptions.Mode = os.FileMode(n)
		return nil
	}
	return unexpectedKey(key, val)
}

func checkMount(m mount.Mount) error {
	if m.Target == "" {
		return invalidf("target is required")
	}
	for _, c := range []struct {
		set  bool
		kind mount.Type
	}{
		{m.BindOptions != nil, mount.TypeBind},
		{m.VolumeOptions != nil, mount.TypeVolume},
		{m.TmpfsOptions != nil, mount.TypeTmpfs},
		{m.ImageOptions != nil, mount.TypeImage},
	} {
		if c.set && m.Type != c.kind {
			return invalidf("cannot mix '%s-*' options with mount type '%s'", c.kind, m.Type)
		}
	}
	if b := m.BindOptions; b != nil && !m.ReadOnly && (b.ReadOnlyNonRecursive || b.ReadOnlyForceRecursive) {
		return invalidf("option 'bind-recursive=writable' or 'readonly' requires 'readonly' to be specified in conjunction")
	}
	if b := m.BindOptions; b != nil && b.ReadOnlyForceRecursive && b.Propagation != mount.PropagationRPrivate {
		return invalidf("option 'bind-recursive=readonly' requires 'bind-propagation=rprivate' to be specified in conjunction")
	}
	return nil
}

func boolField(into *bool, key, val string) error {
	b, err := strconv.ParseBool(val)
	if err != nil {
		return invalidf("invalid value for %s: %s", key, val)
	}
	*into = b
	return nil
}

func setPair(m *map[string]string, kv string) {
	if *m == nil {
		*m = map[string]string{}
	}
	k, v, _ := strings.Cut(kv, "=")
	(*m)[k] = v
}

func unexpectedKey(key, val string) error {
	return invalidf("unexpected key '%s' in '%s=%s'", key, key, val)
}

// Volumes splits the values of --volume into anonymous volumes and binds. A
// relative host path is made absolute.
func Volumes(specs []string) (anonymous map[string]struct{}, binds []string, err error) {
	anonymous = map[string]struct{}{}
	for _, s := range specs {
		src, rest, ok := strings.Cut(s, ":")
		if s == "" || (ok && (src == "" || rest == "")) {
			return nil, nil, invalidf("invalid spec: %s: empty section between colons", s)
		}
		if !ok {
			anonymous[s] = struct{}{}
			continue
		}
		if src == "~" || strings.HasPrefix(src, "~/") {
			if home, err := os.UserHomeDir(); err == nil {
				src = home + src[1:]
			}
		}
		if strings.HasPrefix(src, ".") {
			if src, err = filepath.Abs(src); err != nil {
				return nil, nil, err
			}
		}
		binds = append(binds, src+":"+rest)
	}
	return anonymous, binds, nil
}
