package build

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/moby/buildkit/executor"
	"github.com/moby/buildkit/executor/oci"
	resourcestypes "github.com/moby/buildkit/executor/resources/types"
	gwpb "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/identity"
	"github.com/moby/buildkit/solver/pb"
	bknet "github.com/moby/buildkit/util/network"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/wherry-engine/wherry/network"
	"github.com/wherry-engine/wherry/task"
)

// taskPrefix starts the ID of every build step's task.
const taskPrefix = "build-"

// cleanupTime bounds the undoing of one step.
const cleanupTime = 30 * time.Second

// stepExecutor runs build steps as tasks of the supervisor.
type stepExecutor struct {
	opt     Options
	scratch string

	mu      sync.Mutex
	running map[string]*step
}

// step is a running RUN; Exec joins it by the ID BuildKit chose.
type step struct {
	taskID  string
	started chan struct{} // closed once the task runs or failed to
	err     error
	spec    *specs.Spec
}

func newExecutor(opt Options, scratch string) *stepExecutor {
	return &stepExecutor{opt: opt, scratch: scratch, running: map[string]*step{}}
}

var _ executor.Executor = (*stepExecutor)(nil)

// Run executes one step and returns when it ended; see executor.Executor.
func (e *stepExecutor) Run(ctx context.Context, id string, root executor.Mount, mounts []executor.Mount, p executor.ProcessInfo, started chan<- struct{}) (_ resourcestypes.Recorder, err error) {
	if id == "" {
		id = identity.NewID()
	}
	if err := executor.ValidContainerID(id); err != nil {
		return nil, err
	}
	st := &step{taskID: taskPrefix + id, started: make(chan struct{})}
	var once sync.Once
	announce := func(err error) {
		once.Do(func() {
			st.err = err
			close(st.started)
			if started != nil {
				close(started)
			}
		})
	}
	e.mu.Lock()
	e.running[id] = st
	e.mu.Unlock()
	defer func() {
		e.mu.Lock()
		delete(e.running, id)
		e.mu.Unlock()
		announce(errors.Join(err, errors.New("the step has ended")))
	}()

	dir := filepath.Join(e.scratch, id)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	undo := &undoList{}
	undo.add(func(context.Context) error { return os.RemoveAll(dir) })
	defer func() {
		cctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTime)
		defer cancel()
		err = errors.Join(err, undo.run(cctx))
	}()

	box, netns, err := e.openNetwork(ctx, st.taskID, p.Meta, undo)
	if err != nil {
		return nil, err
	}
	rootfs, err := e.openRoot(ctx, st.taskID, root, mounts, p.Meta, undo)
	if err != nil {
		return nil, err
	}
	spec, err := e.spec(ctx, st.taskID, dir, root, mounts, p.Meta, box, undo)
	if err != nil {
		return nil, err
	}
	st.spec = spec
	return nil, e.run(ctx, st, spec, rootfs, netns, p, announce)
}

// openNetwork gives the step a sandbox on the build network, unless its mode
// is none or host.
func (e *stepExecutor) openNetwork(ctx context.Context, id string, meta executor.Meta, undo *undoList) (network.Sandbox, *os.File, error) {
	if meta.Proxy != nil {
		return network.Sandbox{}, nil, errors.New("the network proxy of a build is not supported by this engine")
	}
	if meta.NetMode == pb.NetMode_HOST {
		return network.Sandbox{}, nil, nil
	}
	req := network.SandboxRequest{ID: network.SandboxID(id), ContainerID: id, ContainerName: id, Hostname: hostname(meta)}
	if meta.NetMode == pb.NetMode_UNSET {
		req.Endpoints = []network.EndpointRequest{{Network: e.opt.Network}}
	}
	box, ns, err := e.opt.Sandboxes.Open(ctx, req)
	if err != nil {
		return box, nil, fmt.Errorf("network of the build step: %w", err)
	}
	undo.add(func(ctx context.Context) error {
		return errors.Join(ns.Close(), e.opt.Sandboxes.Close(ctx, req.ID))
	})
	return box, ns, nil
}

