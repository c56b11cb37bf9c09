package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/container"
	"github.com/wherry-engine/wherry/engine/netconfig"
	"github.com/wherry-engine/wherry/network"
	"github.com/wherry-engine/wherry/task"
)

// Boot takes the supervisor over and brings every container in line with what
// became of it: exit codes and restarts of the time without a daemon are
// learned, interrupted creations are undone, interrupted removals finished.
// Running containers are not touched.
func (e *Engine) Boot(ctx context.Context) error {
	e.run, e.stop = context.WithCancel(context.WithoutCancel(ctx))
	for _, u := range e.index.all() {
		if err := e.volumes.Hold(ctx, u.spec.Load(), u.up()); err != nil {
			e.log.Error("hold the volumes of a container", "container", u.id, "err", err)
		}
	}
	inv, err := e.o.Tasks.Hello(ctx)
	if err != nil {
		return fmt.Errorf("take over the supervisor: %w", err)
	}
	e.noteReplaced(inv)
	tasks := byID(inv)
	if err := e.restoreNetworks(ctx, tasks); err != nil {
		return err
	}
	var again []*unit
	for _, u := range e.index.all() {
		if e.reconcile(ctx, u, tasks) {
			again = append(again, u)
		}
	}
	e.DeleteStrays(ctx, e.o.Tasks, inv)
	for i := range inv.Execs {
		e.execs.Learn(inv.Execs[i])
	}
	e.collect(ctx)
	e.reaper.now(func() { e.startAgain(again) })
	return nil
}

// DeleteStrays deletes the tasks of an inventory that have no container, and with
// them the waits of their clients, over the connection that it came from.
func (e *Engine) DeleteStrays(ctx context.Context, tasks interface {
	Delete(ctx context.Context, id string, force bool) error
}, inv task.Inventory) {
	ids := inv.Waits
	for _, t := range inv.Tasks {
		ids = append(ids, t.ID)
	}
	for _, id := range ids {
		if e.index.get(container.ID(id)) != nil {
			continue
		}
		if err := tasks.Delete(ctx, id, true); err != nil && !errdefs.IsNotFound(err) {
			e.log.Error("delete a task without container", "task", id, "err", err)
		}
	}
}

func byID(inv task.Inventory) map[string]task.Status {
	out := make(map[string]task.Status, len(inv.Tasks))
	for _, t := range inv.Tasks {
		out[t.ID] = t
	}
	return out
}

func lives(t task.Status) bool {
	return t.State == task.Running || t.State == task.Paused || t.State == task.Restarting
}

// restoreNetworks tells the network which sandboxes live.
func (e *Engine) restoreNetworks(ctx context.Context, tasks map[string]task.Status) error {
	live := map[network.SandboxID]*os.File{}
	defer func() {
		for _, f := range live {
			_ = f.Close() // of nil: nothing
		}
	}()
	for _, u := range e.index.all() {
		s := u.spec.Load()
		t, ok := tasks[string(u.id)]
		if !ok || !lives(t) || !netconfig.HasSandbox(s.HostConfig) {
			continue
		}
		ns, err := e.o.Tasks.NetNS(ctx, string(u.id))
		if err != nil { // it lives all the same
			e.log.Error("find network namespace", "container", u.id, "err", err)
		}
		live[network.SandboxID(s.Sandbox)] = ns
	}
	if err := e.o.Sandboxes.Restore(ctx, live); err != nil {
		return fmt.Errorf("restore networks: %w", err)
	}
	return nil
}

