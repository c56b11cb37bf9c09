package helpers

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"

	"github.com/wherry-engine/wherry/task"
)

// fake is a connection that can be lost.
type fake struct {
	task.Service
	lost   chan struct{}
	paused int
	refuse error // of Hello
}

func (f *fake) Hello(context.Context) (task.Inventory, error) { return task.Inventory{}, f.refuse }
func (f *fake) Pause(context.Context, string) error           { f.paused++; return nil }
func (f *fake) Lost() <-chan struct{}                         { return f.lost }
func (f *fake) Close() error                                  { return nil }

func TestCallsWaitForTheNextConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var made []*fake
		c := New(func(context.Context) (Client, error) {
			made = append(made, &fake{lost: make(chan struct{})})
			return made[len(made)-1], nil
		})
		hello := func() {
			if _, err := c.Hello(t.Context()); err != nil {
				t.Error(err)
			}
		}
		pause := func() error { return c.Pause(t.Context(), "x") }

		go func() { time.Sleep(time.Second); hello() }()
		if err := pause(); err != nil || made[0].paused != 1 {
			t.Errorf("before the first Hello: %v", err)
		}
		hello()
		if len(made) != 1 {
			t.Error("a second Hello made a second connection")
		}
		close(made[0].lost)
		go func() { time.Sleep(time.Second); hello() }()
		if err := pause(); err != nil || len(made) != 2 || made[1].paused != 1 {
			t.Errorf("after the connection was lost: %v, %d connections", err, len(made))
		}
		close(made[1].lost)
		if err := pause(); !errdefs.IsUnavailable(err) {
			t.Errorf("without a Hello: %v", err)
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Hello(t.Context()); !errdefs.IsUnavailable(err) {
			t.Errorf("Hello after Close: %v", err)
		}
	})
}

func TestShutdownWithoutConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := New(func(context.Context) (Client, error) { return nil, errdefs.ErrInternal })
		began := time.Now()
		if err := c.Shutdown(t.Context()); !errdefs.IsUnavailable(err) || time.Since(began) > 0 {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
	})
}

func TestHelloToOneThatDies(t *testing.T) {
	for _, c := range []struct {
		name        string
		dying, want int
		refuse      error
		ok          bool
	}{
		{"once", 1, 2, errdefs.ErrUnavailable, true},
		{"always", 100, helloTries, errdefs.ErrUnavailable, false},
		{"another error", 1, 1, errdefs.ErrInternal, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			made := 0
			conn := New(func(context.Context) (Client, error) {
				made++
				f := &fake{lost: make(chan struct{})}
				if made <= c.dying {
					f.refuse = c.refuse
					close(f.lost)
				}
				return f, nil
			})
			if _, err := conn.Hello(t.Context()); (err == nil) != c.ok || made != c.want {
				t.Errorf("%d connections, %v", made, err)
			}
		})
	}
}
