package lifecycle

import (
	"context"
	"errors"
	"time"

	"github.com/containerd/errdefs"
	apievents "github.com/moby/moby/api/types/events"

	"github.com/wherry-engine/wherry/container"
	"github.com/wherry-engine/wherry/engine/launch"
	"github.com/wherry-engine/wherry/engine/records"
	"github.com/wherry-engine/wherry/engine/undo"
	"github.com/wherry-engine/wherry/task"
)

// Start runs a created or exited container. NotModified if it runs already,
// Conflict (paused, being removed), InvalidArgument (nothing to execute).
func (e *Engine) Start(ctx context.Context, ref string) error {
	u, err := e.index.find(ref)
	if err != nil {
		return err
	}
	ctx = context.WithoutCancel(ctx)
	var remove bool
	err = u.owner.do(func() error {
		e.refresh(ctx, u)
		if err := startable(u); err != nil {
			return err
		}
		err := e.start(ctx, u)
		remove = err != nil && u.spec.Load().HostConfig.AutoRemove
		return err
	})
	if remove {
		if rerr := e.remove(ctx, u, container.DeleteRequest{Volumes: true}); rerr != nil {
			e.log.Error("remove container that did not start", "container", u.id, "err", rerr)
		}
	}
	return err
}

func startable(u *unit) error {
	if u.isGone() {
		return notFound(string(u.id))
	}
	switch u.status.Load().State {
	case container.StatePaused:
		return conflict("cannot start a paused container, try unpause instead")
	case container.StateRunning, container.StateRestarting:
		return errdefs.ErrNotModified.WithMessage("container " + string(u.id) + " is already running")
	case container.StateRemoving, container.StateDead:
		return conflict("container is marked for removal and cannot be started")
	}
	return nil
}

// start makes the task. The caller owns u.
func (e *Engine) start(ctx context.Context, u *unit) error {
	ph := newPhases()
	st, err := e.launch(ctx, u, ph)
	if err != nil {
		return e.startFailed(u, err)
	}
	serr := e.setStatus(u, func(s *container.Status) {
		*s = container.Status{Version: records.Version, State: container.StateRunning, Pid: st.Pid, StartedAt: st.StartedAt, FinishedAt: s.FinishedAt, IDs: s.IDs}
		if s.StartedAt.IsZero() {
			s.StartedAt = time.Now().UTC()
		}
	})
	if serr != nil {
		e.log.Error("container runs, but that could not be saved", "container", u.id, "err", serr)
	}
	ph.end("save")
	e.emit(u, apievents.ActionStart, ph.attrs())
	u.forgetHealth()
	e.startProbe(u)
	return nil
}

// startFailed records why, and frees what waited for the start.
func (e *Engine) startFailed(u *unit, err error) error {
	code, err := launch.ExplainStart(err)
	serr := e.setStatus(u, func(s *container.Status) {
		s.ExitCode, s.Error, s.Pid = code, err.Error(), 0
	})
	for _, a := range u.takeAttach() {
		_ = a.conn.Close()
	}
	return errors.Join(err, serr)
}

// launch prepares network, files, volumes and the configuration, and starts
// the task; on failure all of it is undone.
func (e *Engine) launch(ctx context.Context, u *unit, ph *phases) (st task.Status, err error) {
	var done undo.List
	defer func() {
		if err != nil {
			err = errors.Join(err, done.Run(ctx))
		}
	}()
	ids, err := e.startIDs(u)
	if err != nil {
		return st, err
	}
	joins, err := e.joins(u, ids)
	if err != nil {
		return st, err
	}
	if joins.LinkEnv, err = e.linkEnv(u.spec.Load()); err != nil {
		return st, err
	}
	if s := u.spec.Load(); s.HostConfig.IpcMode.IsShareable() {
		if joins.Shm, err = e.shm.Open(s.ID, s.HostConfig.ShmSize, ids); err != nil {
			return st, err
		}
		done.Add(func(context.Context) error { return e.shm.Close(u.id) })
	}
	netCh := e.openNetwork(ctx, u, ids, joins)
	sources, verr := e.volumes.Use(ctx, u.spec.Load(), &done)
	net := <-netCh
	done.Add(net.undo)
	if err := errors.Join(verr, net.err); err != nil {
		return st, firstOf(verr, net.err)
	}
	if net.ns != nil {
		defer net.ns.Close()
	}
	ph.end("network and volumes")
	files, err := e.writeFiles(u, net)
	if err != nil {
		return st, err
	}
	root, err := e.describeRoot(ctx, u.id, ids)
	if err != nil {
		return st, err
	}
	req, err := launch.Message(launch.Input{
		Container: u.spec.Load(), Defaults: e.defaults.Load(), Root: root, IDs: ids, Files: files, Sources: sources, Joins: joins,
	})
	if err != nil {
		return st, err
	}
	ph.end("files and spec")
	sf := task.StartFiles{NetNS: net.ns}
	attach := u.takeAttach()
	if len(attach) > 0 {
		sf.Attach, sf.AttachRequest = attach[0].conn, attach[0].req
		defer attach[0].conn.Close()
	}
	st, err = e.startTask(ctx, req, sf)
	ph.add("to the supervisor and back", st.Phases)
	if err != nil {
		for _, a := range attach[min(1, len(attach)):] {
			_ = a.conn.Close()
		}
		return st, launch.CreateError(err)
	}
	if len(attach) > 1 {
		e.attachRest(ctx, u, attach[1:])
	}
	return st, nil
}

// startTask starts the task. If the supervisor is lost meanwhile, the next one
// knows whether the task was started.
func (e *Engine) startTask(ctx context.Context, req task.StartRequest, sf task.StartFiles) (task.Status, error) {
	var st task.Status
	first := true
	err := persist(func() (err error) {
		if !first {
			if st, err = e.o.Tasks.Status(ctx, req.ID); !errdefs.IsNotFound(err) {
				return err
			}
		}
		first = false
		st, err = e.o.Tasks.Start(ctx, req, sf)
		return err
	})
	if errdefs.IsAlreadyExists(err) { // left over from before a crash
		if derr := e.o.Tasks.Delete(ctx, req.ID, true); derr == nil {
			return e.o.Tasks.Start(ctx, req, sf)
		}
	}
	return st, err
}

// stopTask stops the task, also if the supervisor is replaced meanwhile.
func (e *Engine) stopTask(ctx context.Context, id string, sig int, timeout time.Duration) (task.Status, error) {
	var st task.Status
	err := persist(func() (err error) {
		st, err = e.o.Tasks.Stop(ctx, id, sig, timeout)
		return err
	})
	return st, err
}

// attempts bounds how many supervisors may be lost under one operation.
const attempts = 5

// lossNotice is how long it may take to see that a connection is dead.
const lossNotice = 20 * time.Millisecond

// persist repeats what may be repeated while the supervisor is lost. Calls wait
// by themselves for the next one, once the loss was seen.
func persist(f func() error) error {
	for n := 1; ; n++ {
		err := f()
		if !errdefs.IsUnavailable(err) || n == attempts {
			return err
		}
		<-time.After(time.Duration(n) * lossNotice)
	}
}

func firstOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