// reconcile applies what happened to one container. It reports whether its
// restart policy wants it started now.
func (e *Engine) reconcile(ctx context.Context, u *unit, tasks map[string]task.Status) (again bool) {
	t, known := tasks[string(u.id)]
	remove := false
	err := u.owner.do(func() error {
		st := u.status.Load()
		if st.State == container.StateRemoving || st.State == container.StateDead {
			if known {
				_, err := e.endTask(ctx, u, int(unix.SIGKILL), 0, bootPatience)
				if errors.Is(err, errStuck) {
					e.removeStuck(u, u.spec.Load().HostConfig.AutoRemove)
				}
				if err != nil && !errdefs.IsNotFound(err) {
					return err
				}
			}
			return e.finishRemove(ctx, u, u.spec.Load().HostConfig.AutoRemove, true)
		}
		switch {
		case known && lives(t) && !u.up():
			// Started, but the daemon was killed before it wrote that down.
			e.save(u, func(s *container.Status) { s.State, s.StartedAt = container.StateRunning, t.StartedAt })
			e.applyRunning(u, t)
			e.startProbe(u)
		case known:
			if unheard(u.status.Load(), t) { // and was not there at the end, either
				e.save(u, func(s *container.Status) { s.State, s.StartedAt = container.StateRunning, t.StartedAt })
			}
			remove = e.applyTask(ctx, u, t)
			if u.up() {
				e.startProbe(u)
			}
		case u.up():
			remove = e.applyTask(ctx, u, e.lost(u))
		}
		// Its end may be written down, and the daemon killed before the removal
		// began; or it was made, and whoever wanted to start it has been cut off.
		remove = remove || !u.up() && u.spec.Load().HostConfig.AutoRemove
		return nil
	})
	if err != nil {
		e.log.Error("reconcile container", "container", u.id, "err", err)
	}
	if remove {
		e.removeLater(u)
		return false
	}
	return !u.isGone() && !u.up() && wantsStart(u)
}

// unheard tells whether a task that has ended had a life that is not written down.
func unheard(st *container.Status, t task.Status) bool {
	return t.State == task.Exited && !st.State.Up() && !t.StartedAt.IsZero() && t.StartedAt.After(st.FinishedAt)
}

// wantsStart is the restart policy at the start of the daemon.
func wantsStart(u *unit) bool {
	st, p := u.status.Load(), u.spec.Load().HostConfig.RestartPolicy
	if st.State != container.StateExited {
		return false
	}
	switch {
	case p.IsAlways():
		return true
	case p.IsUnlessStopped():
		return !st.StoppedByUser
	case p.IsOnFailure():
		return st.ExitUnknown && !st.StoppedByUser
	}
	return false
}

// startAgain starts containers by their policy, oldest first.
func (e *Engine) startAgain(units []*unit) {
	for i := len(units) - 1; i >= 0; i-- {
		if e.run.Err() != nil {
			return
		}
		if err := e.Start(e.run, string(units[i].id)); err != nil && !errdefs.IsNotModified(err) {
			e.log.Error("start container by its restart policy", "container", units[i].id, "err", err)
		}
	}
}

// collect removes what belongs to no container: the remains of creations and
// removals that a crash interrupted.
func (e *Engine) collect(ctx context.Context) {
	layers, err := e.o.Layers.List(ctx)
	if err != nil {
		e.log.Error("list writable layers", "err", err)
	}
	if err == nil {
		e.bury(layers)
	}
	for _, id := range layers {
		if e.index.get(id) == nil && len(id) == 64 {
			e.reaper.now(func() { e.removeFiles(context.WithoutCancel(ctx), id) })
		}
	}
	dirs, err := os.ReadDir(filepath.Join(e.o.DataRoot, "containers"))
	if err != nil {
		e.log.Error("list container directories", "err", err)
	}
	for _, d := range dirs {
		if e.index.get(container.ID(d.Name())) == nil {
			e.reaper.now(func() { e.removeFiles(context.WithoutCancel(ctx), container.ID(d.Name())) })
		}
	}
	if err := e.shm.Collect(e.isUp); err != nil {
		e.log.Error("release shared memory", "err", err)
	}
	if err := e.volumes.Collect(ctx, e.exists); err != nil {
		e.log.Error("release volumes of containers that are gone", "err", err)
	}
}

func (e *Engine) exists(id container.ID) bool { return e.index.get(id) != nil }

// isUp reports whether there is such a container and it runs.
func (e *Engine) isUp(id container.ID) bool {
	u := e.index.get(id)
	return u != nil && u.up()
}

// bury marks containers whose writable layer is gone: nothing can be done with
// them but removing them.
func (e *Engine) bury(layers []container.ID) {
	for _, u := range e.index.all() {
		if u.up() || slices.Contains(layers, u.id) {
			continue
		}
		_ = u.owner.do(func() error {
			if st := u.status.Load().State; !u.isGone() && (st == container.StateCreated || st == container.StateExited) {
				e.log.Error("container lost its writable layer", "container", u.id)
				e.save(u, func(s *container.Status) { s.State, s.Error = container.StateDead, "the writable layer is missing" })
			}
			return nil
		})
	}
}
