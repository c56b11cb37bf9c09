package lifecycle

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/containerd/errdefs"
	apicontainer "github.com/moby/moby/api/types/container"
	apievents "github.com/moby/moby/api/types/events"
	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/container"
	"github.com/wherry-engine/wherry/engine/check"
	"github.com/wherry-engine/wherry/task"
)

const defaultStopTimeout = 10 // seconds

// stopWith returns the signal and the timeout of a stop.
func stopWith(c *apicontainer.Config, req container.StopRequest) (int, time.Duration, error) {
	name := "SIGTERM"
	if c.StopSignal != "" {
		name = c.StopSignal
	}
	if req.Signal != "" {
		name = req.Signal
	}
	sig, err := check.Signal(name)
	if err != nil {
		return 0, 0, err
	}
	secs := defaultStopTimeout
	if c.StopTimeout != nil {
		secs = *c.StopTimeout
	}
	if req.Timeout != nil {
		secs = *req.Timeout
	}
	return sig, time.Duration(secs) * time.Second, nil
}

// Stop ends a container. NotModified if it does not run.
func (e *Engine) Stop(ctx context.Context, ref string, req container.StopRequest) error {
	u, err := e.index.find(ref)
	if err != nil {
		return err
	}
	sig, timeout, err := stopWith(u.spec.Load().Config, req)
	if err != nil {
		return err
	}
	ctx = context.WithoutCancel(ctx)
	if err := u.owner.do(func() error {
		e.refresh(ctx, u)
		if !u.up() {
			return errdefs.ErrNotModified.WithMessage("container is already stopped")
		}
		e.save(u, func(s *container.Status) { s.StoppedByUser = true })
		return nil
	}); err != nil {
		return err
	}
	if err := e.halt(ctx, u, sig, timeout); err != nil {
		return fmt.Errorf("cannot stop container: %s: %w", ref, err)
	}
	e.emit(u, apievents.ActionStop, nil)
	return nil
}

// halt stops the task and applies its end. Nobody owns u meanwhile, so that it
// can be killed or inspected.
func (e *Engine) halt(ctx context.Context, u *unit, sig int, timeout time.Duration) error {
	e.emit(u, apievents.ActionKill, map[string]string{"signal": strconv.Itoa(sig)})
	if u.status.Load().State == container.StatePaused {
		if err := e.o.Tasks.Resume(ctx, string(u.id)); err != nil && !errdefs.IsNotFound(err) && !errdefs.IsFailedPrecondition(err) {
			return err
		}
	}
	t, err := e.endTask(ctx, u, sig, timeout, killPatience)
	if errdefs.IsNotFound(err) {
		t, err = e.lost(u), nil
	}
	if err != nil {
		return err
	}
	return u.owner.do(func() error {
		if e.applyTask(ctx, u, t) {
			e.removeLater(u)
		}
		return nil
	})
}

// Kill sends a signal; SIGKILL also ends restarting. Conflict if it does not run.
func (e *Engine) Kill(ctx context.Context, ref, signal string) error {
	u, err := e.index.find(ref)
	if err != nil {
		return err
	}
	if signal == "" {
		signal = "SIGKILL"
	}
	sig, err := check.Signal(signal)
	if err != nil {
		return err
	}
	ctx = context.WithoutCancel(ctx)
	if err := u.owner.do(func() error {
		e.refresh(ctx, u)
		if !u.up() {
			return conflict("cannot kill container: %s: container %s is not running", ref, u.id)
		}
		return nil
	}); err != nil {
		return err
	}
	stopSig, _, err := stopWith(u.spec.Load().Config, container.StopRequest{})
	if sig == int(unix.SIGKILL) || err == nil && sig == stopSig {
		_ = u.owner.do(func() error {
			e.save(u, func(s *container.Status) { s.StoppedByUser = true })
			return nil
		})
	}
	if sig == int(unix.SIGKILL) {
		if err := e.halt(ctx, u, sig, -1); err != nil {
			return fmt.Errorf("cannot kill container: %s: %w", ref, err)
		}
		return nil
	}
	if err == nil && sig == stopSig {
		// The user wants it to end: no restart follows.
		no := task.RestartPolicy{Name: string(apicontainer.RestartPolicyDisabled)}
		if err := e.o.Tasks.Update(ctx, string(u.id), task.UpdateRequest{Restart: &no}); err != nil {
			e.log.Warn("end restarting", "container", u.id, "err", err)
		}
	}
	e.emit(u, apievents.ActionKill, map[string]string{"signal": strconv.Itoa(sig)})
	err = e.o.Tasks.Signal(ctx, string(u.id), "", sig)
	if errdefs.IsNotFound(err) || errdefs.IsFailedPrecondition(err) {
		return conflict("cannot kill container: %s: container %s is not running", ref, u.id)
	}
	return err
}

