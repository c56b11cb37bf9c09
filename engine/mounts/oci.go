package mounts

import (
	"fmt"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/mount"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/wherry-engine/wherry/container"
)

// subpathOption tells the runtime of the part of the source to mount. It opens
// that by descriptor: a path would be followed anew, and containers that share
// the volume can put a link to the host in it at any moment.
const subpathOption = "wherry.subpath="

// idmapOption has the runtime show the files of a mount as those of the container's
// user namespace.
const idmapOption = "idmap"

// Source is what is mounted, on the host.
type Source struct {
	Path string
	// Ours tells that the engine keeps the files: on the disk they belong to the
	// users that the container sees, whoever these are on the host.
	Ours bool
}

// Own are mounts of the engine's own files in a container of the given ids.
func Own(ms []specs.Mount, ids container.IDMap) []specs.Mount {
	if ids.IsZero() {
		return ms
	}
	out := slices.Clone(ms)
	for i := range out {
		out[i].Options = append(slices.Clone(out[i].Options), idmapOption)
	}
	return out
}

// OCI translates a mount point whose source on the host is known, for a container
// of the given ids.
func OCI(m container.Mount, source Source, ids container.IDMap) specs.Mount {
	mount := translate(m, source.Path)
	if source.Ours {
		return Own([]specs.Mount{mount}, ids)[0]
	}
	return mount
}

func translate(m container.Mount, source string) specs.Mount {
	if m.Type == mount.TypeTmpfs {
		return tmpfs(m)
	}
	recursive := true
	roRecursive := true
	if r := m.Request; r != nil && r.BindOptions != nil {
		recursive = !r.BindOptions.NonRecursive
		roRecursive = !r.BindOptions.ReadOnlyNonRecursive
	}
	opts := []string{"bind"}
	if recursive {
		opts[0] = "rbind"
	}
	if !m.RW {
		opts = append(opts, "ro")
		if roRecursive && recursive && m.Type == mount.TypeBind {
			opts = append(opts, "rro")
		}
	}
	propagation := m.Propagation
	if propagation == "" {
		propagation = mount.PropagationRPrivate
	}
	opts = append(opts, string(propagation))
	if m.Type == mount.TypeVolume && m.Subpath != "" {
		opts = append(opts, subpathOption+m.Subpath)
	}
	return specs.Mount{Destination: m.Destination, Type: "bind", Source: source, Options: opts}
}

func tmpfs(m container.Mount) specs.Mount {
	opts := []string{"noexec", "nosuid", "nodev"}
	opposite := map[string]string{"exec": "noexec", "suid": "nosuid", "dev": "nodev"}
	add := func(o string) {
		if no, ok := opposite[o]; ok {
			opts = slices.DeleteFunc(opts, func(x string) bool { return x == no })
		}
		if o != "" && !slices.Contains(opts, o) {
			opts = append(opts, o)
		}
	}
	for o := range strings.SplitSeq(m.Options, ",") {
		add(o)
	}
	if r := m.Request; r != nil {
		if r.ReadOnly {
			add("ro")
		}
		if t := r.TmpfsOptions; t != nil {
			if t.SizeBytes > 0 {
				add(fmt.Sprintf("size=%d", t.SizeBytes))
			}
			if t.Mode != 0 {
				add(fmt.Sprintf("mode=%o", t.Mode))
			}
			for _, o := range t.Options {
				add(strings.Join(o, "="))
			}
		}
	}
	return specs.Mount{Destination: m.Destination, Type: "tmpfs", Source: "tmpfs", Options: opts}
}
