package lifecycle

import (
	"context"
	"errors"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	apicontainer "github.com/moby/moby/api/types/container"
	apievents "github.com/moby/moby/api/types/events"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/wherry-engine/wherry/container"
	"github.com/wherry-engine/wherry/engine/check"
	"github.com/wherry-engine/wherry/engine/detach"
	"github.com/wherry-engine/wherry/engine/naming"
	"github.com/wherry-engine/wherry/engine/spec"
	"github.com/wherry-engine/wherry/task"
)

// ExecCreate prepares a further process in a running container and returns its
// ID. Conflict, InvalidArgument.
func (e *Engine) ExecCreate(ctx context.Context, ref string, req apicontainer.ExecCreateRequest) (string, error) {
	u, err := e.index.find(ref)
	if err != nil {
		return "", err
	}
	if len(req.Cmd) == 0 {
		return "", invalid("no exec command specified")
	}
	if _, err := detach.Parse(req.DetachKeys); err != nil {
		return "", invalid("Invalid detach keys (%s) provided", req.DetachKeys)
	}
	if err := check.Config(&apicontainer.Config{Env: withoutUnset(req.Env), WorkingDir: req.WorkingDir, Cmd: req.Cmd}); err != nil {
		return "", err
	}
	if err := executable(u, ref); err != nil {
		return "", err
	}
	ex := &execution{id: string(naming.NewID()), owner: u.id, req: req, done: make(chan struct{})}
	e.execs.add(ex)
	e.emit(u, apievents.Action(string(apievents.ActionExecCreate)+": "+strings.Join(req.Cmd, " ")), map[string]string{"execID": ex.id})
	return ex.id, nil
}

func withoutUnset(env []string) []string {
	var out []string
	for _, kv := range env {
		if strings.Contains(kv, "=") {
			out = append(out, kv)
		}
	}
	return out
}

// executable reports why nothing can be executed in a container now.
func executable(u *unit, ref string) error {
	switch u.status.Load().State {
	case container.StateRunning:
		return nil
	case container.StatePaused:
		return conflict("container %s is paused, unpause the container before exec", ref)
	case container.StateRestarting:
		return conflict("container %s is restarting, wait until the container is running", ref)
	}
	return notRunning(u)
}

// ExecStart runs a prepared exec. NotFound, Conflict, InvalidArgument. Once the
// connection is hijacked, errors are told on it.
func (e *Engine) ExecStart(ctx context.Context, id string, req container.ExecStartRequest) error {
	ex, u, err := e.exec(id)
	if err != nil {
		return err
	}
	if err := executable(u, string(u.id)); err != nil {
		return err
	}
	if err := e.execs.begin(ex); err != nil {
		return err
	}
	treq, err := e.execRequest(u, ex)
	if err != nil {
		return err
	}
	if size := req.ConsoleSize; size != nil {
		treq.Stdio.Height, treq.Stdio.Width = int(size[0]), int(size[1])
	}
	e.emit(u, apievents.Action(string(apievents.ActionExecStart)+": "+strings.Join(ex.req.Cmd, " ")), map[string]string{"execID": ex.id})
	if req.Detach || req.Conn == nil {
		treq.Detach = true
		_, err = e.runExec(context.WithoutCancel(ctx), ex, treq, nil)
		return err
	}
	stream, err := req.Conn.Hijack(ex.req.Tty, true)
	if err != nil {
		e.execs.finish(ex, codeFailed)
		return err
	}
	return e.execAttached(ctx, ex, treq, stream)
}

func (e *Engine) exec(id string) (*execution, *unit, error) {
	ex, err := e.execs.get(id)
	if err != nil {
		return nil, nil, err
	}
	u := e.index.get(ex.owner)
	if u == nil {
		return nil, nil, errdefs.ErrNotFound.WithMessage("No such exec instance: " + id)
	}
	return ex, u, nil
}

func (e *Engine) refreshOwned(ctx context.Context, u *unit) {
	_ = u.owner.do(func() error {
		e.refresh(context.WithoutCancel(ctx), u)
		return nil
	})
}

func (e *Engine) execAttached(ctx context.Context, ex *execution, treq task.ExecRequest, stream container.Stream) error {
	f, proxy, err := descriptor(stream)
	if err != nil {
		return errors.Join(err, stream.Close())
	}
	treq.Attach.Preface, treq.Attach.Buffered = stream.Head, stream.Buffered
	_, err = e.runExec(context.WithoutCancel(ctx), ex, treq, f)
	if err != nil {
		if _, werr := f.Write(stream.Head); werr == nil {
			_ = writeFrame(f, 1, []byte(err.Error()+"\r\n"), !ex.req.Tty)
		}
	}
	_ = f.Close()
	proxy(ctx)
	return nil
}

// runExec starts the process; conn, if any, stays the caller's to close.
func (e *Engine) runExec(ctx context.Context, ex *execution, treq task.ExecRequest, conn *os.File) (task.ExecStatus, error) {
	u := e.index.get(ex.owner)
	if u == nil {
		e.execs.finish(ex, codeFailed)
		return task.ExecStatus{}, notFound(string(ex.owner))
	}
	u.freeze.RLock()
	if err := executable(u, string(u.id)); err != nil {
		u.freeze.RUnlock()
		e.execs.finish(ex, codeFailed)
		return task.ExecStatus{}, err
	}
	pid := u.status.Load().Pid
	sctx, done := e.execs.starting(ctx, ex)
	st, err := e.o.Tasks.Exec(sctx, treq, conn)
	done()
	u.freeze.RUnlock()
	if err != nil {
		code, xerr := explain(execError{err})
		e.execs.finish(ex, code)
		// Nobody is told why a health check failed that ends with its container;
		// the container's owner may be waiting for it.
		if !ex.probe && !errdefs.IsInvalidArgument(err) && e.isEnding(ctx, u, pid) {
			return st, notRunning(u)
		}
		return st, xerr
	}
	e.execs.running(ex, st)
	return st, nil
}

