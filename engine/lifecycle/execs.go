package lifecycle

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	apicontainer "github.com/moby/moby/api/types/container"

	"github.com/wherry-engine/wherry/container"
	"github.com/wherry-engine/wherry/task"
)

// keepExec is how long a finished exec can still be inspected.
const keepExec = 5 * time.Minute

// execution is one exec of a container. execs.mu guards what changes.
type execution struct {
	id     string
	owner  container.ID
	req    apicontainer.ExecCreateRequest
	probe  bool // of a health check: not listed
	done   chan struct{}
	status task.ExecStatus

	// cancel ends the request that starts it; nil before and after.
	cancel context.CancelFunc

	started, ended bool
	endedAt        time.Time
}

// execs are the execs of all containers. They are not persisted: what runs is
// learned again from the supervisor.
type execs struct {
	mu  sync.Mutex
	all map[string]*execution
}

func (x *execs) add(ex *execution) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.all == nil {
		x.all = map[string]*execution{}
	}
	now := time.Now()
	for id, old := range x.all {
		if old.ended && now.Sub(old.endedAt) > keepExec {
			delete(x.all, id)
		}
	}
	x.all[ex.id] = ex
}

// get finds an exec by its full ID or name. NotFound.
func (x *execs) get(id string) (*execution, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if ex := x.all[id]; ex != nil {
		return ex, nil
	}
	return nil, errdefs.ErrNotFound.WithMessage("No such exec instance: " + id)
}

// begin marks an exec as started. Conflict if it was before.
func (x *execs) begin(ex *execution) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if ex.ended {
		return conflict("Error: Exec command %s has already run", ex.id)
	}
	if ex.started {
		return conflict("Error: Exec command %s is already running", ex.id)
	}
	ex.started = true
	return nil
}

// starting returns the context of a start, which ends with the container.
func (x *execs) starting(ctx context.Context, ex *execution) (context.Context, context.CancelFunc) {
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

// running records the answer to a start; news of the end may have come before it.
func (x *execs) running(ex *execution, st task.ExecStatus) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if !ex.ended {
		ex.status = st
	}
}

func (x *execs) finish(ex *execution, code int) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.finishLocked(ex, code)
}

func (x *execs) finishLocked(ex *execution, code int) bool {
	if ex.ended {
		return false
	}
	ex.ended, ex.endedAt = true, time.Now()
	ex.status.Running, ex.status.ExitCode = false, code
	close(ex.done)
	return true
}

// learn applies what the supervisor says of an exec. It reports whether the
// exec ended by it.
func (x *execs) learn(st task.ExecStatus) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	ex := x.all[st.ExecID]
	if ex == nil {
		if x.all == nil {
			x.all = map[string]*execution{}
		}
		ex = &execution{id: st.ExecID, owner: container.ID(st.ID), started: true, done: make(chan struct{}), probe: true}
		x.all[ex.id] = ex
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

// snapshot returns a copy of what changes.
func (x *execs) snapshot(ex *execution) execution {
	x.mu.Lock()
	defer x.mu.Unlock()
	return *ex
}

// of lists the execs of a container that have not ended, for inspect.
func (x *execs) of(id container.ID) []string {
	x.mu.Lock()
	defer x.mu.Unlock()
	var out []string
	for _, ex := range x.all {
		if ex.owner == id && !ex.ended && !ex.probe {
			out = append(out, ex.id)
		}
	}
	slices.Sort(out)
	return out
}

// drop ends what a container's end took along; its results stay for a while.
func (x *execs) drop(u *unit) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for id, ex := range x.all {
		switch {
		case ex.owner != u.id:
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
