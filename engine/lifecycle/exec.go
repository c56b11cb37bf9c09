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

	"github.com/wherry-engine/wherry/container"
	"github.com/wherry-engine/wherry/engine/exec"
	"github.com/wherry-engine/wherry/engine/handoff"
	"github.com/wherry-engine/wherry/engine/launch"
	"github.com/wherry-engine/wherry/task"
)

// ExecCreate prepares a further process in a running container and returns its
// ID. Conflict, InvalidArgument.
func (e *Engine) ExecCreate(ctx context.Context, ref string, req apicontainer.ExecCreateRequest) (string, error) {
	u, err := e.index.find(ref)
	if err != nil {
		return "", err
	}
	if err := exec.Check(req); err != nil {
		return "", err
	}
	if err := executable(u, ref); err != nil {
		return "", err
	}
	ex := exec.New(u.id, req)
	e.execs.Add(ex)
	e.emit(u, apievents.Action(string(apievents.ActionExecCreate)+": "+strings.Join(req.Cmd, " ")), map[string]string{"execID": ex.ID})
	return ex.ID, nil
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
	ex, u, err := e.findExec(id)
	if err != nil {
		return err
	}
	if err := executable(u, string(u.id)); err != nil {
		return err
	}
	if req.Again {
		return e.execAgain(ctx, ex, req)
	}
	treq, err := e.execMessage(u, ex)
	if err != nil {
		return err
	}
	if err := e.execs.Begin(ex); err != nil {
		return err
	}
	if size := req.ConsoleSize; size != nil {
		treq.Stdio.Height, treq.Stdio.Width = int(size[0]), int(size[1])
	}
	e.emit(u, apievents.Action(string(apievents.ActionExecStart)+": "+strings.Join(ex.Request.Cmd, " ")), map[string]string{"execID": ex.ID})
	if req.Detach || req.Conn == nil {
		treq.Detach = true
		_, err = e.runExec(context.WithoutCancel(ctx), ex, treq, nil)
		return err
	}
	stream, err := req.Conn.Hijack(ex.Request.Tty, true)
	if err != nil {
		e.execs.Finish(ex, launch.CodeFailed)
		return err
	}
	return e.execAttached(ctx, ex, treq, stream)
}

// execAgain takes up the streams of an exec that runs, for a client whose
// connection was cut. Of an exec that an earlier daemon started only the client
// knows whether it has a terminal. Conflict.
func (e *Engine) execAgain(ctx context.Context, ex *exec.Exec, req container.ExecStartRequest) error {
	if x := e.execs.State(ex); !x.Started || x.Ended {
		return conflict("Error: Exec command %s is not running", ex.ID)
	}
	stream, err := req.Conn.Hijack(req.Tty, true)
	if err != nil {
		return err
	}
	f, proxy, err := handoff.Descriptor(stream)
	if err != nil {
		return errors.Join(err, stream.Close())
	}
	err = e.o.Tasks.Attach(context.WithoutCancel(ctx), string(ex.Container), task.AttachRequest{
		ExecID: ex.ID, Stdin: true, Stdout: true, Stderr: true, Framed: !req.Tty,
		Preface: stream.Head, Buffered: stream.Buffered, Relayed: !handoff.IsSocket(stream.Conn),
	}, f)
	if err != nil { // hijacked: what can be said is said on the connection
		_, _ = f.Write(stream.Head)
		e.log.Warn("attach to an exec", "container", ex.Container, "exec", ex.ID, "err", err)
	}
	_ = f.Close()
	proxy(ctx)
	return nil
}

func (e *Engine) findExec(id string) (*exec.Exec, *unit, error) {
	ex, err := e.execs.Get(id)
	if err != nil {
		return nil, nil, err
	}
	u := e.index.get(ex.Container)
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

func (e *Engine) execAttached(ctx context.Context, ex *exec.Exec, treq task.ExecRequest, stream container.Stream) error {
	f, proxy, err := handoff.Descriptor(stream)
	if err != nil {
		e.execs.Finish(ex, launch.CodeFailed)
		return errors.Join(err, stream.Close())
	}
	treq.Attach.Preface, treq.Attach.Buffered = stream.Head, stream.Buffered
	treq.Attach.Relayed = !handoff.IsSocket(stream.Conn)
	_, err = e.runExec(context.WithoutCancel(ctx), ex, treq, f)
	if err != nil {
		if _, werr := f.Write(stream.Head); werr == nil {
			_ = handoff.WriteFrame(f, 1, []byte(err.Error()+"\r\n"), !ex.Request.Tty)
		}
	}
	_ = f.Close()
	proxy(ctx)
	return nil
}

// runExec starts the process; conn, if any, stays the caller's to close.
func (e *Engine) runExec(ctx context.Context, ex *exec.Exec, treq task.ExecRequest, conn *os.File) (task.ExecStatus, error) {
	u := e.index.get(ex.Container)
	if u == nil {
		e.execs.Finish(ex, launch.CodeFailed)
		return task.ExecStatus{}, notFound(string(ex.Container))
	}
	u.freeze.RLock()
	if err := executable(u, string(u.id)); err != nil {
		u.freeze.RUnlock()
		e.execs.Finish(ex, launch.CodeFailed)
		return task.ExecStatus{}, err
	}
	pid := u.status.Load().Pid
	sctx, done := e.execs.Starting(ctx, ex)
	st, err := e.o.Tasks.Exec(sctx, treq, conn)
	done()
	u.freeze.RUnlock()
	if err != nil {
		code, xerr := launch.ExplainExec(err)
		e.execs.Finish(ex, code)
		// Nobody is told why a health check failed that ends with its container;
		// the container's owner may be waiting for it.
		if !ex.Probe && !errdefs.IsInvalidArgument(err) && e.isEnding(ctx, u, pid) {
			return st, notRunning(u)
		}
		return st, xerr
	}
	e.execs.Running(ex, st)
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

// execMessage is what tells the supervisor of an exec.
func (e *Engine) execMessage(u *unit, ex *exec.Exec) (task.ExecRequest, error) {
	s := u.spec.Load()
	links, err := e.linkEnv(s)
	if err != nil {
		links = nil // the linked container stopped meanwhile
	}
	return ex.Message(s, links)
}

// ExecInspect describes an exec. NotFound.
func (e *Engine) ExecInspect(ctx context.Context, id string) (apicontainer.ExecInspectResponse, error) {
	ex, err := e.execs.Get(id)
	if err != nil {
		return apicontainer.ExecInspectResponse{}, err
	}
	if x := e.execs.State(ex); x.Started && !x.Ended {
		// News of its end may still be on the way.
		if st, err := e.o.Tasks.ExecStatus(ctx, string(ex.Container), ex.ID); err == nil && !st.Running {
			e.endExec(st)
		}
	}
	return e.execs.Inspect(ex), nil
}

func (e *Engine) endExec(st task.ExecStatus) {
	if !e.execs.Learn(st) {
		return
	}
	if u := e.index.get(container.ID(st.ID)); u != nil {
		e.emit(u, apievents.ActionExecDie, map[string]string{"execID": st.ExecID, "exitCode": strconv.Itoa(st.ExitCode)})
	}
}

// ExecResize sets the size of an exec's terminal. NotFound, Conflict.
func (e *Engine) ExecResize(ctx context.Context, id string, height, width int) error {
	ex, u, err := e.findExec(id)
	if err != nil {
		return err
	}
	if x := e.execs.State(ex); !x.Started || x.Ended {
		return invalid("Exec command %s is not running", id)
	}
	return e.o.Tasks.Resize(ctx, string(u.id), id, width, height)
}
