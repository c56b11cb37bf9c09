package ocirun

import (
	"path"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/wherry-engine/wherry/ocirun/cgroup"
	"github.com/wherry-engine/wherry/ocirun/systemd"
)

// The systemd driver: the service manager makes the cgroup, as that of a scope
// unit with the init in it, and hands it over (Delegate). What it does not manage
// of a v1 host's hierarchies is made by us at the same path. Limits are written
// by both.

func (r *Runtime) startUnit(p *plan, req *CreateRequest, pid int) error {
	unit, err := systemd.Parse(req.Spec.Linux.CgroupsPath, req.ID)
	if err != nil {
		return err
	}
	p.unitStarted = true // or perhaps: a stop does no harm
	return unit.Start(pid, r.properties(withStandardRules(req.Spec.Linux.Resources)))
}

func (r *Runtime) properties(res *specs.LinuxResources) []systemd.Property {
	return systemd.Properties(r.cgroups.V2, res, systemd.Weights{CPU: cgroup.Weight, IO: r.cgroups.UnitWeight})
}

// UpdateUnit tells systemd of changed limits of a container of the systemd
// driver; Update must follow.
func (r *Runtime) UpdateUnit(cgroup string, res *specs.LinuxResources) error {
	return systemd.Set(path.Base(cgroup), r.properties(r.cgroups.Complete(cgroup, res)))
}

// StopUnit ends the scope of a container of the systemd driver. It is not an
// error if it is gone.
func StopUnit(cgroup string) error { return systemd.Stop(path.Base(cgroup)) }
