package ocirun

import (
	"path"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// delegated tells whether the container's cgroup becomes its own, and whose
// that is on the host: if it has a cgroup namespace of its own and the file system
// is mounted writable (config-linux.md, "Cgroup ownership").
func delegated(req *CreateRequest, p *plan) (uid int, ok bool) {
	writable := slices.ContainsFunc(req.Spec.Mounts, func(m specs.Mount) bool {
		return (m.Source == "cgroup" || m.Type == "cgroup" || m.Type == "cgroup2") && path.Clean(m.Destination) == "/sys/fs/cgroup" && !slices.Contains(m.Options, "ro")
	})
	if !writable || p.cfg.Unshare&unix.CLONE_NEWCGROUP == 0 {
		return 0, false
	}
	mappings := req.Spec.Linux.UIDMappings
	if p.userNS != nil && len(mappings) == 0 {
		return 0, false // known only inside
	}
	inside := req.Spec.Process.User.UID
	if req.ResolveUser {
		if req.User != "" && req.User != "0" && req.User != "root" {
			return 0, false // known only inside
		}
		inside = 0
	}
	if len(mappings) == 0 {
		return int(inside), true
	}
	host, ok := hostOf(mappings, inside)
	return int(host), ok
}
