package remote

import (
	"context"
	"testing"

	"github.com/wherry-engine/wherry/task"
)

// TestEventsWaitForTheirReader: all come, in order, however late they are read.
func TestEventsWaitForTheirReader(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	q := newEventQueue()
	out := q.out
	go q.serve(ctx, nil)
	const n = 500
	for i := range uint64(n) {
		q.put(task.Event{Seq: i})
	}
	for i := range uint64(n) {
		if e := <-out; e.Seq != i {
			t.Fatalf("got event %d, want %d", e.Seq, i)
		}
	}
	cancel()
	if _, more := <-out; more {
		t.Error("an event nobody sent")
	}
	q.put(task.Event{}) // nobody reads it
}
