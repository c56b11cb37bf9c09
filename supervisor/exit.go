package supervisor

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/keeper/exits"
	"github.com/wherry-engine/wherry/task"
)

const (
	// drainPatience is how long output is awaited after the end of a process
	// whose streams someone else still holds open.
	drainPatience = 2 * time.Second
	firstBackoff  = 100 * time.Millisecond
	maxBackoff    = time.Minute
	// settled is how long a container must run for its back-off to start anew.
	settled = 10 * time.Second
)

// ended is called when the task's pidfd says that its process has exited.
func (t *taskEntry) ended() {
	t.s.work.enter()
	defer t.s.work.leave()
	t.op.Lock() // a start under way comes to its end first
	defer t.op.Unlock()
	t.mu.Lock()
	if !t.running() {
		t.mu.Unlock()
		return
	}
	pid, start, pidfd, io, cgroup, shared := t.st.Pid, t.start, t.pidfd, t.io, t.st.Cgroup, t.shared
	t.mu.Unlock()
	code, known := t.s.exitCode(pid, start, pidfd)
	now := time.Now()
	ctx := context.Background()
	oom := t.oomKilled(cgroup, code)
	if shared && cgroup != "" {
		if err := t.rt.KillAll(cgroup, unix.SIGKILL); err != nil {
			t.s.log.Warn("cannot kill what is left of a container", "task", t.id, "err", err)
		}
	}
	if io != nil {
		io.waitDrained(drainPatience)
		io.sink.close()
	}
	restart := t.noteExit(now, code, known, oom)
	if io != nil {
		io.close()
	}
	t.afterExit(ctx, restart, cgroup)
}

// oomKilled asks the kernel only if the process may have died of it.
func (t *taskEntry) oomKilled(cgroup string, code int) bool {
	if cgroup == "" || code == 0 {
		return false
	}
	n, err := t.rt.OOMKills(cgroup)
	return err == nil && n > 0
}

// noteExit records the end and decides what follows.
func (t *taskEntry) noteExit(now time.Time, code int, known, oom bool) (restart bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.s.poll.remove(t.pidfd, t.exitTok)
	if t.pidfd >= 0 {
		_ = unix.Close(t.pidfd)
	}
	st := t.statusLocked()
	ran := now.Sub(st.StartedAt)
	t.pidfd, t.exitTok, t.start, t.io, t.spec = -1, 0, 0, nil, nil
	st.Pid, st.FinishedAt, st.ExitCode, st.ExitUnknown, st.OOMKilled = 0, now, code, !known, oom
	if !known {
		st.Error = unknownText
	}
	restart = !st.Stopped && !t.deleted && t.wantsRestart(st.Restarts, code)
	st.State = task.Exited
	if restart {
		st.State = task.Restarting
		t.backoff = nextBackoff(t.backoff, ran)
	}
	t.st = st
	t.saveLocked()
	if oom {
		t.s.emit(task.Event{Time: now, Kind: task.EventOOM, Status: st})
	}
	t.s.emit(task.Event{Time: now, Kind: task.EventExited, Status: st})
	t.s.waits.answer(t.id, code, func(c task.WaitCondition) bool {
		return c == task.WaitNextExit || (c == task.WaitNotRunning && !restart)
	})
	close(t.exited)
	t.exited = make(chan struct{})
	for _, e := range t.execs {
		if e.cancel != nil {
			e.cancel()
		}
	}
	return restart
}

// wantsRestart applies the policy. Called with t.mu held.
func (t *taskEntry) wantsRestart(restarts, code int) bool {
	switch t.policy.Name {
	case "always", "unless-stopped":
		return true
	case "on-failure":
		return code != 0 && (t.policy.MaxRetries == 0 || restarts < t.policy.MaxRetries)
	}
	return false
}

func nextBackoff(last, ran time.Duration) time.Duration {
	if last == 0 || ran >= settled {
		return firstBackoff
	}
	return min(2*last, maxBackoff)
}