// endPatience is how long the news of an end may take that was felt already.
const endPatience = 200 * time.Millisecond

// isEnding reports whether the life of a container that had this pid has ended
// or is about to.
func (e *Engine) isEnding(ctx context.Context, u *unit, pid int) bool {
	w := u.join(apicontainer.WaitConditionNextExit)
	defer u.leave(w)
	e.refreshOwned(ctx, u)
	if !u.up() || u.status.Load().Pid != pid || ended(pid) {
		return true
	}
	t := time.NewTimer(endPatience)
	defer t.Stop()
	select {
	case <-w.ch:
		return true
	case <-t.C:
		return false
	}
}

// ended reports whether a process is gone or about to be reaped, before the
// supervisor said so.
func ended(pid int) bool {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return true
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	return strings.HasPrefix(rest, "Z") || strings.HasPrefix(rest, "X")
}

// execError is an error of the supervisor's Exec.
type execError struct{ err error }

func (x execError) Error() string { return "OCI runtime exec failed: " + trimClass(x.err) }
func (x execError) Unwrap() error { return x.err }

// execRequest is the message to the supervisor.
func (e *Engine) execRequest(u *unit, ex *execution) (task.ExecRequest, error) {
	s, req := u.spec.Load(), ex.req
	h := s.HostConfig
	privileged := req.Privileged || h.Privileged
	caps, err := spec.ExecCaps(h.CapAdd, h.CapDrop, privileged)
	if err != nil {
		return task.ExecRequest{}, err
	}
	sec, err := spec.ParseSecurity(h.SecurityOpt)
	if err != nil {
		return task.ExecRequest{}, err
	}
	links, err := e.linkEnv(s)
	if err != nil {
		links = nil // the linked container stopped meanwhile
	}
	env := spec.Env(s, links)
	if req.Tty {
		env = spec.MergeEnv([]string{"TERM=xterm"}, env)
	}
	keys, err := detach.Parse(req.DetachKeys)
	if err != nil {
		return task.ExecRequest{}, invalid("%v", err)
	}
	out := task.ExecRequest{
		ID: string(u.id), ExecID: ex.id, User: or(req.User, s.Config.User),
		Process: &specs.Process{
			Terminal: req.Tty, Args: req.Cmd, Env: spec.MergeEnv(env, req.Env), Cwd: or(req.WorkingDir, or(s.Config.WorkingDir, "/")),
			Capabilities:    &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps},
			NoNewPrivileges: sec.NoNewPrivileges != nil && *sec.NoNewPrivileges,
		},
		Stdio: task.Stdio{Terminal: req.Tty, OpenStdin: req.AttachStdin, StdinOnce: true},
		Attach: task.AttachRequest{
			Stdin: req.AttachStdin, Stdout: req.AttachStdout, Stderr: req.AttachStderr, DetachKeys: keys, Framed: !req.Tty,
		},
	}
	if size := req.ConsoleSize; size != nil {
		out.Stdio.Height, out.Stdio.Width = int(size[0]), int(size[1])
	}
	return out, nil
}

func or(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// ExecInspect describes an exec. NotFound.
func (e *Engine) ExecInspect(ctx context.Context, id string) (apicontainer.ExecInspectResponse, error) {
	ex, err := e.execs.get(id)
	if err != nil {
		return apicontainer.ExecInspectResponse{}, err
	}
	if x := e.execs.snapshot(ex); x.started && !x.ended {
		// News of its end may still be on the way.
		if st, err := e.o.Tasks.ExecStatus(ctx, string(x.owner), x.id); err == nil && !st.Running {
			e.endExec(st)
		}
	}
	x := e.execs.snapshot(ex)
	keys, _ := detach.Parse(x.req.DetachKeys)
	out := apicontainer.ExecInspectResponse{
		ID: x.id, Running: x.started && !x.ended, ContainerID: string(x.owner), Pid: x.status.Pid,
		OpenStdin: x.req.AttachStdin, OpenStdout: x.req.AttachStdout, OpenStderr: x.req.AttachStderr, DetachKeys: keys,
		ProcessConfig: &apicontainer.ExecProcessConfig{
			Tty: x.req.Tty, Privileged: &x.req.Privileged, User: x.req.User, Arguments: []string{},
		},
	}
	if len(x.req.Cmd) > 0 {
		out.ProcessConfig.Entrypoint, out.ProcessConfig.Arguments = x.req.Cmd[0], x.req.Cmd[1:]
	}
	if x.ended {
		out.ExitCode = &x.status.ExitCode
	}
	return out, nil
}

func (e *Engine) endExec(st task.ExecStatus) {
	if !e.execs.learn(st) {
		return
	}
	if u := e.index.get(container.ID(st.ID)); u != nil {
		e.emit(u, apievents.ActionExecDie, map[string]string{"execID": st.ExecID, "exitCode": strconv.Itoa(st.ExitCode)})
	}
}

// ExecResize sets the size of an exec's terminal. NotFound, Conflict.
func (e *Engine) ExecResize(ctx context.Context, id string, height, width int) error {
	ex, u, err := e.exec(id)
	if err != nil {
		return err
	}
	if x := e.execs.snapshot(ex); !x.started || x.ended {
		return invalid("Exec command %s is not running", id)
	}
	return e.o.Tasks.Resize(ctx, string(u.id), id, width, height)
}
