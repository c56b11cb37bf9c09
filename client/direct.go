package client

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// direct is a transport for small requests over a socket of this machine. It
// writes a request and reads the answer in the caller's goroutine, where
// http.Transport has two goroutines for each connection: handing over between
// them is a good part of what a quick command takes. Requests that it is not made
// for go to next.
type direct struct {
	dial func(context.Context) (net.Conn, error)
	next *http.Transport

	mu   sync.Mutex
	idle []*directConn
}

type directConn struct {
	net.Conn
	br *bufio.Reader
}

// maxDirect bounds a body, in bytes: a daemon that answers before it has read
// everything must not make the write wait. Socket buffers hold more.
const maxDirect = 64 << 10

// RoundTrip implements http.RoundTripper.
func (d *direct) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Body != nil && (req.GetBody == nil || req.ContentLength < 0 || req.ContentLength > maxDirect) {
		meanwhile(req)
		return d.next.RoundTrip(req)
	}
	conn, err := d.connect(req.Context())
	if err != nil {
		return nil, err
	}
	return d.over(conn, req)
}

// connect returns a connection on which nothing is under way.
func (d *direct) connect(ctx context.Context) (*directConn, error) {
	for c := d.takeIdle(); c != nil; c = d.takeIdle() {
		if c.quiet() {
			return c, nil
		}
		_ = c.Close() // by the daemon, or an answer that nobody asked for
	}
	return d.open(ctx)
}

func (d *direct) open(ctx context.Context) (*directConn, error) {
	conn, err := d.dial(ctx)
	if err != nil {
		return nil, err
	}
	return &directConn{conn, bufio.NewReader(conn)}, nil
}

// ahead opens connections for requests to come. Those that cannot be opened are
// missed when they are needed.
func (d *direct) ahead(ctx context.Context, n int) {
	for range n {
		c, err := d.open(ctx)
		if err != nil {
			return
		}
		d.putIdle(c)
	}
}

// meanwhileKey is that of Request.Meanwhile in a request's context.
type meanwhileKey struct{}

// meanwhile calls it.
func meanwhile(req *http.Request) {
	if f, ok := req.Context().Value(meanwhileKey{}).(func()); ok {
		f()
	}
}

// CloseIdleConnections is for http.Client.
func (d *direct) CloseIdleConnections() {
	d.next.CloseIdleConnections()
	for c := d.takeIdle(); c != nil; c = d.takeIdle() {
		_ = c.Close()
	}
}

func (d *direct) takeIdle() *directConn {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := len(d.idle)
	if n == 0 {
		return nil
	}
	c := d.idle[n-1]
	d.idle = d.idle[:n-1]
	return c
}

func (d *direct) putIdle(c *directConn) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.idle = append(d.idle, c)
}

// quiet tells whether the connection is open and has nothing to read.
func (c *directConn) quiet() bool {
	sc, ok := c.Conn.(syscall.Conn)
	if !ok || c.br.Buffered() > 0 {
		return false
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return false
	}
	quiet := false
	err = raw.Read(func(fd uintptr) bool {
		var b [1]byte
		_, _, rerr := unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		quiet = errors.Is(rerr, unix.EAGAIN)
		return true
	})
	return quiet && err == nil
}

// over sends the request on c, which it owns.
func (d *direct) over(c *directConn, req *http.Request) (*http.Response, error) {
	ctx := req.Context()
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	err := req.Write(c)
	var resp *http.Response
	if err == nil {
		meanwhile(req)
		resp, err = http.ReadResponse(c.br, req)
	}
	if err != nil {
		stop()
		return nil, errors.Join(ctx.Err(), err, c.Close())
	}
	b := &directBody{ReadCloser: resp.Body, d: d, c: c, stop: stop, keep: !resp.Close}
	resp.Body = b
	if resp.ContentLength == 0 || req.Method == http.MethodHead {
		b.done()
	}
	return resp, nil
}

// directBody gives its connection back at its end.
type directBody struct {
	io.ReadCloser
	d    *direct
	c    *directConn
	stop func() bool
	keep bool
	once sync.Once
}

// Read implements io.Reader.
func (b *directBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	switch {
	case errors.Is(err, io.EOF):
		b.done()
	case err != nil:
		b.keep = false
	}
	return n, err
}

// Close implements io.Closer. What was not read ends the connection.
func (b *directBody) Close() error {
	b.once.Do(func() {
		b.stop()
		_ = b.c.Close()
	})
	return nil
}

func (b *directBody) done() {
	b.once.Do(func() {
		if !b.stop() || !b.keep {
			_ = b.c.Close()
			return
		}
		b.d.putIdle(b.c)
	})
}
