package supervisor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/task"
)

// taskEntry is one task. What takes long (starting, ending, removing) is done
// by one goroutine at a time, the holder of op; mu guards the fields and is
// held for moments only. The start request is not kept in memory: it is large,
// and in the journal.
type taskEntry struct {
	s  *Supervisor
	id string
	// rt runs it, and how and systemd are what the start request says of that:
	// nil for the built-in runtime, and whether systemd makes the cgroup.
	rt      runtime
	how     *task.Runtime
	systemd bool

	op sync.Mutex
	// gate is passed by execs being started and closed while the task is being
	// frozen. Taken before op, since an exec may hang until the task's end.
	gate sync.RWMutex

	mu       sync.Mutex
	st       task.Status // State "": never ran yet
	spec     *specs.Spec // what execs need of it, while it runs
	start    uint64      // start time of st.Pid
	policy   task.RestartPolicy
	stdio    task.Stdio
	pidfd    int // -1 if it does not run
	exitTok  token
	io       *ioset
	netns    int // -1: none
	owner    *conn
	dies     bool // with its owner
	shared   bool // no PID namespace of its own: survivors of its init are killed
	hasRoot  bool // holds a reference to its root
	noStdin  bool // input was closed
	backoff  time.Duration
	timer    *time.Timer
	exited   chan struct{} // closed at each exit, then replaced by the next start
	execs    map[string]*execEntry
	order    []string // of finished execs, oldest first
	deleted  bool
	gone     bool          // for ever: its status file may go
	cleaned  chan struct{} // closed when what the last run left is cleaned up; nil: it is
	stopping bool          // Stop was called, be it before the process ran
}

func newEntry(s *Supervisor, id string, how *task.Runtime, systemd bool) *taskEntry {
	return &taskEntry{
		s: s, id: id, rt: s.runtimeFor(id, how, systemd), how: how, systemd: systemd,
		st: task.Status{ID: id}, pidfd: -1, netns: -1, exited: make(chan struct{}),
	}
}

// snapshot returns the task's status and its execs'.
func (t *taskEntry) snapshot() (task.Status, []task.ExecStatus) {
	t.mu.Lock()
	defer t.mu.Unlock()
	execs := make([]task.ExecStatus, 0, len(t.execs))
	for _, e := range t.execs {
		execs = append(execs, e.status())
	}
	return t.statusLocked(), execs
}

func (t *taskEntry) statusLocked() task.Status {
	st := t.st
	if t.io != nil {
		t.io.sink.report(&st)
	}
	return st
}

// running tells whether there is a process.
func (t *taskEntry) running() bool {
	return t.st.State == task.Running || t.st.State == task.Paused
}

// active tells whether there is or will be a process.
func (t *taskEntry) active() bool { return t.running() || t.st.State == task.Restarting }

// saveLocked journals the status.
func (t *taskEntry) saveLocked() {
	st := &statusFile{
		Status: t.statusLocked(), Start: t.start, Restart: t.policy, Stdio: t.stdio, BackoffMS: t.backoff.Milliseconds(),
		DieWithOwner: t.dies, SharedPid: t.shared, HasRoot: t.hasRoot, StdinClosed: t.noStdin, Runtime: t.how, Systemd: t.systemd,
	}
	if err := t.s.journal.saveStatus(st); err != nil {
		t.s.log.Error("cannot journal a task's status", "task", t.id, "err", err)
	}
}

// taskSet is the keeper's set of a task's descriptors.
type taskSet struct {
	Names []string `json:"names"`
}

func setName(id string) string { return "task/" + id }

// leaveLocked gives the keeper duplicates of all the task's descriptors.
func (t *taskEntry) leaveLocked() {
	var fds []int
	var names []string
	if t.pidfd >= 0 {
		fds, names = append(fds, t.pidfd), append(names, "pidfd")
	}
	if t.netns >= 0 {
		fds, names = append(fds, t.netns), append(names, "netns")
	}
	put := func(f []int, n []string) {
		if fds, names = append(fds, f...), append(names, n...); len(fds) == 0 {
			t.s.keep.drop(setName(t.id))
			return
		}
		t.s.keep.put(setName(t.id), taskSet{names}, fds...)
	}
	if t.io == nil {
		put(nil, nil)
		return
	}
	t.io.withFiles(put)
}