// openRoot has the supervisor mount the step's root, and arranges that the
// mount points which the runtime makes in it do not end up in the layer.
func (e *stepExecutor) openRoot(ctx context.Context, id string, root executor.Mount, mounts []executor.Mount, meta executor.Meta, undo *undoList) (task.Root, error) {
	ref, err := root.Src.Mount(ctx, false)
	if err != nil {
		return task.Root{}, err
	}
	ms, release, err := ref.Mount()
	if err != nil {
		return task.Root{}, err
	}
	if release != nil {
		undo.add(func(context.Context) error { return release() })
	}
	r, err := taskRoot(ms)
	if err != nil {
		return task.Root{}, err
	}
	r.ReadOnly = r.ReadOnly || root.Readonly
	f, err := e.opt.Tasks().OpenRoot(whole(ctx), id, r)
	if err != nil {
		return task.Root{}, fmt.Errorf("mount the root of the build step: %w", err)
	}
	undo.add(func(ctx context.Context) error {
		return errors.Join(f.Close(), e.opt.Tasks().CloseRoot(ctx, id))
	})
	if !r.ReadOnly {
		clean := executor.MountStubsCleaner(context.WithoutCancel(ctx), fmt.Sprintf("/proc/self/fd/%d", f.Fd()), withRuntimeMounts(mounts), meta.RemoveMountStubsRecursive)
		undo.add(func(context.Context) error { clean(); return nil })
	}
	return r, nil
}

// withRuntimeMounts adds the mount points that every container gets.
func withRuntimeMounts(mounts []executor.Mount) []executor.Mount {
	out := slices.Clone(mounts)
	for _, dest := range []string{"/proc", "/dev", "/sys"} {
		out = append(out, executor.Mount{Dest: dest})
	}
	return out
}

// spec makes the step's OCI configuration with BuildKit's own generator.
func (e *stepExecutor) spec(ctx context.Context, id, dir string, root executor.Mount, mounts []executor.Mount, meta executor.Meta, box network.Sandbox, undo *undoList) (*specs.Spec, error) {
	files, err := writeNetworkFiles(dir, meta, box)
	if err != nil {
		return nil, err
	}
	profile := ""
	if e.opt.AppArmor != nil {
		if profile, err = e.opt.AppArmor(); err != nil {
			return nil, err
		}
	}
	spec, release, err := oci.GenerateSpec(ctx, meta, mounts, id, files.resolv, files.hosts, hostNet{meta.NetMode == pb.NetMode_HOST}, "", oci.ProcessSandbox, nil, profile, false, "", nil)
	if err != nil {
		return nil, fmt.Errorf("configure the build step: %w", err)
	}
	undo.add(func(context.Context) error { release(); return nil })
	spec.Root = &specs.Root{Path: "/", Readonly: root.Readonly || meta.ReadonlyRootFS}
	spec.Process.Terminal = meta.Tty
	spec.Linux.CgroupsPath = "" // the supervisor chooses, below the parent
	return spec, nil
}

// whole is for what is undone when the build is cancelled: the supervisor goes on
// with what it has begun, and nobody would know.
func whole(ctx context.Context) context.Context { return context.WithoutCancel(ctx) }

// run starts the task, moves its streams and waits for its end.
func (e *stepExecutor) run(ctx context.Context, st *step, spec *specs.Spec, root task.Root, netns *os.File, p executor.ProcessInfo, announce func(error)) error {
	tasks := e.opt.Tasks()
	waitConn, waiting, err := waiter()
	if err != nil {
		return err
	}
	defer waitConn.Close()
	io, err := newStreams(p)
	if err != nil {
		return errors.Join(err, waiting.Close())
	}
	defer io.close()
	_, err = tasks.Start(whole(ctx), task.StartRequest{
		Version: task.Protocol,
		ID:      st.taskID, Spec: spec, Root: root,
		User:         p.Meta.User,
		Stdio:        io.stdio(p),
		Log:          task.Log{Driver: "none"},
		Restart:      task.RestartPolicy{Name: "no"},
		DieWithOwner: true,
		CgroupParent: cmp.Or(p.Meta.CgroupParent, e.opt.CgroupParent), SystemdDriver: e.opt.SystemdCgroup,
	}, task.StartFiles{NetNS: netns, Attach: io.remote, AttachRequest: io.request(p)})
	io.handed()
	if err != nil {
		return errors.Join(asExit(err), waiting.Close())
	}
	defer func() {
		cctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTime)
		defer cancel()
		if err := tasks.Delete(cctx, st.taskID, true); err != nil {
			e.opt.Logger.Warn("deleting build step", "task", st.taskID, "err", err)
		}
	}()
	err = tasks.HandWait(ctx, st.taskID, task.WaitNotRunning, waiting)
	waiting.Close()
	if err != nil {
		return err
	}
	announce(nil)

	ctl := e.control(ctx, st.taskID, "", p)
	code, err := waitConn.code()
	ctl()
	io.drain()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		return fmt.Errorf("wait for the build step: %w", err)
	}
	return exitError(code, p.Meta.ValidExitCodes)
}

