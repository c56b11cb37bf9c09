// Package bus is the event bus in memory: a ring of the last events and the
// live subscriptions. It loses its past with the process, as events promise.
package bus

import (
	"context"
	"sync"
	"time"

	apievents "github.com/moby/moby/api/types/events"

	"github.com/wherry-engine/wherry/events"
)

var (
	_ events.Publisher  = (*Bus)(nil)
	_ events.Subscriber = (*Bus)(nil)
)

const (
	// kept is the number of events that `since` can reach back.
	kept = 4096
	// backlog is how many events a subscriber may be behind before it is dropped.
	backlog = 4096
)

// Bus is safe for concurrent use. New makes one.
type Bus struct {
	now func() time.Time

	mu   sync.Mutex
	ring []apievents.Message // grows to kept, then wraps
	next int                 // index of the oldest once it wrapped
	last int64               // time of the last event in ns, so that times only grow
	subs map[*subscription]struct{}
}

// subscription is one live subscriber. Its channel is closed by deliver (when
// it lags) or by its owner goroutine's unsubscribe.
type subscription struct {
	ch    chan apievents.Message
	match func(apievents.Message) bool
	gone  bool
}

// New returns an empty bus.
func New() *Bus {
	return &Bus{now: time.Now, subs: make(map[*subscription]struct{})}
}

// Publish implements events.Publisher. The attributes are copied.
func (b *Bus) Publish(typ apievents.Type, action apievents.Action, actorID string, attrs map[string]string) {
	own := make(map[string]string, len(attrs))
	for k, v := range attrs {
		own[k] = v
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	ns := max(b.now().UnixNano(), b.last+1)
	b.last = ns
	m := apievents.Message{
		Type: typ, Action: action, Scope: "local",
		Actor: apievents.Actor{ID: actorID, Attributes: own},
		Time:  ns / int64(time.Second), TimeNano: ns,
	}
	if len(b.ring) < kept {
		b.ring = append(b.ring, m)
	} else {
		b.ring[b.next] = m
		b.next = (b.next + 1) % kept
	}
	for s := range b.subs {
		b.deliver(s, m)
	}
}

// deliver hands m to s, or drops s when it does not keep up. mu is held.
func (b *Bus) deliver(s *subscription, m apievents.Message) {
	if s.match != nil && !s.match(m) {
		return
	}
	select {
	case s.ch <- m:
	default:
		b.drop(s)
	}
}

// drop ends a subscription. mu is held.
func (b *Bus) drop(s *subscription) {
	if s.gone {
		return
	}
	s.gone = true
	delete(b.subs, s)
	close(s.ch)
}

// Subscribe implements events.Subscriber. match may be nil and must not block.
func (b *Bus) Subscribe(ctx context.Context, since, until time.Time, match func(apievents.Message) bool) <-chan apievents.Message {
	b.mu.Lock()
	defer b.mu.Unlock()
	past := b.past(since, until, match)
	s := &subscription{ch: make(chan apievents.Message, len(past)+backlog), match: match}
	for _, m := range past {
		s.ch <- m
	}
	if ctx.Err() != nil || (!until.IsZero() && !until.After(b.now())) {
		close(s.ch)
		return s.ch
	}
	b.subs[s] = struct{}{}
	b.endWith(ctx, until, s)
	return s.ch
}

// endWith ends the subscription with the context, or at until.
func (b *Bus) endWith(ctx context.Context, until time.Time, s *subscription) {
	end := func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.drop(s)
	}
	stop := context.AfterFunc(ctx, end)
	if until.IsZero() {
		return
	}
	time.AfterFunc(until.Sub(b.now()), func() {
		stop()
		end()
	})
}

// past returns the kept events between the times that match. mu is held.
func (b *Bus) past(since, until time.Time, match func(apievents.Message) bool) []apievents.Message {
	if since.IsZero() && until.IsZero() {
		return nil
	}
	var out []apievents.Message
	for i := range b.ring {
		m := b.ring[(b.next+i)%len(b.ring)]
		if !since.IsZero() && m.TimeNano < since.UnixNano() {
			continue
		}
		if !until.IsZero() && m.TimeNano > until.UnixNano() {
			break
		}
		if match == nil || match(m) {
			out = append(out, m)
		}
	}
	return out
}

// Listeners returns the number of live subscriptions.
func (b *Bus) Listeners() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.subs)
}
