package supervisor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"

	"github.com/containerd/errdefs"

	"github.com/wherry-engine/wherry/task"
	"github.com/wherry-engine/wherry/task/wire"
)

// conn is a daemon's connection.
type conn struct {
	s *Supervisor
	w *wire.Conn
	// gone ends with the connection.
	gone   context.Context //nolint:containedctx // see above
	hangUp context.CancelFunc

	mu      sync.Mutex
	pending map[uint64]context.CancelFunc
	events  bool
	// borrowed counts the roots that the daemon has not given back; nil when it is gone.
	borrowed map[string]int
	// successor is the program to become once the answer is sent.
	successor string
}

func newConn(ctx context.Context, s *Supervisor, c *net.UnixConn) *conn {
	cn := &conn{s: s, w: wire.NewConn(c), pending: map[uint64]context.CancelFunc{}, borrowed: map[string]int{}}
	cn.gone, cn.hangUp = context.WithCancel(ctx)
	s.mu.Lock()
	s.conns[cn] = struct{}{}
	s.mu.Unlock()
	return cn
}

// serve handles requests until the daemon goes away. Requests under way then
// are cancelled if they wait, and come to their end if they do something.
func (c *conn) serve() {
	defer c.hangUp()
	defer c.w.Discard()
	defer c.w.Close()
	for {
		f, err := c.w.Read()
		if err != nil {
			break
		}
		switch f.Kind {
		case wire.Cancel:
			c.mu.Lock()
			if stop := c.pending[f.ID]; stop != nil {
				stop()
			}
			c.mu.Unlock()
		case wire.Request:
			rctx, stop := context.WithCancel(c.gone)
			c.mu.Lock()
			c.pending[f.ID] = stop
			c.mu.Unlock()
			go c.answer(rctx, f)
		}
		if f.Kind != wire.Request {
			f.Close()
		}
	}
	c.s.mu.Lock()
	delete(c.s.conns, c)
	c.s.mu.Unlock()
	c.s.ownerGone(c)
	c.returnRoots()
}

// borrowRoot opens a root until the daemon gives it back or goes away.
func (c *conn) borrowRoot(ctx context.Context, id string, how task.Root) (*os.File, error) {
	file, err := c.s.openRoot(ctx, id, how)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	gone := c.borrowed == nil
	if !gone {
		c.borrowed[id]++
	}
	c.mu.Unlock()
	if gone {
		return nil, errors.Join(context.Canceled, file.Close(), c.s.roots.release(id))
	}
	return file, nil
}

// returnRoot gives back one that this connection has borrowed.
func (c *conn) returnRoot(id string) error {
	c.mu.Lock()
	had := c.borrowed[id] > 0
	if had {
		c.borrowed[id]--
	}
	c.mu.Unlock()
	if !had {
		return fmt.Errorf("root of %s is not open: %w", id, errdefs.ErrNotFound)
	}
	return c.s.roots.release(id)
}

// returnRoots gives back what the daemon cannot any more.
func (c *conn) returnRoots() {
	c.mu.Lock()
	borrowed := c.borrowed
	c.borrowed = nil
	c.mu.Unlock()
	for id, n := range borrowed {
		for range n {
			if err := c.s.roots.release(id); err != nil {
				c.s.log.Warn("cannot unmount a root", "task", id, "err", err)
			}
		}
	}
}

// answer handles one request.
func (c *conn) answer(ctx context.Context, f *wire.Frame) {
	var body any
	var file *os.File
	var err error
	switch {
	case f.Op == wire.OpUpgrade:
		c.s.upgrading.Lock()
		defer c.s.upgrading.Unlock()
		body, file, err = c.handle(ctx, f)
	case c.s.work.try(false):
		defer c.s.work.leave() // when it is answered
		body, file, err = c.handle(ctx, f)
	default:
		err = fmt.Errorf("the supervisor is being replaced by another build: %w", errdefs.ErrUnavailable)
	}
	f.Close()
	c.mu.Lock()
	c.pending[f.ID]()
	delete(c.pending, f.ID)
	c.mu.Unlock()
	h := wire.Header{Kind: wire.Reply, ID: f.ID}
	var b []byte
	if err == nil && body != nil {
		b, err = json.Marshal(body)
	}
	if err != nil {
		h.Kind = wire.Failure
		if b, err = json.Marshal(wire.EncodeError(err)); err != nil {
			return
		}
	}
	if file != nil {
		err = c.w.Write(h, b, int(file.Fd()))
		_ = file.Close()
	} else {
		err = c.w.Write(h, b)
	}
	if err != nil {
		_ = c.w.Close() // the reader ends
	}
	if f.Op == wire.OpUpgrade && c.successor != "" {
		c.s.become(c.successor)
		c.successor = ""
		_ = c.w.Close() // the daemon waits for it
	}
	if f.Op == wire.OpShutdown && h.Kind == wire.Reply {
		c.s.endHelpers()
	}
}

// streamEvents sends events until the connection ends.
func (c *conn) streamEvents(after uint64) {
	for {
		events, changed := c.s.events.after(after)
		for i := range events {
			if err := c.w.Write(wire.Header{Kind: wire.Event}, events[i].json); err != nil {
				_ = c.w.Close()
				return
			}
			after = events[i].seq
		}
		select {
		case <-changed:
		case <-c.gone.Done():
			return
		}
	}
}

func decode[T any](b []byte) (T, error) {
	var v T
	if err := json.Unmarshal(b, &v); err != nil {
		return v, fmt.Errorf("malformed request: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	return v, nil
}

func negotiate(h wire.Hello) error {
	if h.Max < task.MinProtocol || h.Min > task.Protocol {
		return fmt.Errorf("the supervisor speaks protocols %d to %d, the daemon %d to %d: %w",
			task.MinProtocol, task.Protocol, h.Min, h.Max, errdefs.ErrUnavailable)
	}
	return nil
}

var errShuttingDown = errors.New("the supervisor is shutting down")