// Restart stops a container if it runs, and starts it.
func (e *Engine) Restart(ctx context.Context, ref string, req container.StopRequest) error {
	u, err := e.index.find(ref)
	if err != nil {
		return err
	}
	sig, timeout, err := stopWith(u.spec.Load().Config, req)
	if err != nil {
		return err
	}
	ctx = context.WithoutCancel(ctx)
	u.mu.Lock()
	u.handle.restarting++
	u.mu.Unlock()
	defer func() {
		u.mu.Lock()
		u.handle.restarting--
		u.mu.Unlock()
	}()
	if u.up() {
		if err := e.halt(ctx, u, sig, timeout); err != nil {
			return fmt.Errorf("cannot restart container: %s: %w", ref, err)
		}
	}
	err = u.owner.do(func() error {
		switch err := startable(u); {
		case errdefs.IsNotModified(err):
			return nil // somebody else started it
		case err != nil:
			return err
		}
		e.save(u, func(s *container.Status) { s.StoppedByUser = false })
		return e.start(ctx, u)
	})
	if err != nil {
		return fmt.Errorf("cannot restart container: %s: %w", ref, err)
	}
	e.emit(u, apievents.ActionRestart, nil)
	return nil
}

// Pause freezes a container. Conflict.
func (e *Engine) Pause(ctx context.Context, ref string) error {
	return e.freeze(ctx, ref, func(u *unit) error {
		switch u.status.Load().State {
		case container.StateRunning:
		case container.StatePaused:
			return conflict("container %s is already paused", u.id)
		case container.StateRestarting:
			return conflict("container %s is restarting, wait until the container is running", u.id)
		default:
			return notRunning(u)
		}
		u.freeze.Lock()
		err := e.o.Tasks.Pause(ctx, string(u.id))
		if err == nil {
			e.save(u, func(s *container.Status) { s.State = container.StatePaused })
		}
		u.freeze.Unlock() // before the health checks are awaited: they execute
		if err != nil {
			return fmt.Errorf("cannot pause container %s: %w", ref, err)
		}
		e.stopProbe(u)
		e.emit(u, apievents.ActionPause, nil)
		return nil
	})
}

// Unpause thaws a container. Conflict.
func (e *Engine) Unpause(ctx context.Context, ref string) error {
	return e.freeze(ctx, ref, func(u *unit) error {
		if u.status.Load().State != container.StatePaused {
			return conflict("container %s is not paused", u.id)
		}
		if err := e.o.Tasks.Resume(ctx, string(u.id)); err != nil {
			return fmt.Errorf("cannot resume container %s: %w", ref, err)
		}
		e.save(u, func(s *container.Status) { s.State = container.StateRunning })
		e.startProbe(u)
		e.emit(u, apievents.ActionUnPause, nil)
		return nil
	})
}

func (e *Engine) freeze(ctx context.Context, ref string, fn func(*unit) error) error {
	u, err := e.index.find(ref)
	if err != nil {
		return err
	}
	return u.owner.do(func() error {
		e.refresh(context.WithoutCancel(ctx), u)
		return fn(u)
	})
}

// Resize sets the size of a container's terminal. Conflict.
func (e *Engine) Resize(ctx context.Context, ref string, height, width int) error {
	u, err := e.index.find(ref)
	if err != nil {
		return err
	}
	if !u.up() {
		return notRunning(u)
	}
	if err := e.o.Tasks.Resize(ctx, string(u.id), "", width, height); err != nil {
		return err
	}
	e.emit(u, apievents.ActionResize, map[string]string{"height": strconv.Itoa(height), "width": strconv.Itoa(width)})
	return nil
}

// Shutdown stops all running containers, for a daemon that does not leave them
// running.
func (e *Engine) Shutdown(ctx context.Context) error {
	type result struct {
		u   *unit
		err error
	}
	ch := make(chan result)
	n := 0
	for _, u := range e.index.all() {
		if !u.up() {
			continue
		}
		n++
		go func() {
			timeout := e.defaults.Load().ShutdownTimeout
			ch <- result{u, e.shutdownOne(ctx, u, timeout)}
		}()
	}
	var first error
	for range n {
		if r := <-ch; r.err != nil {
			e.log.Error("stop container at shutdown", "container", r.u.id, "err", r.err)
			first = fmt.Errorf("stop container %s: %w", r.u.id.Short(), r.err)
		}
	}
	return first
}

// shutdownOne stops a container without marking it as stopped by its user, so
// that its restart policy starts it with the next daemon.
func (e *Engine) shutdownOne(ctx context.Context, u *unit, timeout int) error {
	sig, wait, err := stopWith(u.spec.Load().Config, container.StopRequest{})
	if err != nil {
		return err
	}
	if limit := time.Duration(timeout) * time.Second; wait < 0 || wait > limit {
		wait = limit
	}
	before := u.status.Load().StoppedByUser
	err = e.halt(ctx, u, sig, wait)
	_ = u.owner.do(func() error {
		e.save(u, func(s *container.Status) { s.StoppedByUser = before })
		return nil
	})
	return err
}
