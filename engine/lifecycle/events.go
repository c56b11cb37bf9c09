package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	apievents "github.com/moby/moby/api/types/events"

	"github.com/wherry-engine/wherry/container"
	"github.com/wherry-engine/wherry/task"
)

// redialPause is the time between attempts to reach the supervisor again.
const redialPause = 200 * time.Millisecond

// Run follows the supervisor until the context ends. When the connection drops
// it is taken up again, and what was missed is learned.
func (e *Engine) Run(ctx context.Context) error {
	for first := true; ctx.Err() == nil; first = false {
		if !first {
			if err := e.rejoin(ctx); err != nil {
				e.log.Warn("supervisor cannot be reached", "err", err)
				if !pause(ctx) {
					break
				}
				continue
			}
		}
		ch, err := e.o.Tasks.Events(ctx)
		if err != nil {
			e.log.Warn("supervisor sends no events", "err", err)
			if !pause(ctx) {
				break
			}
			continue
		}
		for ev := range ch {
			e.receive(ctx, ev)
		}
	}
	return ctx.Err()
}

func pause(ctx context.Context) bool {
	t := time.NewTimer(redialPause)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// rejoin takes the supervisor over again after the connection was lost.
func (e *Engine) rejoin(ctx context.Context) error {
	inv, err := e.o.Tasks.Hello(ctx)
	if err != nil {
		return fmt.Errorf("take over the supervisor: %w", err)
	}
	e.noteReplaced(inv)
	again, err := e.takeInventory(ctx, inv)
	if err != nil {
		return err
	}
	for i := range inv.Execs {
		e.execs.Learn(inv.Execs[i])
	}
	e.reaper.now(func() { e.DeleteStrays(context.WithoutCancel(ctx), e.o.Tasks, inv) })
	e.reaper.now(func() { e.startAgain(again) })
	return nil
}

// takeInventory applies what the supervisor knows to all containers and returns
// those that have to be started again. It gives up when the connection is lost
// once more: owners of containers may wait for the next one, which only our caller
// makes.
func (e *Engine) takeInventory(ctx context.Context, inv task.Inventory) ([]*unit, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	tasks := byID(inv)
	var mu sync.Mutex
	var again []*unit
	var all sync.WaitGroup
	for _, u := range e.index.all() {
		all.Go(func() {
			remove := false
			_ = u.owner.do(func() error {
				t, known := tasks[string(u.id)]
				switch {
				case ctx.Err() != nil: // too late: there is newer news
				case known:
					remove = e.applyTask(ctx, u, t)
				case u.up():
					// It may have been started since the inventory was taken.
					e.refresh(ctx, u)
					if !u.up() && !u.isGone() && wantsStart(u) {
						mu.Lock()
						again = append(again, u)
						mu.Unlock()
					}
				}
				return nil
			})
			if remove {
				e.removeLater(u)
			}
		})
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		all.Wait()
	}()
	select {
	case <-done:
		return again, ctx.Err()
	case <-inv.Lost:
		return nil, errLostAgain
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

var errLostAgain = errors.New("the connection was lost again")

// noteReplaced says what a supervisor that was killed took along.
func (e *Engine) noteReplaced(inv task.Inventory) {
	if !inv.Replaced {
		return
	}
	e.log.Warn("the supervisor was killed and another goes on in its place; sessions attached through it were cut and output on its way to them is lost; logs and exit codes are complete unless they say otherwise", "pid", inv.SupervisorPid)
	e.o.Events.Publish(apievents.DaemonEventType, "supervisor-replaced", "", map[string]string{"pid": strconv.Itoa(inv.SupervisorPid)})
}

// receive queues an event with its container. Events of one container are
// applied in order; containers do not wait for each other.
func (e *Engine) receive(ctx context.Context, ev task.Event) {
	e.acks.begin(ev.Seq)
	u := e.index.get(container.ID(ev.Status.ID))
	if u == nil {
		if ev.Exec != nil {
			e.execs.Learn(*ev.Exec)
		}
		e.ack(ctx, ev.Seq)
		return
	}
	if ev.Kind == task.EventExecDied && !u.isReading() {
		// Nothing of the container changes: nobody has to own it.
		e.apply(ctx, u, ev)
		e.ack(ctx, ev.Seq)
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.handle.mail = append(u.handle.mail, ev)
	if u.handle.reading {
		return
	}
	u.handle.reading = true
	e.reaper.now(func() { e.read(context.WithoutCancel(ctx), u) })
}

// isReading tells whether news of the container waits to be applied.
func (u *unit) isReading() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.handle.reading
}

// read applies the events of one container until there are none.
func (e *Engine) read(ctx context.Context, u *unit) {
	for {
		u.mu.Lock()
		if len(u.handle.mail) == 0 {
			u.handle.reading, u.handle.mail = false, nil
			u.mu.Unlock()
			return
		}
		ev := u.handle.mail[0]
		u.handle.mail = u.handle.mail[1:]
		u.mu.Unlock()
		remove := false
		_ = u.owner.do(func() error {
			remove = e.apply(ctx, u, ev)
			return nil
		})
		if remove {
			e.removeLater(u)
		}
		e.ack(ctx, ev.Seq)
	}
}

func (e *Engine) apply(ctx context.Context, u *unit, ev task.Event) (remove bool) {
	if u.isGone() {
		return false
	}
	switch ev.Kind {
	case task.EventStarted, task.EventExited:
		return e.applyTask(ctx, u, ev.Status)
	case task.EventOOM:
		e.save(u, func(s *container.Status) { s.OOMKilled = true })
		e.emit(u, apievents.ActionOOM, nil)
	case task.EventLog:
		e.applyLog(u, ev.Status)
	case task.EventDetached:
		if ev.Exec == nil {
			e.emit(u, apievents.ActionDetach, nil)
			return false
		}
		e.emit(u, apievents.ActionExecDetach, map[string]string{"execID": ev.Exec.ExecID})
	case task.EventExecDied:
		if ev.Exec == nil {
			return false
		}
		if e.execs.Learn(*ev.Exec) {
			e.emit(u, apievents.ActionExecDie, map[string]string{
				"execID": ev.Exec.ExecID, "exitCode": strconv.Itoa(ev.Exec.ExitCode),
			})
		}
	}
	return false
}

// ackPause is how long acknowledgements are collected: the supervisor is in no
// hurry to forget, and what comes twice changes nothing.
const ackPause = 50 * time.Millisecond

// ack acknowledges an event, with those that end soon after.
func (e *Engine) ack(ctx context.Context, seq uint64) {
	if !e.acks.end(seq) {
		return
	}
	e.reaper.now(func() {
		t := time.NewTimer(ackPause)
		defer t.Stop()
		select {
		case <-t.C:
		case <-e.run.Done():
		}
		actx, cancel := context.WithTimeout(context.WithoutCancel(ctx), refreshPatience)
		defer cancel()
		upto := e.acks.take()
		if err := e.o.Tasks.Ack(actx, upto); err != nil {
			e.log.Debug("acknowledge events", "seq", upto, "err", err)
		}
	})
}

// acks turns effects that end in any order into acknowledgements in order.
type acks struct {
	mu    sync.Mutex
	open  map[uint64]bool
	last  uint64 // highest begun
	acked uint64
	due   bool // somebody is about to take
}

func (a *acks) begin(seq uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.open == nil {
		a.open = map[uint64]bool{}
	}
	a.open[seq] = true
	a.last = max(a.last, seq)
}

// end notes that everything of an event is done. It reports whether somebody has
// to take and acknowledge: more is done than was taken, and nobody else does it.
func (a *acks) end(seq uint64) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.open, seq)
	if a.due || a.done() <= a.acked {
		return false
	}
	a.due = true
	return true
}

// take returns the number up to which everything is done.
func (a *acks) take() uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.due, a.acked = false, a.done()
	return a.acked
}

// done is called with mu held.
func (a *acks) done() uint64 {
	upto := a.last
	for s := range a.open {
		upto = min(upto, s-1)
	}
	return upto
}
