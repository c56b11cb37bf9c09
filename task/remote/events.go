package remote

import (
	"context"
	"sync"

	"github.com/wherry-engine/wherry/task"
)

// eventQueue passes events on, in order. However slow their reader is, the
// answers that come behind them on the connection are not held up.
type eventQueue struct {
	out chan task.Event

	mu   sync.Mutex
	rest []task.Event  // what out had no room for
	more chan struct{} // tells serve that there is a rest
}

func newEventQueue() *eventQueue {
	return &eventQueue{out: make(chan task.Event, 64), more: make(chan struct{}, 1)}
}

// put adds an event. It does not wait.
func (q *eventQueue) put(e task.Event) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.out == nil {
		return // nobody reads any more
	}
	if len(q.rest) == 0 {
		select {
		case q.out <- e:
			return
		default:
		}
	}
	q.rest = append(q.rest, e)
	select {
	case q.more <- struct{}{}:
	default:
	}
}

// serve passes on what put left, until the context or the connection ends.
func (q *eventQueue) serve(ctx context.Context, lost <-chan struct{}) {
	defer q.end()
	for {
		select {
		case <-q.more:
		case <-lost:
			return
		case <-ctx.Done():
			return
		}
		for {
			e, ok := q.first()
			if !ok {
				break
			}
			select {
			case q.out <- e:
				q.drop()
			case <-lost:
				return
			case <-ctx.Done():
				return
			}
		}
	}
}

func (q *eventQueue) first() (task.Event, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.rest) == 0 {
		return task.Event{}, false
	}
	return q.rest[0], true
}

func (q *eventQueue) drop() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.rest = q.rest[1:]; len(q.rest) == 0 {
		q.rest = nil // let the memory go
	}
}

// end closes the channel.
func (q *eventQueue) end() {
	q.mu.Lock()
	defer q.mu.Unlock()
	close(q.out)
	q.out, q.rest = nil, nil
}
