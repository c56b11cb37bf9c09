package supervisor

import (
	"context"
	"os"
	"syscall"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/wherry-engine/wherry/ocirun"
	"github.com/wherry-engine/wherry/task"
)

// runtime is what the supervisor needs of ocirun; tests bring their own.
type runtime interface {
	Create(ctx context.Context, req *ocirun.CreateRequest) (*created, error)
	Exec(ctx context.Context, req *ocirun.ExecRequest) (*ocirun.Process, error)
	OpenRoot(ctx context.Context, root task.Root) (*os.File, error)
	CloseRoot(root *os.File) error
	KillAll(cgroup string, sig syscall.Signal) error
	Pause(ctx context.Context, cgroup string) error
	Resume(ctx context.Context, cgroup string) error
	Update(ctx context.Context, cgroup string, res *specs.LinuxResources) error
	OOMKills(cgroup string) (uint64, error)
	DeleteCgroup(ctx context.Context, cgroup string) error
}

// created is a container whose init waits for start.
type created struct {
	pid            int
	pidfd, console *os.File
	cgroup         string
	start, abort   func() error
}

type builtin struct{ *ocirun.Runtime }

func (b builtin) Create(ctx context.Context, req *ocirun.CreateRequest) (*created, error) {
	c, err := b.Runtime.Create(ctx, req)
	if err != nil {
		return nil, err
	}
	return &created{pid: c.Pid, pidfd: c.PidFD, console: c.Console, cgroup: c.Cgroup, start: c.Start, abort: c.Abort}, nil
}

func (b builtin) OpenRoot(ctx context.Context, r task.Root) (*os.File, error) {
	return b.Runtime.OpenRoot(ctx, ocirun.Root{
		Layers: r.Layers, Upper: r.Upper, Work: r.Work, Bind: r.Bind, Options: r.Options, ReadOnly: r.ReadOnly,
	})
}
