package lifecycle

import (
	"cmp"
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/containerd/errdefs"
	apicontainer "github.com/moby/moby/api/types/container"
	apievents "github.com/moby/moby/api/types/events"

	"github.com/wherry-engine/wherry/container"
	"github.com/wherry-engine/wherry/task"
)

// refreshPatience bounds a question that can go without an answer.
const refreshPatience = time.Second

// unknownExit is the exit code when nobody was left to see the real one.
const unknownExit = 255

// applyTask brings a container's status in line with what the supervisor says
// of its task. The same news may come twice (an answer and an event); the
// second time nothing happens. The caller owns u. It reports whether the
// container is to be removed now.
func (e *Engine) applyTask(ctx context.Context, u *unit, t task.Status) (remove bool) {
	st := u.status.Load()
	if st.State == container.StateRemoving && t.State != task.Exited || stale(st, t) {
		return false
	}
	switch t.State {
	case task.Running, task.Paused:
		e.applyRunning(u, t)
	case task.Restarting:
		if st.State == container.StateRestarting && st.FinishedAt.Equal(t.FinishedAt) {
			return false
		}
		e.died(u, t)
		e.save(u, func(s *container.Status) {
			s.State, s.Pid = container.StateRestarting, 0
			exitedAs(s, t)
		})
		u.answer(waitResult(u.status.Load()), func(c container.WaitCondition) bool { return c == apicontainer.WaitConditionNextExit })
	case task.Exited:
		return e.applyExited(ctx, u, t)
	}
	return false
}

// stale reports whether news is older than what is known.
func stale(st *container.Status, t task.Status) bool {
	if !t.StartedAt.IsZero() && t.StartedAt.Before(st.StartedAt) {
		return true
	}
	if st.State.Up() || st.State == container.StateRemoving {
		return false
	}
	last := t.StartedAt
	if t.FinishedAt.After(last) {
		last = t.FinishedAt
	}
	return !last.After(st.FinishedAt)
}

func (e *Engine) save(u *unit, change func(*container.Status)) {
	if err := e.setStatus(u, change); err != nil {
		e.log.Error("save container status", "container", u.id, "err", err)
	}
}

func exitedAs(s *container.Status, t task.Status) {
	s.ExitCode, s.ExitUnknown, s.OOMKilled, s.Error = t.ExitCode, t.ExitUnknown, t.OOMKilled, t.Error
	s.FinishedAt, s.Restarts, s.LogTrouble = t.FinishedAt, t.Restarts, logTrouble(t)
	if s.FinishedAt.IsZero() {
		s.FinishedAt = time.Now().UTC()
	}
	if s.ExitUnknown && s.ExitCode == 0 {
		s.ExitCode = unknownExit
	}
}

// logTrouble puts into words what a task's log lacks.
func logTrouble(t task.Status) string {
	why := cmp.Or(t.LogError, "it came faster than the log was written")
	switch {
	case t.DroppedBytes > 0:
		return fmt.Sprintf("%d bytes of output are not in the log: %s", t.DroppedBytes, why)
	case t.LogStalled || t.LogError != "":
		return "log: " + why
	}
	return ""
}

// applyLog notes what is lost of a container's output.
func (e *Engine) applyLog(u *unit, t task.Status) {
	text := logTrouble(t)
	if text == u.status.Load().LogTrouble {
		return
	}
	e.save(u, func(s *container.Status) { s.LogTrouble = text })
	if text == "" {
		e.log.Info("the log is written again", "container", u.id)
		return
	}
	e.log.Warn("trouble with a container's log", "container", u.id, "dropped", t.DroppedBytes, "stalled", t.LogStalled, "err", t.LogError)
}

func (e *Engine) applyRunning(u *unit, t task.Status) {
	st := u.status.Load()
	state := container.StateRunning
	if t.State == task.Paused {
		state = container.StatePaused
	}
	if st.State == state && st.Pid == t.Pid && st.Restarts == t.Restarts {
		e.applyLog(u, t)
		return
	}
	restarted := st.Pid != t.Pid
	e.save(u, func(s *container.Status) {
		s.State, s.Pid, s.StartedAt, s.Restarts = state, t.Pid, t.StartedAt, t.Restarts
		s.OOMKilled, s.Error, s.Health, s.LogTrouble = false, "", "", logTrouble(t)
	})
	if restarted {
		e.emit(u, apievents.ActionStart, nil)
		u.forgetHealth()
		e.startProbe(u)
	}
}