// stdinClosed lets go of the keeper's duplicate too, so that the process sees
// the end of its input.
func (t *taskEntry) stdinClosed() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.noStdin = true
	// Input may end before the process is known to run: the keeper has its
	// duplicate already.
	if t.pidfd >= 0 {
		t.leaveLocked()
	}
	if t.running() {
		t.saveLocked()
	}
}

// logTrouble makes it known that output was lost, or is no longer.
func (t *taskEntry) logTrouble() {
	t.mu.Lock()
	if t.io == nil || t.deleted || !t.running() {
		t.mu.Unlock()
		return
	}
	t.saveLocked()
	st := t.statusLocked()
	t.mu.Unlock()
	t.s.log.Warn("trouble with a log", "task", t.id, "dropped", st.DroppedBytes, "stalled", st.LogStalled, "err", st.LogError)
	t.s.emit(task.Event{Time: time.Now(), Kind: task.EventLog, Status: st})
}

// detachedClient reports the use of detach keys.
func (t *taskEntry) detachedClient() {
	st, _ := t.snapshot()
	t.s.emit(task.Event{Time: time.Now(), Kind: task.EventDetached, Status: st})
}

// notRunning is the error of requests that need a process.
func notRunning(id string) error {
	return fmt.Errorf("container %s is not running: %w", id, errdefs.ErrFailedPrecondition)
}

// sendSignal signals the task's process. Called with t.mu held.
func (t *taskEntry) sendSignal(sig int) error {
	if !t.running() || t.pidfd < 0 {
		return notRunning(t.id)
	}
	err := unix.PidfdSendSignal(t.pidfd, unix.Signal(sig), nil, 0)
	if errors.Is(err, unix.ESRCH) {
		return notRunning(t.id)
	}
	if errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("invalid signal %d: %w", sig, errdefs.ErrInvalidArgument)
	}
	return err
}

func (s *Supervisor) signal(ctx context.Context, id, execID string, sig int) error {
	t, err := s.get(id)
	if err != nil {
		return err
	}
	t.mu.Lock()
	if execID != "" {
		defer t.mu.Unlock()
		e := t.execs[execID]
		if e == nil {
			return fmt.Errorf("no exec %s: %w", execID, errdefs.ErrNotFound)
		}
		return e.signalLocked(sig)
	}
	err = t.sendSignal(sig)
	paused, cgroup := t.st.State == task.Paused, t.st.Cgroup
	t.mu.Unlock()
	if err != nil || sig != int(unix.SIGKILL) {
		return err
	}
	if paused { // a frozen process does not die
		if err := s.thaw(ctx, t, cgroup); err != nil {
			return err
		}
	}
	return t.rt.KillFrozen(cgroup)
}

func (s *Supervisor) thaw(ctx context.Context, t *taskEntry, cgroup string) error {
	err := t.rt.Resume(ctx, cgroup)
	t.mu.Lock()
	defer t.mu.Unlock()
	if err == nil && t.st.State == task.Paused {
		t.st.State = task.Running
		t.saveLocked()
	}
	return err
}

func (s *Supervisor) pause(ctx context.Context, id string, freeze bool) error {
	t, err := s.get(id)
	if err != nil {
		return err
	}
	if freeze {
		t.gate.Lock()
		defer t.gate.Unlock()
	}
	t.op.Lock()
	defer t.op.Unlock()
	t.mu.Lock()
	state, cgroup := t.st.State, t.st.Cgroup
	t.mu.Unlock()
	switch {
	case freeze && state == task.Paused:
		return fmt.Errorf("container %s is already paused: %w", id, errdefs.ErrFailedPrecondition)
	case freeze && state != task.Running:
		return notRunning(id)
	case !freeze && state != task.Paused:
		return fmt.Errorf("container %s is not paused: %w", id, errdefs.ErrFailedPrecondition)
	case !freeze:
		return s.thaw(ctx, t, cgroup)
	}
	if err := t.rt.Pause(ctx, cgroup); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.st.State == task.Running {
		t.st.State = task.Paused
		t.saveLocked()
	}
	return nil
}

