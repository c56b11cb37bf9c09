// Package client is the daemon's side of the net helper.
package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/containerd/errdefs"

	"github.com/wherry-engine/wherry/dataplane/wire"
)

const (
	// patience is how long the helper may take to answer.
	patience = 5 * time.Second
	// appearance is how long it may take to appear: the keeper starts it again
	// when it dies, but the less eagerly the more often it did.
	appearance = 12 * time.Second
	// again is the interval at which its socket is tried.
	again = 5 * time.Millisecond
)

// Client speaks to the helper of one exec root. It connects when it is first
// needed, and again when the helper was replaced. It is safe for concurrent use.
type Client struct {
	path string

	mu   sync.Mutex
	conn *wire.Conn
	uc   *net.UnixConn
	list []string // sandboxes at the time of the connection
}

// New returns a client; it does not connect.
func New(execRoot string) *Client {
	return &Client{path: filepath.Join(execRoot, wire.Socket)}
}

// Put hands over a sandbox. The descriptors stay the caller's.
func (c *Client) Put(ctx context.Context, s wire.Sandbox, files []int) error {
	return c.do(ctx, wire.Request{Op: wire.OpPut, Sandbox: &s}, files)
}

// Drop forgets a sandbox; its ports are free on return.
func (c *Client) Drop(ctx context.Context, id string) error {
	return c.do(ctx, wire.Request{Op: wire.OpDrop, ID: id}, nil)
}

// List names the sandboxes that the helper has.
func (c *Client) List(ctx context.Context) ([]string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hangUp() // the list comes with the connection
	if err := c.connect(ctx); err != nil {
		return nil, err
	}
	return c.list, nil
}

// Close ends the connection.
func (c *Client) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hangUp()
	return nil
}

func (c *Client) hangUp() {
	if c.conn != nil {
		_ = c.conn.Close()
		c.conn, c.uc = nil, nil
	}
}

// do sends a request and waits for its answer; if the helper dies meanwhile,
// the request is sent to the next one. All requests may be repeated.
func (c *Client) do(ctx context.Context, req wire.Request, files []int) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var err error
	for range 3 {
		if err = c.connect(ctx); err != nil {
			return err
		}
		var resp wire.Response
		if resp, err = c.ask(req, files); err == nil {
			if resp.Error != "" {
				return fmt.Errorf("net helper: %s", resp.Error)
			}
			return nil
		}
		c.hangUp()
		if ctx.Err() != nil {
			break
		}
	}
	return fmt.Errorf("net helper: %w: %w", err, errdefs.ErrUnavailable)
}

func (c *Client) ask(req wire.Request, files []int) (resp wire.Response, err error) {
	if err := c.uc.SetDeadline(time.Now().Add(patience)); err != nil {
		return resp, err
	}
	for len(files) > wire.MaxFiles {
		if err := c.conn.Write(wire.Request{Op: wire.OpFiles}, files[:wire.MaxFiles]...); err != nil {
			return resp, err
		}
		files = files[wire.MaxFiles:]
	}
	if err := c.conn.Write(req, files...); err != nil {
		return resp, err
	}
	extra, err := c.conn.Read(&resp)
	wire.CloseAll(extra)
	return resp, err
}

// connect makes sure of a connection, waiting for a helper that is being started.
func (c *Client) connect(ctx context.Context) error {
	if c.conn != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, appearance)
	defer cancel()
	tick := time.NewTicker(again)
	defer tick.Stop()
	for {
		err := c.dial(ctx)
		if err == nil || !starting(err) {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("the net helper does not answer: %w: %w", err, errdefs.ErrUnavailable)
		}
	}
}

// starting: the socket may come.
func starting(err error) bool {
	var op *net.OpError
	return errors.Is(err, os.ErrNotExist) || errors.As(err, &op)
}

func (c *Client) dial(ctx context.Context) error {
	var d net.Dialer
	nc, err := d.DialContext(ctx, "unix", c.path)
	if err != nil {
		return err
	}
	c.uc = nc.(*net.UnixConn)
	c.conn = wire.NewConn(c.uc)
	resp, err := c.ask(wire.Request{Op: wire.OpHello, Version: wire.Version}, nil)
	if err == nil && resp.Error != "" {
		err = fmt.Errorf("net helper refuses: %s: %w", resp.Error, errdefs.ErrUnavailable)
	}
	if err != nil {
		c.hangUp()
		return err
	}
	c.list = resp.Sandboxes
	return nil
}