// died publishes the end of a process and stops its health checks.
func (e *Engine) died(u *unit, t task.Status) {
	e.stopProbe(u)
	st := u.status.Load()
	end := t.FinishedAt
	if end.IsZero() {
		end = time.Now()
	}
	var ran time.Duration
	if !st.StartedAt.IsZero() {
		ran = max(end.Sub(st.StartedAt), 0)
	}
	e.emit(u, apievents.ActionDie, map[string]string{
		"exitCode": strconv.Itoa(t.ExitCode), "execDuration": strconv.Itoa(int(ran.Seconds())),
	})
}

// applyExited is the end of a container's present life.
func (e *Engine) applyExited(ctx context.Context, u *unit, t task.Status) (remove bool) {
	if !u.up() {
		return false
	}
	e.died(u, t)
	e.save(u, func(s *container.Status) {
		s.State, s.Pid = container.StateExited, 0
		exitedAs(s, t)
		s.StoppedByUser = s.StoppedByUser || t.Stopped
	})
	auto := u.spec.Load().HostConfig.AutoRemove
	if !auto {
		e.release(ctx, u, true)
	}
	u.exited(waitResult(u.status.Load()))
	return auto
}

// release gives back what only a running container holds. The task is kept
// when the container starts again at once: its end would be taken for the end
// of an AutoRemove container.
func (e *Engine) release(ctx context.Context, u *unit, forgetTask bool) {
	if err := e.closeNetwork(ctx, u); err != nil {
		e.log.Error("release network", "container", u.id, "err", err)
	}
	if err := e.volumes.Leave(ctx, u.spec.Load()); err != nil {
		e.log.Error("release volumes", "container", u.id, "err", err)
	}
	if forgetTask {
		if err := e.o.Tasks.Delete(ctx, string(u.id), false); err != nil && !errdefs.IsNotFound(err) {
			e.log.Error("forget task", "container", u.id, "err", err)
		}
	}
	if u.spec.Load().HostConfig.IpcMode.IsShareable() {
		if err := e.shm.Close(u.id); err != nil {
			e.log.Error("release shared memory", "container", u.id, "err", err)
		}
	}
	e.execs.Drop(u.id)
}

// refresh asks the supervisor, when the engine believes that a container runs
// and is about to decide on that: news of its end may still be on the way.
func (e *Engine) refresh(ctx context.Context, u *unit) {
	if !u.up() {
		return
	}
	qctx, cancel := context.WithTimeout(ctx, refreshPatience)
	t, err := e.o.Tasks.Status(qctx, string(u.id))
	cancel()
	if errdefs.IsNotFound(err) {
		t, err = e.lost(u), nil
	}
	if err != nil {
		return
	}
	if t.State == task.Exited && e.applyTask(ctx, u, t) {
		e.removeLater(u)
	}
}

// lost is the end of a task that the supervisor no longer knows.
func (e *Engine) lost(u *unit) task.Status {
	st := u.status.Load()
	return task.Status{
		ID: string(u.id), State: task.Exited, StartedAt: st.StartedAt, FinishedAt: time.Now().UTC(),
		ExitCode: unknownExit, ExitUnknown: true, Restarts: st.Restarts,
		Error: "the exit code is unknown: the helpers that held the container ended with it",
	}
}

// emit publishes an event of a container with the attributes all of them have.
func (e *Engine) emit(u *unit, action apievents.Action, extra map[string]string) {
	s := u.spec.Load()
	attrs := make(map[string]string, len(s.Config.Labels)+len(extra)+2)
	for k, v := range s.Config.Labels {
		attrs[k] = v
	}
	attrs["image"], attrs["name"] = s.Config.Image, s.Name
	for k, v := range extra {
		attrs[k] = v
	}
	e.o.Events.Publish(apievents.ContainerEventType, action, string(u.id), attrs)
}

func notRunning(u *unit) error {
	return conflict("container %s is not running", u.id)
}