// afterExit releases what a task needs only while it runs, or arranges for the
// next run. Called with op held.
func (t *taskEntry) afterExit(ctx context.Context, restart bool, cgroup string) {
	t.mu.Lock()
	t.leaveLocked() // without the descriptors of the run
	t.mu.Unlock()
	if restart {
		t.deleteCgroup(ctx, cgroup)
		t.mu.Lock()
		t.scheduleLocked()
		t.mu.Unlock()
		return
	}
	cleaned := make(chan struct{})
	t.mu.Lock()
	t.cleaned = cleaned
	t.mu.Unlock()
	t.s.mu.Lock()
	t.s.lagging[t.id] = cleaned
	t.s.mu.Unlock()
	t.s.work.try(true)
	t.s.cleaning.Go(func() { // nobody who removes the task has to wait for that, but who starts it again
		defer t.s.work.leave()
		defer func() {
			t.s.mu.Lock()
			delete(t.s.lagging, t.id)
			t.s.mu.Unlock()
			close(cleaned)
		}()
		t.releaseRoot()
		t.deleteCgroup(ctx, cgroup)
		t.mu.Lock()
		defer t.mu.Unlock()
		t.cleaned = nil
		if t.gone {
			t.forgetLocked()
		}
	})
}

func (t *taskEntry) deleteCgroup(ctx context.Context, cgroup string) {
	if cgroup == "" {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, cgroupPatience)
	defer cancel()
	if err := t.rt.DeleteCgroup(ctx, cgroup); err != nil {
		t.s.log.Warn("cannot remove a cgroup", "task", t.id, "err", err)
	}
}

// cgroupPatience is how long processes may take to leave a cgroup.
const cgroupPatience = 10 * time.Second

// forgetLocked removes the status from the journal: the last trace. While it
// is there without a start request, the next supervisor cleans up.
func (t *taskEntry) forgetLocked() {
	t.gone = true
	if t.cleaned != nil {
		return // by its goroutine
	}
	if err := t.s.journal.removeStatus(t.id); err != nil {
		t.s.log.Error("cannot clean the journal", "task", t.id, "err", err)
	}
}

func (t *taskEntry) releaseRoot() {
	t.mu.Lock()
	has := t.hasRoot
	t.hasRoot = false
	if has && !t.deleted {
		t.saveLocked()
	}
	t.mu.Unlock()
	if !has {
		return
	}
	if err := t.s.roots.release(t.id); err != nil {
		t.s.log.Warn("cannot unmount a root", "task", t.id, "err", err)
	}
}

// scheduleLocked arranges for the next run. Called with t.mu held.
func (t *taskEntry) scheduleLocked() {
	if t.st.State != task.Restarting || t.timer != nil {
		return // stopped meanwhile
	}
	wait := max(time.Until(t.st.FinishedAt.Add(t.backoff)), 0)
	t.timer = time.AfterFunc(wait, t.restart)
}

