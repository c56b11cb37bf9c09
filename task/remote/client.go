// Package remote implements task.Service over the supervisor's socket, and
// starts the helpers of an exec root when none answer.
package remote

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/task"
	"github.com/wherry-engine/wherry/task/wire"
)

// Options say where the helpers live and how to start them.
type Options struct {
	// Runtime is the path of wherry-runtime. Only Ensure needs it.
	Runtime string
	// ExecRoot is the directory of sockets and task state.
	ExecRoot string
	// DataRoot is the daemon's data directory, for the helpers' command lines.
	DataRoot string
	// Logger; nil discards.
	Logger *slog.Logger
	// Scope, if not nil, is called with the pid of a keeper just started, to
	// move it out of the daemon's control group; see task/scope.
	Scope func(ctx context.Context, pid int) error
}

const socket = "supervisor.sock" // see package supervisor

// Client is a connection to a supervisor. It implements task.Service. When the
// connection is lost all calls fail with Unavailable, and the channel of
// Events is closed: then Ensure again, and Hello.
type Client struct {
	w   *wire.Conn
	log *slog.Logger

	mu       sync.Mutex
	next     uint64
	epoch    uint64
	keeper   int
	pending  map[uint64]chan *wire.Frame
	events   *eventQueue // nil until Events
	lost     chan struct{}
	err      error
	profiles profileCache
}

var _ task.Service = (*Client)(nil)

// Dial connects to a running supervisor. Unavailable if none answers.
func Dial(ctx context.Context, opts Options) (*Client, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", filepath.Join(opts.ExecRoot, socket))
	if err != nil {
		return nil, fmt.Errorf("supervisor: %w: %w", err, errdefs.ErrUnavailable)
	}
	uc, ok := c.(*net.UnixConn)
	if !ok {
		return nil, errors.Join(errors.New("not a unix connection"), c.Close())
	}
	log := opts.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	cl := &Client{w: wire.NewConn(uc), log: log, pending: map[uint64]chan *wire.Frame{}, lost: make(chan struct{})}
	go cl.read()
	return cl, nil
}

// Close ends the connection. Tasks that die with their owner die.
func (c *Client) Close() error {
	err := c.w.Close()
	<-c.lost
	return err
}

// Lost is closed when the connection has ended.
func (c *Client) Lost() <-chan struct{} { return c.lost }

func (c *Client) read() {
	var err error
	for {
		var f *wire.Frame
		if f, err = c.w.Read(); err != nil {
			break
		}
		if f.Kind == wire.Event {
			c.deliver(f)
			continue
		}
		c.mu.Lock()
		ch := c.pending[f.ID]
		delete(c.pending, f.ID)
		c.mu.Unlock()
		if ch == nil {
			f.Close() // the caller gave up
			continue
		}
		ch <- f
	}
	c.w.Discard()
	_ = c.w.Close()
	c.mu.Lock()
	c.err = fmt.Errorf("connection to the supervisor is lost: %w: %w", err, errdefs.ErrUnavailable)
	close(c.lost)
	c.mu.Unlock()
}

func (c *Client) deliver(f *wire.Frame) {
	f.Close()
	var e task.Event
	if err := json.Unmarshal(f.Body, &e); err != nil {
		c.log.Error("malformed event of the supervisor", "err", err)
		return
	}
	c.mu.Lock()
	q := c.events
	c.mu.Unlock()
	if q != nil {
		q.put(e)
	}
}

// call sends a request and waits for its answer. The descriptors remain the caller's.
func (c *Client) call(ctx context.Context, op wire.Op, body []byte, files ...*os.File) (*wire.Frame, error) {
	ch := make(chan *wire.Frame, 1)
	c.mu.Lock()
	if c.err != nil {
		defer c.mu.Unlock()
		return nil, c.err
	}
	c.next++
	id, epoch := c.next, c.epoch
	c.pending[id] = ch
	c.mu.Unlock()
	err := c.send(wire.Header{Kind: wire.Request, Op: op, ID: id, Epoch: epoch}, body, files)
	if err != nil {
		c.forget(id)
		return nil, fmt.Errorf("supervisor: %w: %w", err, errdefs.ErrUnavailable)
	}
	select {
	case f := <-ch:
		return answer(f)
	case <-c.lost:
		select {
		case f := <-ch: // the last thing it said
			return answer(f)
		default:
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		return nil, c.err
	case <-ctx.Done():
		c.forget(id)
		_ = c.w.Write(wire.Header{Kind: wire.Cancel, ID: id, Epoch: epoch}, nil)
		select {
		case f := <-ch:
			f.Close()
		default:
		}
		return nil, ctx.Err()
	}
}

// send passes descriptors without taking them out of non-blocking mode.
func (c *Client) send(h wire.Header, body []byte, files []*os.File) error {
	return withFDs(files, nil, func(fds []int) error { return c.w.Write(h, body, fds...) })
}

func withFDs(files []*os.File, fds []int, f func([]int) error) error {
	if len(files) == 0 {
		return f(fds)
	}
	raw, err := files[0].SyscallConn()
	if err != nil {
		return err
	}
	var ferr error
	err = raw.Control(func(fd uintptr) {
		ferr = withFDs(files[1:], append(fds, int(fd)), f)
	})
	return errors.Join(err, ferr)
}

func (c *Client) forget(id uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.pending, id)
}

func answer(f *wire.Frame) (*wire.Frame, error) {
	if f.Kind == wire.Reply {
		return f, nil
	}
	f.Close()
	var e wire.Error
	if err := json.Unmarshal(f.Body, &e); err != nil {
		return nil, fmt.Errorf("malformed answer of the supervisor: %w", err)
	}
	return nil, e.Err()
}

// do sends a request whose answer has no descriptors.
func (c *Client) do(ctx context.Context, op wire.Op, req, result any, files ...*os.File) error {
	body, err := json.Marshal(req)
	if err != nil {
		return err
	}
	f, err := c.call(ctx, op, body, files...)
	if err != nil {
		return err
	}
	f.Close()
	if result == nil {
		return nil
	}
	return json.Unmarshal(f.Body, result)
}

// file sends a request that is answered by a descriptor.
func (c *Client) file(ctx context.Context, op wire.Op, req any, name string) (*os.File, error) {
	body, err := json.Marshal(req)
	if err != nil {
		return nil, err
	}
	f, err := c.call(ctx, op, body)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	fd := f.Take(0)
	if fd < 0 {
		return nil, errors.New("the supervisor's answer lacks a descriptor")
	}
	unix.CloseOnExec(fd)
	return os.NewFile(uintptr(fd), name), nil
}