// control forwards signals and sizes, and kills the process when ctx ends;
// the returned function stops it.
func (e *stepExecutor) control(ctx context.Context, id, execID string, p executor.ProcessInfo) func() {
	done, stopped := make(chan struct{}), make(chan struct{})
	kill := func(sig syscall.Signal) {
		cctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTime)
		defer cancel()
		if err := e.opt.Tasks().Signal(cctx, id, execID, int(sig)); err != nil {
			e.opt.Logger.Debug("signalling build step", "task", id, "signal", int(sig), "err", err)
		}
	}
	go func() {
		defer close(stopped)
		cancelled, resize, signals := ctx.Done(), p.Resize, p.Signal
		for {
			select {
			case <-done:
				return
			case <-cancelled:
				kill(syscall.SIGKILL)
				cancelled = nil
			case size, ok := <-resize:
				if !ok {
					resize = nil
					continue
				}
				_ = e.opt.Tasks().Resize(ctx, id, execID, int(size.Cols), int(size.Rows))
			case sig, ok := <-signals:
				if !ok {
					signals = nil
					continue
				}
				kill(sig)
			}
		}
	}()
	return func() { close(done); <-stopped }
}

// Exec runs a further process in a step that Run started (gateway containers).
func (e *stepExecutor) Exec(ctx context.Context, id string, p executor.ProcessInfo) error {
	e.mu.Lock()
	st, ok := e.running[id]
	e.mu.Unlock()
	if !ok {
		return fmt.Errorf("container %s not found", id)
	}
	select {
	case <-st.started:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if st.err != nil {
		return st.err
	}
	proc := *st.spec.Process
	proc.Args = p.Meta.Args
	proc.Env = append(slices.Clone(p.Meta.Env), envDefaults(p.Meta)...)
	proc.Terminal = p.Meta.Tty
	if p.Meta.Cwd != "" {
		proc.Cwd = p.Meta.Cwd
	}
	io, err := newStreams(p)
	if err != nil {
		return err
	}
	defer io.close()
	execID := identity.NewID()
	_, err = e.opt.Tasks().Exec(whole(ctx), task.ExecRequest{
		ID: st.taskID, ExecID: execID, Process: &proc, User: p.Meta.User,
		Stdio: io.stdio(p), Attach: io.request(p),
	}, io.remote)
	io.handed()
	if err != nil {
		return asExit(err)
	}
	ctl := e.control(ctx, st.taskID, execID, p)
	io.drain() // the supervisor closes the connection after the process ended
	ctl()
	status, err := e.opt.Tasks().ExecStatus(context.WithoutCancel(ctx), st.taskID, execID)
	if err != nil {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return exitError(status.ExitCode, p.Meta.ValidExitCodes)
}

// exitError is nil for an expected code, and BuildKit's ExitError otherwise.
func exitError(code int, valid []int) error {
	if len(valid) == 0 {
		valid = []int{0}
	}
	if slices.Contains(valid, code) {
		return nil
	}
	return &gwpb.ExitError{ExitCode: uint32(code), Err: fmt.Errorf("exit code: %d", code)}
}

// asExit turns "could not be executed" into an exit error, so that the
// Dockerfile's line is shown with it.
func asExit(err error) error {
	return &gwpb.ExitError{ExitCode: gwpb.UnknownExitStatus, Err: err}
}

// hostNet tells the spec generator about the network namespace: none of its
// own for host mode; otherwise the descriptor sent along replaces it.
type hostNet struct{ host bool }

func (n hostNet) Set(s *specs.Spec) error {
	if n.host {
		s.Linux.Namespaces = slices.DeleteFunc(s.Linux.Namespaces, func(ns specs.LinuxNamespace) bool {
			return ns.Type == specs.NetworkNamespace
		})
	}
	return nil
}
func (hostNet) Close() error                                   { return nil }
func (hostNet) Sample() (*resourcestypes.NetworkSample, error) { return nil, nil }

var _ bknet.Namespace = hostNet{}

// undoList runs what was added in reverse order, once.
type undoList struct{ fns []func(context.Context) error }

func (u *undoList) add(f func(context.Context) error) { u.fns = append(u.fns, f) }

func (u *undoList) run(ctx context.Context) error {
	var errs []error
	for _, f := range slices.Backward(u.fns) {
		errs = append(errs, f(ctx))
	}
	u.fns = nil
	return errors.Join(errs...)
}
