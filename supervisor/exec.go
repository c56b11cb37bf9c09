package supervisor

import (
	"context"
	"errors"
	"fmt"
	"os"
	goruntime "runtime"
	"slices"
	"time"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/keeper/exits"
	"github.com/wherry-engine/wherry/ocirun"
	"github.com/wherry-engine/wherry/task"
)

// maxExecs is how many finished execs of a task are remembered.
const maxExecs = 64

// execEntry is one exec; its task's mu guards it.
type execEntry struct {
	t     *taskEntry
	id    string
	pid   int
	start uint64
	code  int
	done  bool
	pidfd int
	tok   token
	io    *ioset
	// over: it had ended before it could be watched; start is a lower bound.
	over bool
	// cancel gives up starting it; nil before and after.
	cancel context.CancelFunc
}

func (e *execEntry) status() task.ExecStatus {
	st := task.ExecStatus{ID: e.t.id, ExecID: e.id, Running: !e.done, Pid: e.pid, ExitCode: e.code}
	if e.done {
		st.Pid = 0
	}
	return st
}

func (e *execEntry) signalLocked(sig int) error {
	if e.done || e.pidfd < 0 {
		return fmt.Errorf("exec %s is not running: %w", e.id, errdefs.ErrFailedPrecondition)
	}
	return unix.PidfdSendSignal(e.pidfd, unix.Signal(sig), nil, 0)
}

// execSet is the keeper's set of an exec's descriptors, with what a later
// supervisor must know of it.
type execSet struct {
	Task  string     `json:"task"`
	Exec  string     `json:"exec"`
	Pid   int        `json:"pid"`
	Start uint64     `json:"start"`
	Stdio task.Stdio `json:"stdio"`
	Names []string   `json:"names"`
}

func execSetName(id, execID string) string { return "exec/" + id + "/" + execID }

