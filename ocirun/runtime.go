package ocirun

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"syscall"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Options of a Runtime; the zero value works.
type Options struct {
	// Logger receives what is worth a developer's look; nil discards.
	Logger *slog.Logger
	// Program is the binary whose sealed copy becomes the first process of
	// every container; it must dispatch its argument "init" to initproc.Main.
	// Default /proc/self/exe.
	Program string
}

// Runtime creates containers. It is safe for concurrent use.
type Runtime struct {
	log *slog.Logger
}

// New makes the sealed copy of the program.
func New(opts Options) (*Runtime, error) { return nil, todo("new") }

// Close releases what New made. Containers go on running.
func (r *Runtime) Close() error { return nil }

// Create makes the container's init, with everything set up, waiting for Start.
// On error nothing is left behind. A *StartError tells that the user's request
// cannot be run (user, working directory); InvalidArgument that the spec is
// wrong, NotImplemented that this runtime or kernel lacks what it asks.
func (r *Runtime) Create(ctx context.Context, req *CreateRequest) (*Container, error) {
	return nil, todo("create")
}

// Start lets the init execute the user's process. On a *StartError the init
// has exited (the caller, its parent, reaps it) and is of no further use. The
// handshake is closed in any case.
func (c *Container) Start() error { return todo("start") }

// Abort ends a container that was created and never started: the init is
// killed, to be reaped by its parent. PidFD and Console stay the caller's.
func (c *Container) Abort() error { return todo("abort") }

// Exec runs a further process in a container. A *StartError tells why it
// could not be executed; then nothing is left to reap.
func (r *Runtime) Exec(ctx context.Context, req *ExecRequest) (*Process, error) {
	return nil, todo("exec")
}

// Root says how a root file system is made; it converts from task.Root.
type Root struct {
	Layers   []string // read-only lower directories, topmost first
	Upper    string   // with Work: the writable pair
	Work     string
	Bind     string   // a directory instead of an overlay
	Options  []string // further file-system options, such as "metacopy=on"
	ReadOnly bool
}

// OpenRoot makes a detached mount of root, visible in no mount table.
func (r *Runtime) OpenRoot(ctx context.Context, root Root) (*os.File, error) {
	return nil, todo("open root")
}

// CloneRoot returns a further mount of the same file system as root, which came from OpenRoot.
func (r *Runtime) CloneRoot(root *os.File) (*os.File, error) { return nil, todo("clone root") }

// CloseRoot unmounts what OpenRoot made and closes root.
func (r *Runtime) CloseRoot(root *os.File) error { return todo("close root") }

// Pids lists the processes in a container's cgroup and those below it, in no order.
func (r *Runtime) Pids(cgroup string) ([]int, error) { return nil, todo("pids") }

// KillAll signals every process in the cgroup; SIGKILL wins against forks.
// For containers without a PID namespace of their own.
func (r *Runtime) KillAll(cgroup string, sig syscall.Signal) error { return todo("kill all") }

// Pause freezes every process of the cgroup and waits until they are frozen.
func (r *Runtime) Pause(ctx context.Context, cgroup string) error { return todo("pause") }

// Resume undoes Pause.
func (r *Runtime) Resume(ctx context.Context, cgroup string) error { return todo("resume") }

// Update changes the limits of a running container; what res leaves nil stays.
func (r *Runtime) Update(ctx context.Context, cgroup string, res *specs.LinuxResources) error {
	return todo("update")
}

// OOMKills returns how often the kernel killed a process of the cgroup for
// lack of memory. Read it after the container exited and before DeleteCgroup.
func (r *Runtime) OOMKills(cgroup string) (uint64, error) { return 0, todo("oom kills") }

// DeleteCgroup removes the container's cgroups. Its processes must be dead.
// It is not an error if they are gone already.
func (r *Runtime) DeleteCgroup(ctx context.Context, cgroup string) error {
	return todo("delete cgroup")
}

func todo(what string) error {
	return fmt.Errorf("ocirun: %s is not built yet: %w", what, errdefs.ErrNotImplemented)
}