func (s *Supervisor) resize(id, execID string, width, height int) error {
	t, err := s.get(id)
	if err != nil {
		return err
	}
	t.mu.Lock()
	set := t.io
	if execID != "" {
		e := t.execs[execID]
		if e == nil {
			t.mu.Unlock()
			return fmt.Errorf("no exec %s: %w", execID, errdefs.ErrNotFound)
		}
		set = e.io
	} else {
		t.stdio.Width, t.stdio.Height = width, height // for a restart
	}
	t.mu.Unlock()
	if set == nil {
		return notRunning(id)
	}
	return set.resize(width, height)
}

func (s *Supervisor) attach(id string, req task.AttachRequest, fd int) error {
	if fd < 0 {
		return fmt.Errorf("attach without a connection: %w", errdefs.ErrInvalidArgument)
	}
	t, err := s.get(id)
	if err != nil {
		return errors.Join(err, unix.Close(fd))
	}
	t.mu.Lock()
	set, running := t.io, t.running()
	if req.ExecID != "" {
		e := t.execs[req.ExecID]
		set, running = nil, e != nil && !e.done
		if running {
			set = e.io
		}
	}
	t.mu.Unlock()
	if set == nil || !running {
		return errors.Join(notRunning(id), unix.Close(fd))
	}
	c, err := newClient(fd, req, false)
	if err != nil {
		return err
	}
	if !c.join(set) {
		c.finish()
		return nil // it ended this moment: the client sees an end of output
	}
	return nil
}

func (s *Supervisor) handWait(id string, cond task.WaitCondition, fd int) error {
	if fd < 0 {
		return fmt.Errorf("wait without a connection: %w", errdefs.ErrInvalidArgument)
	}
	if cond == "" {
		cond = task.WaitNotRunning
	}
	s.mu.Lock()
	t := s.tasks[id]
	s.mu.Unlock()
	if t != nil {
		t.mu.Lock()
		defer t.mu.Unlock()
		if cond == task.WaitNotRunning && !t.active() && t.st.State != "" {
			writeWaitResult(fd, t.st.ExitCode)
			return nil
		}
	}
	if err := s.waits.add(id, cond, fd, false); err != nil {
		return errors.Join(err, unix.Close(fd))
	}
	return nil
}

func (s *Supervisor) update(ctx context.Context, id string, req task.UpdateRequest) error {
	t, err := s.get(id)
	if err != nil {
		return err
	}
	t.mu.Lock()
	running, cgroup := t.running(), t.st.Cgroup
	t.mu.Unlock()
	if req.Resources != nil && running {
		if err := t.rt.Update(ctx, cgroup, req.Resources); err != nil {
			return err
		}
		if err := s.journal.updateResources(id, req.Resources); err != nil {
			return err
		}
	}
	if req.Restart != nil {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.policy = *req.Restart
		t.saveLocked()
	}
	return nil
}

func (s *Supervisor) openRoot(ctx context.Context, id string, how task.Root) (*os.File, error) {
	if err := validID(id); err != nil {
		return nil, fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
	}
	f, err := s.roots.open(ctx, id, how)
	if err != nil {
		return nil, err
	}
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, errors.Join(err, s.roots.release(id))
	}
	return os.NewFile(uintptr(fd), "root"), nil
}

func (s *Supervisor) netNS(id string) (*os.File, error) {
	t, err := s.get(id)
	if err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.netns < 0 {
		return nil, fmt.Errorf("no network namespace is kept for %s: %w", id, errdefs.ErrNotFound)
	}
	fd, err := unix.FcntlInt(uintptr(t.netns), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "netns"), nil
}