func (s *Supervisor) execStatus(id, execID string) (task.ExecStatus, error) {
	t, err := s.get(id)
	if err != nil {
		return task.ExecStatus{}, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.execs[execID]
	if e == nil {
		return task.ExecStatus{}, fmt.Errorf("no exec %s: %w", execID, errdefs.ErrNotFound)
	}
	return e.status(), nil
}

// exec handles an Exec request; it takes over the connection.
func (s *Supervisor) exec(ctx context.Context, req task.ExecRequest, fd int) (_ task.ExecStatus, err error) {
	var c *client
	if fd >= 0 {
		head := req.Attach.Preface
		req.Attach.Preface = nil // not before the process runs: errors are answered otherwise
		if c, err = newClient(fd, req.Attach, true); err != nil {
			return task.ExecStatus{}, err
		}
		defer func() {
			if err != nil {
				c.abandon()
			}
		}()
		req.Attach.Preface = head
	}
	t, err := s.get(req.ID)
	if err != nil {
		return task.ExecStatus{}, err
	}
	if req.Process == nil {
		return task.ExecStatus{}, fmt.Errorf("exec without a process: %w", errdefs.ErrInvalidArgument)
	}
	if err := validID(req.ExecID); err != nil {
		return task.ExecStatus{}, fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
	}
	e, p, err := t.startExec(ctx, &req, c != nil)
	if err != nil {
		return task.ExecStatus{}, startError(err)
	}
	if c != nil {
		if len(req.Attach.Preface) > 0 {
			c.write(req.Attach.Preface, nil)
		}
		c.join(e.io)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if e.over {
		err = e.io.watch()
		go e.ended()
	} else if e.tok, err = s.poll.add(e.pidfd, unix.EPOLLIN, func(uint32) { e.ended() }); err == nil {
		err = e.io.watch()
	}
	if err != nil {
		_ = e.signalLocked(int(unix.SIGKILL))
		return task.ExecStatus{}, err
	}
	st := e.status()
	st.Pid = p
	return st, nil
}

// startExec runs the process and enters it in the task's table.
func (t *taskEntry) startExec(ctx context.Context, req *task.ExecRequest, attached bool) (*execEntry, int, error) {
	er := &ocirun.ExecRequest{Process: req.Process, ResolveUser: true, User: req.User}
	e := &execEntry{t: t, id: req.ExecID, pidfd: -1}
	closeInit, err := t.enterExec(e, er)
	if err != nil {
		return nil, 0, err
	}
	defer closeInit()
	pp := &pipes{stdin: -1, stdout: -1, stderr: -1}
	if req.Stdio.Terminal {
		req.Process.Terminal = true
		er.Width, er.Height = uint16(req.Stdio.Width), uint16(req.Stdio.Height)
	} else if attached {
		if pp, err = makePipes(req.Stdio.OpenStdin); err != nil {
			t.leaveExec(e)
			return nil, 0, err
		}
	}
	if hasNamespace(er.Spec, specs.UserNamespace) {
		if err := pp.own(er.Spec.Linux); err != nil {
			pp.closeProc()
			pp.closeOurs()
			t.leaveExec(e)
			return nil, 0, err
		}
	}
	er.Stdin, er.Stdout, er.Stderr = pp.proc[0], pp.proc[1], pp.proc[2]
	p, err := t.runExec(ctx, e, er)
	pp.closeProc()
	if err != nil {
		pp.closeOurs()
		t.leaveExec(e)
		return nil, 0, err
	}
	if p.Console != nil {
		if pp.stdout, err = takeFD(p.Console); err == nil {
			err = unix.SetNonblock(pp.stdout, true)
		}
	}
	pidfd, perr := takeFD(p.PidFD)
	if err = errors.Join(err, perr); err != nil {
		_ = unix.Kill(p.Pid, unix.SIGKILL)
		pp.closeOurs()
		t.leaveExec(e)
		return nil, 0, err
	}
	std := req.Stdio
	std.StdinOnce = true // the end of the client's input is the end of the process's
	began, _ := exits.StartTime(p.Pid)
	t.mu.Lock()
	defer t.mu.Unlock()
	e.pid, e.pidfd, e.start = p.Pid, pidfd, began
	if e.over = pidfd < 0; e.over {
		e.start = p.since
	}
	e.io = t.s.newIOSet(t.id, e.id, std, pp, nil)
	e.io.onStdinClosed = func() { t.mu.Lock(); defer t.mu.Unlock(); e.leaveLocked() }
	e.io.onDetach = t.detachedClient
	e.leaveLocked()
	return e, p.Pid, nil
}

// runExec has the runtime start the process, in vain if the task ends before.
func (t *taskEntry) runExec(ctx context.Context, e *execEntry, er *ocirun.ExecRequest) (*process, error) {
	t.gate.RLock() // a process that is being started must not be frozen half-way
	defer t.gate.RUnlock()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	t.mu.Lock()
	state := t.st.State
	e.cancel = cancel
	t.mu.Unlock()
	if state != task.Running {
		return nil, cannotExec(t.id, state)
	}
	p, err := t.rt.Exec(ctx, er)
	if err != nil && ctx.Err() != nil {
		return nil, errors.Join(notRunning(t.id), err)
	}
	return p, err
}

func cannotExec(id string, state task.State) error {
	if state == task.Paused {
		return fmt.Errorf("container %s is paused, unpause the container before exec: %w", id, errdefs.ErrFailedPrecondition)
	}
	return notRunning(id)
}

// trace is the one capability that counts for how an exec is made.
const trace = "CAP_SYS_PTRACE"

// execSpec is what execs need of a specification: little enough to be kept.
func execSpec(s *specs.Spec) *specs.Spec {
	small := &specs.Spec{Version: s.Version, Process: &specs.Process{}, Linux: &specs.Linux{}}
	if p := s.Process; p != nil {
		small.Process.ApparmorProfile, small.Process.SelinuxLabel, small.Process.NoNewPrivileges = p.ApparmorProfile, p.SelinuxLabel, p.NoNewPrivileges
		if c := p.Capabilities; c != nil && slices.Contains(c.Bounding, trace) {
			small.Process.Capabilities = &specs.LinuxCapabilities{Bounding: []string{trace}}
		}
	}
	if l := s.Linux; l != nil {
		small.Linux.Namespaces, small.Linux.Seccomp, small.Linux.Personality = l.Namespaces, l.Seccomp, l.Personality
		small.Linux.UIDMappings, small.Linux.GIDMappings, small.Linux.CgroupsPath = l.UIDMappings, l.GIDMappings, l.CgroupsPath
	}
	return small
}

// confine gives the process of an exec what holds for the container's, unless
// it says otherwise. It is never freed of no_new_privs.
func confine(p, container *specs.Process) {
	if p.ApparmorProfile == "" {
		p.ApparmorProfile = container.ApparmorProfile
	}
	if p.SelinuxLabel == "" {
		p.SelinuxLabel = container.SelinuxLabel
	}
	p.NoNewPrivileges = p.NoNewPrivileges || container.NoNewPrivileges
}

// enterExec claims the exec's ID and gives the request the task's init.
func (t *taskEntry) enterExec(e *execEntry, er *ocirun.ExecRequest) (closeInit func(), err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.st.State != task.Running:
		return nil, cannotExec(t.id, t.st.State)
	case t.execs[e.id] != nil:
		return nil, fmt.Errorf("exec %s exists: %w", e.id, errdefs.ErrAlreadyExists)
	}
	fd, err := unix.FcntlInt(uintptr(t.pidfd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	er.Spec = t.spec
	confine(er.Process, t.spec.Process)
	er.Pid, er.PidFD, er.Cgroup = t.st.Pid, os.NewFile(uintptr(fd), "pidfd"), t.st.Cgroup
	if t.execs == nil {
		t.execs = map[string]*execEntry{}
	}
	t.execs[e.id] = e
	return func() { _ = er.PidFD.Close() }, nil
}

func (t *taskEntry) leaveExec(e *execEntry) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.execs, e.id)
}

// leaveLocked gives the keeper duplicates of the exec's descriptors.
func (e *execEntry) leaveLocked() {
	if e.done || e.over {
		return
	}
	e.io.withFiles(func(fds []int, names []string) {
		meta := execSet{Task: e.t.id, Exec: e.id, Pid: e.pid, Start: e.start, Names: append(names, "pidfd"),
			Stdio: task.Stdio{Terminal: e.io.terminal, StdinOnce: e.io.stdinOnce}}
		e.t.s.keep.put(execSetName(e.t.id, e.id), meta, append(fds, e.pidfd)...)
	})
}

// ended is called when the exec's process has exited.
func (e *execEntry) ended() {
	t := e.t
	t.s.work.enter()
	defer t.s.work.leave()
	t.mu.Lock()
	pid, start, pidfd := e.pid, e.start, e.pidfd
	t.mu.Unlock()
	var code int
	if e.over {
		code, _ = t.s.keep.exited.waitSince(pid, start, exitPatience)
	} else {
		code, _ = t.s.exitCode(pid, start, pidfd)
	}
	e.io.waitDrained(drainPatience) // only this goroutine ever takes it away
	t.mu.Lock()
	t.s.poll.remove(e.pidfd, e.tok)
	if e.pidfd >= 0 {
		_ = unix.Close(e.pidfd)
	}
	io := e.io
	e.pidfd, e.done, e.code, e.io = -1, true, code, nil // it is remembered, its streams are not
	st := e.status()
	t.rememberLocked(e)
	ev := task.Event{Time: time.Now(), Kind: task.EventExecDied, Status: t.statusLocked(), Exec: &st}
	t.mu.Unlock()
	t.s.emit(ev)
	goruntime.Gosched() // so that the daemon is told before its client, which asks it next
	io.close()
	t.s.keep.dropLater(execSetName(t.id, e.id))
}

// rememberLocked keeps the last finished execs and forgets those before.
func (t *taskEntry) rememberLocked(e *execEntry) {
	t.order = append(t.order, e.id)
	if len(t.order) > maxExecs {
		delete(t.execs, t.order[0])
		t.order = append([]string(nil), t.order[1:]...)
	}
}
