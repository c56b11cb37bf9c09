package supervisor

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/keeper"
	"github.com/wherry-engine/wherry/ociexec"
	"github.com/wherry-engine/wherry/ocirun"
	"github.com/wherry-engine/wherry/task"
)

// foreign runs one task with another OCI runtime. What is not the runtime's
// own, roots and the cgroup once it is made, is the built-in one's; so is
// freezing, which runc gives up on a busy machine (cgroup v1). The processes it
// makes are the keeper's children, which is subreaper, and so survive us; their
// exit codes come from there.
type foreign struct {
	runtime
	c     ociexec.Container
	roots *roots
}

// foreignDir is where other runtimes' containers have their directories; the
// keeper removes it at the end.
const foreignDir = "foreign"

// runtimeFor is the runtime that a start request asks for.
func (s *Supervisor) runtimeFor(id string, r *task.Runtime, systemd bool) runtime {
	switch {
	case r == nil && systemd:
		return scoped{s.rt}
	case r == nil:
		return s.rt
	}
	return &foreign{runtime: s.rt, roots: s.roots, c: ociexec.Container{
		ID: id, Program: r.Path, Args: r.Args, Dir: filepath.Join(s.execRoot, foreignDir, id), SocketDir: s.execRoot,
	}}
}

func (f *foreign) host() ociexec.Host {
	return ociexec.Host{Capabilities: f.HeldCapabilities(), Init: keeper.Program()}
}

func (f *foreign) Create(ctx context.Context, req *ocirun.CreateRequest) (*created, error) {
	if req.Root == nil {
		return nil, fmt.Errorf("another runtime needs a root: %w", errdefs.ErrInvalidArgument)
	}
	root, err := f.CloneRoot(req.Root)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	r := *req
	r.Root = root
	c, err := f.c.Create(ctx, &r, f.host())
	if err != nil {
		return nil, err
	}
	return &created{
		pid: c.Pid, pidfd: c.PidFD, console: c.Console, cgroup: r.Spec.Linux.CgroupsPath, adopted: true,
		start: func() error { return f.c.Start(context.WithoutCancel(ctx)) },
		abort: func() error { return f.c.Delete(context.WithoutCancel(ctx)) },
	}, nil
}

func (f *foreign) Exec(ctx context.Context, req *ocirun.ExecRequest) (*process, error) {
	root, err := f.roots.of(f.c.ID)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	p, err := f.c.Exec(ctx, req, root, f.host())
	if err != nil {
		return nil, err
	}
	return &process{Process: ocirun.Process{Pid: p.Pid, PidFD: p.PidFD, Console: p.Console}, since: p.Since}, nil
}

func (f *foreign) Update(ctx context.Context, _ string, res *specs.LinuxResources) error {
	return f.c.Update(ctx, res)
}

// DeleteCgroup removes the container from its runtime, and what that forgot.
func (f *foreign) DeleteCgroup(ctx context.Context, cgroup string) error {
	err := f.c.Delete(ctx)
	if kerr := f.KillAll(cgroup, unix.SIGKILL); kerr != nil && !errdefs.IsNotFound(kerr) {
		err = errors.Join(err, kerr)
	}
	return errors.Join(err, f.runtime.DeleteCgroup(ctx, cgroup))
}
