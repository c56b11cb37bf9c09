package supervisor

import (
	"context"
	"errors"
	"os"
	"syscall"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/wherry-engine/wherry/ocirun"
	"github.com/wherry-engine/wherry/task"
)

// runtime is what the supervisor needs to run a container: of ocirun, or of
// another runtime (see foreign).
type runtime interface {
	Create(ctx context.Context, req *ocirun.CreateRequest) (*created, error)
	Exec(ctx context.Context, req *ocirun.ExecRequest) (*process, error)
	OpenRoot(ctx context.Context, root task.Root) (*os.File, error)
	// CloneRoot returns a further mount of a root that OpenRoot returned.
	CloneRoot(root *os.File) (*os.File, error)
	CloseRoot(root *os.File) error
	// NewNetNS makes a network namespace that belongs to a user namespace.
	NewNetNS(userNS *os.File, uids, gids []specs.LinuxIDMapping) (*os.File, error)
	KillAll(cgroup string, sig syscall.Signal) error
	// KillFrozen kills what a container's processes have frozen themselves.
	KillFrozen(cgroup string) error
	Pause(ctx context.Context, cgroup string) error
	Resume(ctx context.Context, cgroup string) error
	Update(ctx context.Context, cgroup string, res *specs.LinuxResources) error
	// UpdateUnit tells systemd of what Update is about to change.
	UpdateUnit(cgroup string, res *specs.LinuxResources) error
	OOMKills(cgroup string) (uint64, error)
	// DeleteCgroup removes what is left of a container that has ended.
	DeleteCgroup(ctx context.Context, cgroup string) error
	HeldCapabilities() []string
}

// created is a container whose init waits for start.
type created struct {
	pid            int
	pidfd, console *os.File
	cgroup         string
	start, abort   func() error
	// adopted tells that it is the keeper's child and not ours.
	adopted bool
	phases  []ocirun.Phase
}

// process is a started exec.
type process struct {
	ocirun.Process
	// since, if PidFD is nil because the process has ended, is a lower bound of
	// its start time.
	since uint64
}

type builtin struct{ *ocirun.Runtime }

func (b builtin) Create(ctx context.Context, req *ocirun.CreateRequest) (*created, error) {
	c, err := b.Runtime.Create(ctx, req)
	if err != nil {
		return nil, err
	}
	return &created{pid: c.Pid, pidfd: c.PidFD, console: c.Console, cgroup: c.Cgroup, start: c.Start, abort: c.Abort, phases: c.Phases}, nil
}

func (b builtin) Exec(ctx context.Context, req *ocirun.ExecRequest) (*process, error) {
	p, err := b.Runtime.Exec(ctx, req)
	if err != nil {
		return nil, err
	}
	return &process{Process: *p}, nil
}

func (b builtin) OpenRoot(ctx context.Context, r task.Root) (*os.File, error) {
	return b.Runtime.OpenRoot(ctx, ocirun.Root{
		Layers: r.Layers, Upper: r.Upper, Work: r.Work, Bind: r.Bind, Options: r.Options, ReadOnly: r.ReadOnly,
		UIDMappings: r.UIDMappings, GIDMappings: r.GIDMappings,
	})
}

// scoped runs tasks of the systemd cgroup driver. systemd writes the limits it
// knows anew at times, and does not notice the end of a cgroup that is removed
// at once: it is told of both.
type scoped struct{ runtime }

func (s scoped) Update(ctx context.Context, cgroup string, res *specs.LinuxResources) error {
	if err := s.UpdateUnit(cgroup, res); err != nil {
		return err
	}
	return s.runtime.Update(ctx, cgroup, res)
}

func (s scoped) DeleteCgroup(ctx context.Context, cgroup string) error {
	return errors.Join(ocirun.StopUnit(cgroup), s.runtime.DeleteCgroup(ctx, cgroup))
}
