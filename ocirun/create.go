package ocirun

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/ocirun/cgroup"
	"github.com/wherry-engine/wherry/ocirun/initproc"
	"github.com/wherry-engine/wherry/ocirun/wire"
)

// Create makes the container's init, with everything set up, waiting for Start.
// On error nothing is left behind. A *StartError tells that the user's request
// cannot be run (program, user, working directory); InvalidArgument that the spec
// is wrong, NotImplemented that this runtime or kernel lacks what it asks.
func (r *Runtime) Create(ctx context.Context, req *CreateRequest) (*Container, error) {
	path, err := cgroupOf(req.ID, req.Spec, req.SystemdCgroup)
	if err != nil {
		return nil, err
	}
	p, err := r.plan(req, path)
	defer p.close()
	if err != nil {
		return nil, err
	}
	limits, err := r.cgroups.Limits(path, withStandardRules(req.Spec.Linux.Resources))
	if err != nil {
		return nil, fmt.Errorf("limits: %w", err)
	}
	// Somebody else's cgroup is not to be removed if this fails.
	if pids, err := r.cgroups.Pids(path); err == nil && len(pids) > 0 {
		return nil, fmt.Errorf("cgroup %s is in use by process %d: %w", path, pids[0], errdefs.ErrAlreadyExists)
	}
	if err := r.cgroups.Create(path); err != nil {
		return nil, fmt.Errorf("create cgroup: %w", err)
	}
	c, err := r.create(ctx, req, p, path, limits)
	if err != nil {
		derr := r.cgroups.Delete(context.WithoutCancel(ctx), path)
		return nil, errors.Join(err, derr)
	}
	return c, nil
}

func (r *Runtime) create(ctx context.Context, req *CreateRequest, p *plan, path string, limits *cgroup.Limits) (*Container, error) {
	b := &birth{
		cgroup: path, enter: p.enter, clone: p.clone, uidMap: p.uidMap, gidMap: p.gidMap, userNS: p.userNS, extra: req.ExtraFiles,
	}
	if !p.cfg.Process.Terminal {
		b.stdio = [3]*os.File{req.Stdin, req.Stdout, req.Stderr}
	}
	s, err := r.spawn(b)
	if err != nil {
		return nil, err
	}
	console, err := r.handshake(ctx, s, req, p, limits)
	if err != nil {
		s.kill()
		unix.Close(s.conn.FD)
		s.pidfd.Close()
		return nil, err
	}
	return &Container{ID: req.ID, Pid: s.pid, PidFD: s.pidfd, Console: console, Cgroup: path, conn: s.conn}, nil
}

// handshake sends the configuration, writes limits while init works, and
// waits until it is ready. A context that ends kills init.
func (r *Runtime) handshake(ctx context.Context, s *spawned, req *CreateRequest, p *plan, limits *cgroup.Limits) (*os.File, error) {
	stop := context.AfterFunc(ctx, func() { _ = unix.PidfdSendSignal(int(s.pidfd.Fd()), unix.SIGKILL, nil, 0) })
	defer stop()
	if err := addHooks(&p.cfg, req, s.pid); err != nil {
		return nil, err
	}
	if err := s.send(wire.KindConfig, &p.cfg, p.fds...); err != nil {
		return nil, fmt.Errorf("configure init: %w", err)
	}
	if err := limits.Early(); err != nil {
		return nil, err
	}
	msg, err := s.receive(ctx)
	if err != nil {
		return nil, err
	}
	if msg.Kind == wire.KindHooks {
		if err := r.hostHooks(ctx, req, s.pid); err != nil {
			return nil, err
		}
		if err := s.conn.Send(wire.KindContinue, nil); err != nil {
			return nil, err
		}
		if msg, err = s.receive(ctx); err != nil {
			return nil, err
		}
	}
	if msg.Kind != wire.KindReady {
		return nil, fmt.Errorf("init sent an unexpected message %d", msg.Kind)
	}
	console := consoleOf(msg)
	if err := limits.Late(); err != nil {
		closeFile(console)
		return nil, err
	}
	return console, nil
}

func closeFile(f *os.File) {
	if f != nil {
		f.Close()
	}
}

func consoleOf(msg *wire.Message) *os.File {
	if len(msg.FDs) == 0 {
		return nil
	}
	// Non-blocking lets the caller's poller watch it.
	_ = unix.SetNonblock(msg.FDs[0], true)
	return os.NewFile(uintptr(msg.FDs[0]), "/dev/ptmx")
}

// send leaves it to receive to tell why init is gone.
func (s *spawned) send(kind wire.Kind, v any, fds ...int) error {
	err := s.conn.Send(kind, v, fds...)
	if errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET) {
		return nil
	}
	return err
}

// receive reads one message; a Failure becomes an error.
func (s *spawned) receive(ctx context.Context) (*wire.Message, error) {
	msg, err := s.conn.Receive()
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if errors.Is(err, io.EOF) {
			return nil, errors.New("init died while it set up the container")
		}
		return nil, err
	}
	return msg, failureOf(msg)
}

// failureOf turns a Failure into a StartError or a plain error with its stage.
func failureOf(msg *wire.Message) error {
	if msg.Kind != wire.KindFailure {
		return nil
	}
	var f wire.Failure
	if err := msg.Decode(&f); err != nil {
		return err
	}
	if f.Code != 0 {
		return &StartError{Code: int(f.Code), Msg: f.Msg}
	}
	return &SetupError{Stage: f.Stage, Msg: f.Msg, Errno: unix.Errno(f.Errno)}
}