// restart runs the task again after its back-off.
func (t *taskEntry) restart() {
	t.s.work.enter()
	defer t.s.work.leave()
	t.op.Lock()
	defer t.op.Unlock()
	t.mu.Lock()
	t.timer = nil
	if t.st.State != task.Restarting || t.deleted {
		t.mu.Unlock()
		return
	}
	before := t.st
	t.st.Restarts++
	stdio := t.stdio
	t.mu.Unlock()
	t.releaseRoot() // run takes its own reference; nobody else unmounts meanwhile
	req, err := t.s.journal.loadRequest(t.id, t.s.seccomp.decode)
	if err == nil {
		req.Stdio = stdio
		err = t.run(context.Background(), req, nil, newPhases(), func() error { return nil }) // it is recorded
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if err == nil {
		t.s.emit(task.Event{Time: t.st.StartedAt, Kind: task.EventStarted, Status: t.st})
		return
	}
	t.s.log.Warn("cannot restart", "task", t.id, "err", err)
	t.restartFailedLocked(before, err)
}

// restartFailedLocked ends restarting: what cannot be started now is the
// user's to repair. Called with t.mu held.
func (t *taskEntry) restartFailedLocked(before task.Status, err error) {
	t.st = before
	t.st.State, t.st.Error, t.st.FinishedAt, t.st.ExitCode = task.Exited, err.Error(), time.Now(), 128
	var se *task.StartError
	if errors.As(startError(err), &se) {
		t.st.ExitCode = se.Code
	}
	t.saveLocked()
	t.s.emit(task.Event{Time: t.st.FinishedAt, Kind: task.EventExited, Status: t.st})
	t.s.waits.answer(t.id, t.st.ExitCode, func(c task.WaitCondition) bool { return c != task.WaitRemoved })
	close(t.exited)
	t.exited = make(chan struct{})
}

// exitCode finds out how a process ended whose pidfd is readable: from the
// kernel if it is our child, else from the keeper, who reaped it.
func (s *Supervisor) exitCode(pid int, start uint64, pidfd int) (code int, known bool) {
	var ws unix.WaitStatus
	for pidfd >= 0 {
		got, err := unix.Wait4(pid, &ws, unix.WALL, nil)
		if err == unix.EINTR {
			continue
		}
		if err == nil && got == pid {
			return exits.CodeOf(ws), true
		}
		break
	}
	if code, ok := exits.FromZombie(pid, start); ok {
		return code, true
	}
	if pidfd < 0 {
		return s.keep.exited.wait(pid, start, 0)
	}
	if code, ok := exits.FromPidfd(pidfd); ok {
		return code, true
	}
	// Not our child: whoever is its parent reaps it this moment.
	reaped := make(chan struct{})
	go func() {
		defer close(reaped)
		p := []unix.PollFd{{Fd: int32(pidfd)}} // hang-up: reaped
		_, _ = unix.Poll(p, int(exitPatience.Milliseconds()))
	}()
	defer func() { <-reaped }()
	if code, ok := s.keep.exited.waitOr(pid, start, exitPatience, reaped); ok {
		return code, true
	}
	<-reaped
	if code, ok := exits.FromPidfd(pidfd); ok {
		return code, true
	}
	if code, ok := s.keep.exited.wait(pid, start, 0); ok {
		return code, true
	}
	return unknownCode, false
}

const (
	// exitPatience is how long the keeper may take to tell an exit code.
	exitPatience = 2 * time.Second
	// unknownCode is reported beside Status.ExitUnknown.
	unknownCode = 255
	// unknownText goes with it.
	unknownText = "the exit code is unknown: whoever would have been told it was killed before"
)

// stop handles a Stop request.
func (s *Supervisor) stop(ctx context.Context, id string, sig int, timeout time.Duration) (task.Status, error) {
	t, err := s.get(id)
	if err != nil {
		return task.Status{}, err
	}
	exited, err := t.beginStop(ctx, sig)
	if err != nil {
		return task.Status{}, err
	}
	if exited == nil {
		st, _ := t.snapshot()
		return st, nil
	}
	var expired <-chan time.Time
	if timeout >= 0 {
		timer := time.NewTimer(timeout)
		defer timer.Stop()
		expired = timer.C
	}
	for {
		select {
		case <-exited:
			st, _ := t.snapshot()
			return st, nil
		case <-expired:
			expired = nil
			if err := s.signal(ctx, id, "", int(unix.SIGKILL)); err != nil && !errdefs.IsFailedPrecondition(err) && !errdefs.IsNotFound(err) {
				return task.Status{}, err
			}
		case <-ctx.Done():
			return task.Status{}, ctx.Err()
		}
	}
}

// beginStop forbids restarting and sends the signal. It returns the channel
// that is closed at the exit, nil if there is nothing to wait for.
func (t *taskEntry) beginStop(ctx context.Context, sig int) (<-chan struct{}, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.st.State == task.Restarting:
		t.cancelRestartLocked()
		return nil, nil
	case t.st.State == "" || !t.running():
		t.stopping = true
		if t.st.State == "" {
			return t.exited, nil // being started; see run
		}
		return nil, nil
	}
	t.stopping = true
	t.st.Stopped = true
	t.saveLocked()
	exited := t.exited
	err := t.sendSignal(sig)
	if err != nil && !errdefs.IsFailedPrecondition(err) {
		return nil, err
	}
	if t.st.State == task.Paused {
		cgroup := t.st.Cgroup
		go func() { // a frozen process handles no signal
			if err := t.s.thaw(context.WithoutCancel(ctx), t, cgroup); err != nil {
				t.s.log.Warn("cannot resume a task to stop it", "task", t.id, "err", err)
			}
		}()
	}
	return exited, nil
}

