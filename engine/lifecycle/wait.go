package lifecycle

import (
	"context"
	"slices"

	"github.com/containerd/errdefs"
	apicontainer "github.com/moby/moby/api/types/container"

	"github.com/wherry-engine/wherry/container"
	"github.com/wherry-engine/wherry/engine/handoff"
	"github.com/wherry-engine/wherry/task"
)

// waiter is a wait that this daemon answers.
type waiter struct {
	cond container.WaitCondition
	ch   chan container.WaitResult // of one
}

func waitResult(st *container.Status) container.WaitResult {
	return container.WaitResult{ExitCode: st.ExitCode, Error: st.Error}
}

// Wait waits for a condition. InvalidArgument for an unknown one.
func (e *Engine) Wait(ctx context.Context, ref string, req container.WaitRequest) (container.WaitResult, error) {
	u, err := e.index.find(ref)
	if err != nil {
		return container.WaitResult{}, err
	}
	switch req.Condition {
	case "":
		req.Condition = apicontainer.WaitConditionNotRunning
	case apicontainer.WaitConditionNotRunning, apicontainer.WaitConditionNextExit, apicontainer.WaitConditionRemoved:
	default:
		return container.WaitResult{}, invalid("invalid condition: %q", req.Condition)
	}
	var w *waiter
	var result container.WaitResult
	err = u.owner.do(func() (err error) {
		result, w, err = e.enterWait(context.WithoutCancel(ctx), u, req)
		return err
	})
	if err != nil || w == nil {
		return result, err
	}
	if req.Begin != nil {
		req.Begin()
	}
	select {
	case r := <-w.ch:
		return r, nil
	case <-ctx.Done():
		u.leave(w)
		return container.WaitResult{}, ctx.Err()
	case <-e.run.Done():
		u.leave(w)
		return container.WaitResult{}, errdefs.ErrUnavailable.WithMessage("the daemon is shutting down")
	}
}

// enterWait answers a wait at once, gives its connection away, or returns a
// waiter. The caller owns u.
func (e *Engine) enterWait(ctx context.Context, u *unit, req container.WaitRequest) (container.WaitResult, *waiter, error) {
	e.refresh(ctx, u)
	st := u.status.Load()
	up := u.up()
	if u.isGone() || req.Condition == apicontainer.WaitConditionNotRunning && !up {
		return waitResult(st), nil, nil
	}
	// A removal is announced by the supervisor only where it ends with the task.
	spec := u.spec.Load()
	byTask := req.Condition != apicontainer.WaitConditionRemoved || spec.HostConfig.AutoRemove
	if req.Hand == nil || !byTask || st.State == container.StateRemoving {
		return container.WaitResult{}, u.join(req.Condition), nil
	}
	conn, err := req.Hand()
	if err != nil {
		return container.WaitResult{}, nil, err
	}
	f, err := handoff.File(conn)
	if err != nil {
		return container.WaitResult{}, nil, err
	}
	defer f.Close()
	u.watch()
	if err := e.o.Tasks.HandWait(ctx, string(u.id), task.WaitCondition(req.Condition), f); err != nil {
		handoff.WriteWait(f, container.WaitResult{ExitCode: -1, Error: err.Error()})
	}
	return container.WaitResult{Handed: true}, nil, nil
}

func (u *unit) join(cond container.WaitCondition) *waiter {
	w := &waiter{cond: cond, ch: make(chan container.WaitResult, 1)}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.handle.waiters = append(u.handle.waiters, w)
	return w
}

func (u *unit) leave(w *waiter) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.handle.waiters = slices.DeleteFunc(u.handle.waiters, func(x *waiter) bool { return x == w })
}

// exited answers the waits for the end of a process.
func (u *unit) exited(r container.WaitResult) {
	u.answer(r, func(c container.WaitCondition) bool { return c != apicontainer.WaitConditionRemoved })
}

// removed answers all waits: there is nothing left to wait for.
func (u *unit) removed(r container.WaitResult) {
	u.mu.Lock()
	u.handle.gone = true
	attach := u.handle.attach
	u.handle.attach = nil
	u.mu.Unlock()
	for _, a := range attach {
		_ = a.conn.Close()
	}
	u.answer(r, func(container.WaitCondition) bool { return true })
}

func (u *unit) answer(r container.WaitResult, which func(container.WaitCondition) bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.handle.waiters = slices.DeleteFunc(u.handle.waiters, func(w *waiter) bool {
		if which(w.cond) {
			w.ch <- r
			return true
		}
		return false
	})
}

// orGone explains an error by the removal that caused it, if there is one.
func (u *unit) orGone(err error) error {
	switch {
	case u.isGone():
		return notFound(string(u.id))
	case u.status.Load().State == container.StateRemoving:
		return conflict("container %s is being removed", u.id)
	}
	return err
}

func (u *unit) watch() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.handle.watched = true
}

func (u *unit) isWatched() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.handle.watched
}

func (u *unit) isGone() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.handle.gone
}

// takeAttach removes the connections that wait for the start.
func (u *unit) takeAttach() []pending {
	u.mu.Lock()
	defer u.mu.Unlock()
	out := u.handle.attach
	u.handle.attach = nil
	return out
}
