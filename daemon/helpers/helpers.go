// Package helpers keeps the daemon connected to its supervisor: it finds or
// starts the helpers, and replaces a connection that was lost. Calls made
// meanwhile wait a little for the new one.
package helpers

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/containerd/errdefs"

	"github.com/wherry-engine/wherry/task"
)

// Client is one connection; remote.Client implements it.
type Client interface {
	task.Service
	// Lost is closed when the connection has ended.
	Lost() <-chan struct{}
	Close() error
}

// patience is how long a call waits for a connection.
const patience = 5 * time.Second

// helloTries bounds how often a supervisor is greeted that dies of it, or that
// died just after it was connected to.
const helloTries = 3

// Connection implements task.Service over whatever connection there is. Hello
// makes one; the engine calls it at the start and whenever events end.
type Connection struct {
	ensure func(context.Context) (Client, error)

	hello sync.Mutex // one Hello at a time

	mu     sync.Mutex
	client Client        // nil before the first Hello
	ready  chan struct{} // closed when client has said Hello
	closed bool
}

var _ task.Service = (*Connection)(nil)

// New connects nothing yet. ensure starts the helpers if need be.
func New(ensure func(context.Context) (Client, error)) *Connection {
	return &Connection{ensure: ensure, ready: make(chan struct{})}
}

// Hello implements task.Service.
func (c *Connection) Hello(ctx context.Context) (task.Inventory, error) {
	c.hello.Lock()
	defer c.hello.Unlock()
	var cl Client
	var inv task.Inventory
	for try := 1; ; try++ {
		var err error
		if cl, err = c.connect(ctx); err != nil {
			return inv, err
		}
		if inv, err = cl.Hello(ctx); err == nil {
			break
		}
		if try == helloTries || !errdefs.IsUnavailable(err) || !ends(ctx, cl) {
			return inv, err
		}
	}
	inv.Lost = cl.Lost()
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-c.ready:
	default:
		close(c.ready)
	}
	return inv, nil
}

// connect returns a live connection, a new one if need be. hello is held.
func (c *Connection) connect(ctx context.Context) (Client, error) {
	c.mu.Lock()
	cl, closed := c.client, c.closed
	c.mu.Unlock()
	if closed {
		return nil, errClosed()
	}
	if cl != nil && !isLost(cl) {
		return cl, nil
	}
	fresh, err := c.ensure(ctx)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, errors.Join(errClosed(), fresh.Close())
	}
	c.client = fresh
	select {
	case <-c.ready:
		c.ready = make(chan struct{})
	default:
	}
	return fresh, nil
}

func errClosed() error {
	return fmt.Errorf("the daemon is shutting down: %w", errdefs.ErrUnavailable)
}

func isLost(cl Client) bool {
	select {
	case <-cl.Lost():
		return true
	default:
		return false
	}
}

// ends tells whether a connection that failed is lost, which is noticed by
// whoever reads from it.
func ends(ctx context.Context, cl Client) bool {
	late := time.NewTimer(time.Second)
	defer late.Stop()
	select {
	case <-cl.Lost():
		return true
	case <-late.C:
	case <-ctx.Done():
	}
	return false
}

// get returns a connection that has said Hello, waiting for one if need be.
func (c *Connection) get(ctx context.Context) (Client, error) {
	c.mu.Lock()
	if c.client != nil && isLost(c.client) {
		// Whoever says Hello next closes the new channel.
		select {
		case <-c.ready:
			c.ready = make(chan struct{})
		default:
		}
	}
	ready := c.ready
	c.mu.Unlock()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	select {
	case <-ready:
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-deadline.C:
		return nil, fmt.Errorf("the supervisor cannot be reached: %w", errdefs.ErrUnavailable)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, errClosed()
	}
	return c.client, nil
}

// Close ends the connection for good.
func (c *Connection) Close() error {
	c.mu.Lock()
	cl := c.client
	c.closed = true
	c.mu.Unlock()
	if cl == nil {
		return nil
	}
	gone := isLost(cl)
	if err := cl.Close(); !gone {
		return err
	}
	return nil // the supervisor ended first
}

// use calls f with a connection.
func (c *Connection) use(ctx context.Context, f func(Client) error) error {
	cl, err := c.get(ctx)
	if err != nil {
		return err
	}
	return f(cl)
}

// with is use for calls that return something.
func with[T any](ctx context.Context, c *Connection, f func(Client) (T, error)) (T, error) {
	cl, err := c.get(ctx)
	if err != nil {
		var zero T
		return zero, err
	}
	return f(cl)
}