// cancelRestartLocked makes a restarting task an exited one. Called with t.mu held.
func (t *taskEntry) cancelRestartLocked() {
	if t.timer != nil {
		t.timer.Stop()
		t.timer = nil
	}
	t.stopping = true
	t.st.State, t.st.Stopped = task.Exited, true
	t.saveLocked()
	t.s.waits.answer(t.id, t.st.ExitCode, func(c task.WaitCondition) bool { return c != task.WaitRemoved })
	close(t.exited)
	t.exited = make(chan struct{})
	go func() {
		t.op.Lock()
		defer t.op.Unlock()
		t.mu.Lock()
		idle := !t.active()
		t.mu.Unlock()
		if idle {
			t.releaseRoot()
		}
	}()
}

// delete handles a Delete request.
func (s *Supervisor) delete(ctx context.Context, id string, force bool) error {
	t, err := s.get(id)
	if err != nil {
		if s.answerRemoved(id, 0) > 0 {
			return nil // never started, but waited for
		}
		return err
	}
	t.mu.Lock()
	active := t.active() || t.st.State == ""
	t.mu.Unlock()
	if active {
		if !force {
			return fmt.Errorf("container %s is running: %w", id, errdefs.ErrFailedPrecondition)
		}
		if _, err := s.stop(ctx, id, int(unix.SIGKILL), 0); err != nil {
			return fmt.Errorf("kill: %w", err)
		}
	}
	t.op.Lock()
	defer t.op.Unlock()
	t.mu.Lock()
	if t.deleted {
		t.mu.Unlock()
		return fmt.Errorf("no task %s: %w", id, errdefs.ErrNotFound)
	}
	if t.active() {
		t.mu.Unlock()
		return fmt.Errorf("container %s was started again: %w", id, errdefs.ErrFailedPrecondition)
	}
	t.deleted = true
	code := t.st.ExitCode
	t.mu.Unlock()
	s.mu.Lock()
	if s.tasks[id] == t {
		delete(s.tasks, id)
	}
	s.mu.Unlock()
	// The rest makes no difference to anybody. Should it not come to that, the
	// next supervisor finds an ended task, and the daemon deletes it again.
	s.answerRemoved(id, code)
	t.letGo()
	err = s.journal.removeRequest(id)
	t.mu.Lock()
	t.forgetLocked()
	t.mu.Unlock()
	return err
}

// answerRemoved answers everyone who still waits for a task that is no more.
func (s *Supervisor) answerRemoved(id string, code int) int {
	return s.waits.answer(id, code, func(task.WaitCondition) bool { return true })
}

// letGo closes everything that belongs to a task that does not run.
func (t *taskEntry) letGo() {
	t.mu.Lock()
	if t.timer != nil {
		t.timer.Stop()
		t.timer = nil
	}
	netns := t.netns
	t.netns = -1
	t.execs, t.order = nil, nil
	t.mu.Unlock()
	t.s.keep.drop(setName(t.id))
	if netns >= 0 {
		_ = unix.Close(netns)
	}
}

// ownerGone kills the tasks that die with a connection.
func (s *Supervisor) ownerGone(c *conn) {
	for _, t := range s.list() {
		t.mu.Lock()
		if t.owner == c && t.dies {
			t.stopping, t.st.Stopped = true, true
			_ = t.sendSignal(int(unix.SIGKILL))
		}
		t.mu.Unlock()
	}
}

// shutdown refuses new tasks if there is none and waits until all is cleaned
// up. The keeper is told to end the helpers once the daemon has its answer.
func (s *Supervisor) shutdown() error {
	s.mu.Lock()
	if n := len(s.tasks); n > 0 {
		s.mu.Unlock()
		return fmt.Errorf("%d tasks exist: %w", n, errdefs.ErrFailedPrecondition)
	}
	s.closing = true
	s.mu.Unlock()
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.cleaning.Wait()
	}()
	t := time.NewTimer(cleaningPatience)
	defer t.Stop()
	select {
	case <-done:
	case <-t.C:
		s.log.Warn("something is left behind that cannot be cleaned up")
	}
	return nil
}

// cleaningPatience bounds how long the end waits for the cleaning up.
const cleaningPatience = 5 * time.Second

// endHelpers ends all helpers, us included.
func (s *Supervisor) endHelpers() {
	if err := s.keep.shutdown(); err != nil {
		s.log.Error("cannot tell the keeper to end", "err", err)
	}
}
