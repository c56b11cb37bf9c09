package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/containerd/errdefs"
	apievents "github.com/moby/moby/api/types/events"
	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/container"
)

// Delete removes a container. Conflict if it runs and force is not set, or its
// removal is under way.
func (e *Engine) Delete(ctx context.Context, ref string, req container.DeleteRequest) error {
	u, err := e.index.find(ref)
	if err != nil {
		return err
	}
	if req.Link {
		return errdefs.ErrNotImplemented.WithMessage("removing a link alone is not supported by this engine")
	}
	return e.remove(context.WithoutCancel(ctx), u, req)
}

// remove ends a container for good. When it returns nil the process is dead
// and the name, addresses, ports and references are free; its private
// directories follow.
func (e *Engine) remove(ctx context.Context, u *unit, req container.DeleteRequest) error {
	wasUp, err := e.beginRemove(ctx, u, req.Force)
	if err != nil {
		return err
	}
	if wasUp { // or about to be restarted
		_, err := e.endTask(ctx, u, int(unix.SIGKILL), 0, killPatience)
		if errors.Is(err, errStuck) {
			e.removeStuck(u, req.Volumes)
			return fmt.Errorf("container %s is removed as soon as it ends, and not before: %w", u.name(), err)
		}
		if err != nil && !errdefs.IsNotFound(err) {
			return e.cannotRemove(u, fmt.Errorf("could not kill container: %w", err))
		}
	}
	return u.owner.do(func() error { return e.finishRemove(ctx, u, req.Volumes, wasUp) })
}

// beginRemove marks the container, so that a crash from here on goes on with
// the removal. It reports whether the container was up. Conflict.
func (e *Engine) beginRemove(ctx context.Context, u *unit, force bool) (wasUp bool, err error) {
	err = u.owner.do(func() error {
		if u.isGone() {
			return notFound(string(u.id))
		}
		e.refresh(ctx, u)
		st := u.status.Load()
		switch {
		case st.State == container.StateRemoving:
			return conflict("removal of container %s is already in progress", u.name())
		case st.State == container.StatePaused && !force:
			return conflict("cannot remove container %q: container is paused and must be unpaused first", "/"+u.name())
		case u.up() && !force:
			return conflict("cannot remove container %q: container is %s: stop the container before removing or force remove", "/"+u.name(), st.State)
		}
		wasUp = u.up()
		if wasUp {
			e.emit(u, apievents.ActionKill, map[string]string{"signal": "9"})
		}
		e.save(u, func(s *container.Status) {
			s.State = container.StateRemoving
			if !wasUp {
				s.Pid = 0
			}
		})
		return nil
	})
	return wasUp, err
}

func (e *Engine) cannotRemove(u *unit, err error) error {
	return u.owner.do(func() error {
		e.save(u, func(s *container.Status) { s.State, s.Error = container.StateDead, err.Error() })
		return err
	})
}

// finishRemove gives back everything. Every step may be repeated. The caller owns u.
func (e *Engine) finishRemove(ctx context.Context, u *unit, volumes, wasUp bool) error {
	ph := newPhases()
	s, st := u.spec.Load(), u.status.Load()
	result := waitResult(st)
	if st.Pid != 0 {
		if t, err := e.o.Tasks.Status(ctx, string(u.id)); err == nil {
			e.died(u, t)
			result.ExitCode = t.ExitCode
		}
	}
	e.stopProbe(u)
	ph.end("status")
	errs := []error{e.closeNetwork(ctx, u)}
	ph.end("network")
	if wasUp || s.HostConfig.AutoRemove {
		errs = append(errs, e.volumes.Leave(ctx, s))
	}
	errs = append(errs, e.volumes.Drop(ctx, s, volumes || s.HostConfig.AutoRemove))
	if err := errors.Join(errs...); err != nil {
		e.log.Error("release what a removed container held", "container", u.id, "err", err)
	}
	ph.end("volumes")
	if err := e.records.Delete(u.id); err != nil {
		return fmt.Errorf("save the removal of container %s: %w", u.id.Short(), err)
	}
	if s.HostConfig.IpcMode.IsShareable() {
		if err := e.shm.Close(u.id); err != nil {
			e.log.Error("release shared memory", "container", u.id, "err", err)
		}
	}
	ph.end("save")
	e.index.remove(u)
	e.execs.Drop(u.id)
	u.removed(result)
	e.emit(u, apievents.ActionDestroy, ph.attrs())
	ctx = context.WithoutCancel(ctx)
	e.reaper.do(func() { // nobody has to wait for that
		err := persist(func() error { return e.o.Tasks.Delete(ctx, string(u.id), true) })
		if err != nil && !errdefs.IsNotFound(err) {
			e.log.Error("forget task", "container", u.id, "err", err)
		}
		e.removeFiles(ctx, u.id)
	})
	return nil
}

// removeFiles deletes what belongs to the container alone. What a crash leaves
// is found at the next start.
func (e *Engine) removeFiles(ctx context.Context, id container.ID) {
	if err := errors.Join(e.o.Layers.Remove(ctx, id), os.RemoveAll(e.dir(id))); err != nil {
		e.log.Error("remove files of container", "container", id, "err", err)
	}
}

// removeLater removes an AutoRemove container that ended, unless it is about
// to be started again.
func (e *Engine) removeLater(u *unit) {
	u.mu.Lock()
	again := u.handle.restarting > 0
	u.mu.Unlock()
	if again {
		e.release(context.WithoutCancel(e.run), u, false)
		return
	}
	e.reaper.now(func() {
		err := e.remove(context.WithoutCancel(e.run), u, container.DeleteRequest{Volumes: true})
		if err != nil && !errdefs.IsNotFound(err) && !errdefs.IsConflict(err) {
			e.log.Error("remove container after its end", "container", u.id, "err", err)
		}
	})
}

// reaper runs what may lag behind; it is bounded by making its users wait.
type reaper struct {
	once sync.Once
	slot chan struct{}
	all  sync.WaitGroup
}

const reapQueue = 64

func (r *reaper) init() { r.once.Do(func() { r.slot = make(chan struct{}, reapQueue) }) }

// do runs fn soon.
func (r *reaper) do(fn func()) {
	r.init()
	r.slot <- struct{}{}
	r.all.Go(func() {
		defer func() { <-r.slot }()
		fn()
	})
}

// now runs fn in a goroutine of its own.
func (r *reaper) now(fn func()) { r.all.Go(fn) }

func (r *reaper) wait() { r.all.Wait() }