// SetupError is why a container could not be set up: none of the user's doing,
// as far as the runtime can tell.
type SetupError struct {
	// Stage is what init was doing, such as "mounts".
	Stage string
	Msg   string
	Errno unix.Errno
}

func (e *SetupError) Error() string { return "container init: " + e.Stage + ": " + e.Msg }

// Unwrap gives the kernel's error, if it was one.
func (e *SetupError) Unwrap() error {
	if e.Errno == 0 {
		return nil
	}
	return e.Errno
}

// withStandardRules adds the devices that every container may use to device
// rules that begin by denying all.
func withStandardRules(res *specs.LinuxResources) *specs.LinuxResources {
	if res == nil || len(res.Devices) == 0 {
		return res
	}
	n := func(n int64) *int64 { return &n }
	allow := func(typ string, major, minor int64, access string) specs.LinuxDeviceCgroup {
		return specs.LinuxDeviceCgroup{Allow: true, Type: typ, Major: n(major), Minor: n(minor), Access: access}
	}
	out := *res
	out.Devices = append(append([]specs.LinuxDeviceCgroup(nil), res.Devices...),
		allow("c", -1, -1, "m"), allow("b", -1, -1, "m"),
		allow("c", 1, 3, "rwm"), allow("c", 1, 5, "rwm"), allow("c", 1, 7, "rwm"), allow("c", 1, 8, "rwm"), allow("c", 1, 9, "rwm"),
		allow("c", 5, 0, "rwm"), allow("c", 5, 1, "rwm"), allow("c", 5, 2, "rwm"), allow("c", 136, -1, "rwm"),
	)
	return &out
}

// addHooks prepares the hooks that init runs and tells it to stop for the others.
func addHooks(cfg *wire.Config, req *CreateRequest, pid int) error {
	h := req.Spec.Hooks
	if h == nil {
		return nil
	}
	cfg.HostHooks = len(h.Prestart)+len(h.CreateRuntime) > 0 //nolint:staticcheck // prestart is still in use
	var err error
	if cfg.CreateContainer, err = wireHooks(h.CreateContainer, req, pid, specs.StateCreating); err != nil {
		return err
	}
	cfg.StartContainer, err = wireHooks(h.StartContainer, req, pid, specs.StateCreated)
	return err
}

func wireHooks(hooks []specs.Hook, req *CreateRequest, pid int, status specs.ContainerState) ([]wire.Hook, error) {
	if len(hooks) == 0 {
		return nil, nil
	}
	state, err := json.Marshal(specs.State{
		Version: specs.Version, ID: req.ID, Status: status, Pid: pid, Bundle: req.Bundle, Annotations: req.Spec.Annotations,
	})
	if err != nil {
		return nil, err
	}
	out := make([]wire.Hook, len(hooks))
	for i, h := range hooks {
		out[i] = wire.Hook{Path: h.Path, Args: h.Args, Env: h.Env, State: state}
		if h.Timeout != nil {
			if *h.Timeout <= 0 {
				return nil, invalidf("hook %s: the timeout must be positive", h.Path)
			}
			out[i].Timeout = int64(*h.Timeout)
		}
	}
	return out, nil
}

func (r *Runtime) hostHooks(ctx context.Context, req *CreateRequest, pid int) error {
	h := req.Spec.Hooks
	if err := RunHooks(ctx, "prestart", h.Prestart, req, pid, specs.StateCreating); err != nil { //nolint:staticcheck // still in use
		return err
	}
	return RunHooks(ctx, "createRuntime", h.CreateRuntime, req, pid, specs.StateCreating)
}

// RunHooks runs hooks in this process's namespaces, one after the other, with
// the container's state on their stdin. The first that fails ends it.
func RunHooks(ctx context.Context, name string, hooks []specs.Hook, req *CreateRequest, pid int, status specs.ContainerState) error {
	list, err := wireHooks(hooks, req, pid, status)
	if err != nil {
		return err
	}
	for i := range list {
		if err := initproc.RunHook(ctx, &list[i]); err != nil {
			return fmt.Errorf("%s hook %d: %w", name, i, err)
		}
	}
	return nil
}

// Start lets the init execute the user's process. On a *StartError the init
// has exited (the caller, its parent, reaps it) and is of no further use. The
// handshake is closed in any case.
func (c *Container) Start() error {
	defer c.closeConn()
	if err := c.conn.Send(wire.KindContinue, nil); err != nil {
		return fmt.Errorf("start: init is gone: %w", err)
	}
	msg, err := c.conn.Receive()
	if errors.Is(err, io.EOF) {
		return nil // closed by the exec
	}
	if err != nil {
		return fmt.Errorf("start: %w", err)
	}
	if err := failureOf(msg); err != nil {
		return err
	}
	return fmt.Errorf("start: init sent an unexpected message %d", msg.Kind)
}

// StartBy starts a container that was created with a StartSocket, through a
// connection to that socket, which it closes.
func StartBy(conn *os.File) error {
	fd, err := unix.FcntlInt(conn.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	conn.Close()
	if err != nil {
		return err
	}
	return (&Container{conn: wire.Conn{FD: fd}}).Start()
}

// Release lets go of a container that somebody else will start by its StartSocket.
func (c *Container) Release() { c.closeConn() }

// Abort ends a container that was created and never started: the init is
// killed, to be reaped by its parent. PidFD and Console stay the caller's.
func (c *Container) Abort() error {
	c.closeConn()
	err := unix.PidfdSendSignal(int(c.PidFD.Fd()), unix.SIGKILL, nil, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	return err
}

func (c *Container) closeConn() { c.once.Do(func() { unix.Close(c.conn.FD) }) }
