// Package exec keeps the further processes of containers: what was asked for,
// the message that starts it, and how it runs or ended. It starts none.
package exec

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	apicontainer "github.com/moby/moby/api/types/container"

	"github.com/wherry-engine/wherry/container"
	"github.com/wherry-engine/wherry/engine/naming"
	"github.com/wherry-engine/wherry/task"
)

// keepExec is how long a finished exec can still be inspected.
const keepExec = 5 * time.Minute

// Exec is one exec of a container. The registry's lock guards what changes.
type Exec struct {
	ID        string
	Container container.ID
	Request   apicontainer.ExecCreateRequest
	Probe     bool // of a health check: not listed
	done      chan struct{}
	status    task.ExecStatus

	// cancel ends the request that starts it; nil before and after.
	cancel context.CancelFunc

	started, ended bool
	endedAt        time.Time
}

// New makes an exec of a container that is not started yet.
func New(id container.ID, req apicontainer.ExecCreateRequest) *Exec {
	return &Exec{ID: string(naming.NewID()), Container: id, Request: req, done: make(chan struct{})}
}

// NewProbe makes the exec of a health check, whose start follows at once.
func NewProbe(id container.ID, cmd []string) *Exec {
	ex := New(id, apicontainer.ExecCreateRequest{Cmd: cmd, AttachStdout: true, AttachStderr: true})
	ex.Probe, ex.started = true, true
	return ex
}

// Done is closed when the exec has ended.
func (ex *Exec) Done() <-chan struct{} { return ex.done }

// State is what is known of an exec at one moment.
type State struct {
	Started, Ended bool
	Status         task.ExecStatus
}

// Registry has the execs of all containers. They are not persisted: what runs is
// learned again from the supervisor.
type Registry struct {
	mu    sync.Mutex
	all   map[string]*Exec
	ended []*Exec // in the order in which they ended
}

// Add takes an exec up, and forgets those that ended long ago.
func (x *Registry) Add(ex *Exec) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.all == nil {
		x.all = map[string]*Exec{}
	}
	for len(x.ended) > 0 && time.Since(x.ended[0].endedAt) > keepExec {
		delete(x.all, x.ended[0].ID)
		x.ended = x.ended[1:]
	}
	x.all[ex.ID] = ex
}

// Get finds an exec by its full ID. NotFound.
func (x *Registry) Get(id string) (*Exec, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if ex := x.all[id]; ex != nil {
		return ex, nil
	}
	return nil, errdefs.ErrNotFound.WithMessage("No such exec instance: " + id)
}

// Begin marks an exec as started. Conflict if it was before.
func (x *Registry) Begin(ex *Exec) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if ex.ended {
		return errdefs.ErrConflict.WithMessage("Error: Exec command " + ex.ID + " has already run")
	}
	if ex.started {
		return errdefs.ErrConflict.WithMessage("Error: Exec command " + ex.ID + " is already running")
	}
	ex.started = true
	return nil
}

// Starting returns the context of a start, which ends with the container.
func (x *Registry) Starting(ctx context.Context, ex *Exec) (context.Context, context.CancelFunc) {
	x.mu.Lock()
	defer x.mu.Unlock()
	ctx, cancel := context.WithCancel(ctx)
	ex.cancel = cancel
	return ctx, func() {
		cancel()
		x.mu.Lock()
		defer x.mu.Unlock()
		ex.cancel = nil
	}
}

// Running records the answer to a start; news of the end may have come before it.
func (x *Registry) Running(ex *Exec, st task.ExecStatus) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if !ex.ended {
		ex.status = st
	}
}

// Finish ends an exec that did not start.
func (x *Registry) Finish(ex *Exec, code int) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.finishLocked(ex, code)
}

func (x *Registry) finishLocked(ex *Exec, code int) bool {
	if ex.ended {
		return false
	}
	ex.ended, ex.endedAt = true, time.Now()
	ex.status.Running, ex.status.ExitCode = false, code
	close(ex.done)
	x.ended = append(x.ended, ex)
	return true
}

// Learn applies what the supervisor says of an exec. It reports whether the
// exec ended by it.
func (x *Registry) Learn(st task.ExecStatus) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	ex := x.all[st.ExecID]
	if ex == nil {
		if x.all == nil {
			x.all = map[string]*Exec{}
		}
		ex = &Exec{ID: st.ExecID, Container: container.ID(st.ID), Probe: true, started: true, done: make(chan struct{})}
		x.all[ex.ID] = ex
	}
	if st.Running {
		if !ex.ended {
			ex.status = st
		}
		return false
	}
	ex.status.Pid = st.Pid
	return x.finishLocked(ex, st.ExitCode)
}

// State returns what is known of an exec now.
func (x *Registry) State(ex *Exec) State {
	x.mu.Lock()
	defer x.mu.Unlock()
	return State{Started: ex.started, Ended: ex.ended, Status: ex.status}
}

// Of lists the execs of a container that have not ended, for inspect.
func (x *Registry) Of(id container.ID) []string {
	x.mu.Lock()
	defer x.mu.Unlock()
	var out []string
	for _, ex := range x.all {
		if ex.Container == id && !ex.ended && !ex.Probe {
			out = append(out, ex.ID)
		}
	}
	slices.Sort(out)
	return out
}

// Drop ends what a container's end took along; its results stay for a while.
func (x *Registry) Drop(owner container.ID) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for id, ex := range x.all {
		switch {
		case ex.Container != owner:
		case !ex.started:
			delete(x.all, id)
		default:
			if ex.cancel != nil {
				ex.cancel()
			}
			x.finishLocked(ex, killedExit)
		}
	}
}

// killedExit is the exit code of a process that ended with its container.
const killedExit = 137
