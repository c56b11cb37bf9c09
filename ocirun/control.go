package ocirun

import (
	"context"
	"syscall"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/wherry-engine/wherry/ocirun/cgroup/stat"
)

// Pids lists the processes in a container's cgroup and those below it, in no
// order. NotFound.
func (r *Runtime) Pids(cgroup string) ([]int, error) { return r.cgroups.Pids(cgroup) }

// KillAll signals every process in the cgroup; SIGKILL wins against forks.
// For containers without a PID namespace of their own. NotFound.
func (r *Runtime) KillAll(cgroup string, sig syscall.Signal) error {
	return r.cgroups.Kill(cgroup, sig)
}

// KillFrozen kills what the processes of a container have frozen themselves, for
// which the SIGKILL of its init does not suffice. It is cheap where nothing is.
func (r *Runtime) KillFrozen(cgroup string) error { return r.cgroups.KillFrozen(cgroup) }

// Pause freezes every process of the cgroup and waits until they are frozen.
func (r *Runtime) Pause(ctx context.Context, cgroup string) error {
	return r.cgroups.Freeze(ctx, cgroup)
}

// Paused tells whether the cgroup is frozen.
func (r *Runtime) Paused(cgroup string) (bool, error) { return r.cgroups.Frozen(cgroup) }

// Resume undoes Pause.
func (r *Runtime) Resume(_ context.Context, cgroup string) error { return r.cgroups.Thaw(cgroup) }

// Update changes the limits of a running container; what res leaves nil stays.
// Device rules cannot be changed.
func (r *Runtime) Update(_ context.Context, cgroup string, res *specs.LinuxResources) error {
	l, err := r.cgroups.Limits(cgroup, r.cgroups.Complete(cgroup, res))
	if err != nil {
		return err
	}
	return l.Update()
}

// OOMKills returns how often the kernel killed a process of the cgroup for
// lack of memory. Read it after the container exited and before DeleteCgroup.
func (r *Runtime) OOMKills(cgroup string) (uint64, error) { return r.cgroups.OOMKills(cgroup) }

// WatchOOM calls ready when it watches, and f when the kernel killed a process
// of the cgroup for lack of memory, until ctx ends or the cgroup is gone. NotFound.
func (r *Runtime) WatchOOM(ctx context.Context, cgroup string, ready, f func()) error {
	return r.cgroups.WatchOOM(ctx, cgroup, ready, f)
}

// Stats reads the counters of a cgroup. NotFound.
func (r *Runtime) Stats(cgroup string) (*stat.Stats, error) { return stat.Read(r.cgroups, cgroup) }

// CgroupExists tells whether the cgroup is there.
func (r *Runtime) CgroupExists(cgroup string) bool { return r.cgroups.Exists(cgroup) }

// DeleteCgroup removes the container's cgroups. Its processes must be dead.
// It is not an error if they are gone already.
func (r *Runtime) DeleteCgroup(ctx context.Context, cgroup string) error {
	defer r.locks.lock(cgroup)()
	return r.cgroups.Delete(ctx, cgroup)
}
