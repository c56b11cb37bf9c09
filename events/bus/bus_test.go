package bus

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	apievents "github.com/moby/moby/api/types/events"
)

func ids(ch <-chan apievents.Message) []string {
	got := []string{}
	for m := range ch {
		got = append(got, m.Actor.ID)
	}
	return got
}

func publish(b *Bus, n ...int) {
	for _, i := range n {
		b.Publish(apievents.ContainerEventType, apievents.ActionStart, fmt.Sprint(i), nil)
	}
}

func TestReplayAndFollow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New()
		publish(b, 1)
		time.Sleep(time.Second) // virtual
		mid := time.Now()
		publish(b, 2)
		time.Sleep(time.Second)

		if diff := cmp.Diff([]string{"2"}, ids(b.Subscribe(t.Context(), mid, time.Now(), nil))); diff != "" {
			t.Error(diff)
		}
		ch := b.Subscribe(t.Context(), mid, time.Now().Add(time.Minute), nil)
		publish(b, 3)
		if diff := cmp.Diff([]string{"2", "3"}, ids(ch)); diff != "" {
			t.Error(diff)
		}
		if n := b.Listeners(); n != 0 {
			t.Errorf("%d listeners are left", n)
		}
	})
}

func TestContextEndsSubscription(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New()
		ctx, cancel := context.WithCancel(t.Context())
		ch := b.Subscribe(ctx, time.Time{}, time.Time{}, func(m apievents.Message) bool { return m.Actor.ID != "1" })
		publish(b, 1, 2)
		cancel()
		synctest.Wait()
		publish(b, 3)
		if diff := cmp.Diff([]string{"2"}, ids(ch)); diff != "" {
			t.Error(diff)
		}
	})
}

func TestSlowSubscriberIsDropped(t *testing.T) {
	b := New()
	ch := b.Subscribe(t.Context(), time.Time{}, time.Time{}, nil)
	for i := range backlog + 10 {
		publish(b, i)
	}
	if n := len(ids(ch)); n != backlog {
		t.Errorf("got %d events before the end, want %d", n, backlog)
	}
}

func TestRingKeepsTheLast(t *testing.T) {
	b := New()
	for i := range kept + 5 {
		publish(b, i)
	}
	got := ids(b.Subscribe(t.Context(), time.Unix(1, 0), time.Now(), nil))
	if len(got) != kept || got[0] != "5" || got[kept-1] != fmt.Sprint(kept+4) {
		t.Errorf("%d events, from %s to %s", len(got), got[0], got[len(got)-1])
	}
}
