package client

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
)

// Hijacked is a connection taken over after the HTTP answer: raw bytes both
// ways. Closing it ends both.
type Hijacked struct {
	conn   net.Conn
	reader *bufio.Reader
	// MediaType is the answer's Content-Type; a multiplexed stream or a raw
	// one, "" from old daemons.
	MediaType string
}

// Read returns what the daemon sends.
func (h *Hijacked) Read(p []byte) (int, error) { return h.reader.Read(p) }

// Write sends p to the daemon.
func (h *Hijacked) Write(p []byte) (int, error) { return h.conn.Write(p) }

// Close ends the connection.
func (h *Hijacked) Close() error { return h.conn.Close() }

// CloseWrite tells the daemon that no more input follows, where the transport
// knows half-close (unix, TCP, TLS and ssh all do).
func (h *Hijacked) CloseWrite() error {
	if hc, ok := h.conn.(interface{ CloseWrite() error }); ok {
		return hc.CloseWrite()
	}
	return nil
}

// Hijack sends r on a connection of its own and takes it over. The connection
// is the caller's; ctx governs only getting it.
func (c *Client) Hijack(ctx context.Context, r Request) (*Hijacked, error) {
	answer, err := c.SendHijack(ctx, r)
	if err != nil {
		return nil, err
	}
	return answer()
}

// SendHijack is Hijack in two steps: it sends r, and the returned function,
// which is to be called once, waits for the answer.
func (c *Client) SendHijack(ctx context.Context, r Request) (answer func() (*Hijacked, error), err error) {
	body, err := r.encode()
	if err != nil {
		return nil, err
	}
	version := c.Version()
	h, err := c.sendHijack(ctx, r, version, body)
	if err != nil {
		return nil, err
	}
	return func() (*Hijacked, error) {
		for {
			stream, resp, err := h.answer(ctx)
			if err != nil {
				return nil, c.connError(ctx, err)
			}
			again := c.learn(resp, version)
			switch {
			case stream != nil:
				return stream, nil
			case !again:
				return nil, decodeError(resp)
			}
			_ = resp.Body.Close()
			version = c.Version()
			if h, err = c.sendHijack(ctx, r, version, body); err != nil {
				return nil, err
			}
		}
	}, nil
}

// hijacking is a connection to be taken over, on which the request was sent.
type hijacking struct {
	conn net.Conn
	req  *http.Request
	stop func() bool
}

func (c *Client) sendHijack(ctx context.Context, r Request, version string, body payload) (*hijacking, error) {
	req, err := c.newRequest(ctx, r, version, body)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", "tcp")
	conn, err := c.connect(ctx)
	if err != nil {
		return nil, c.connError(ctx, err)
	}
	h := &hijacking{conn: conn, req: req, stop: context.AfterFunc(ctx, func() { _ = conn.Close() })}
	if err := req.Write(conn); err != nil {
		h.stop()
		_ = conn.Close()
		return nil, c.connError(ctx, err)
	}
	return h, nil
}

// answer returns the stream, or nil if resp refuses it; then resp's body
// closes the connection.
func (h *hijacking) answer(ctx context.Context) (stream *Hijacked, resp *http.Response, err error) {
	br := bufio.NewReaderSize(h.conn, 32<<10)
	resp, err = http.ReadResponse(br, h.req)
	if err != nil {
		_ = h.conn.Close()
		return nil, nil, err
	}
	if !h.stop() {
		_ = h.conn.Close()
		return nil, nil, context.Cause(ctx)
	}
	if resp.StatusCode != http.StatusSwitchingProtocols && resp.StatusCode != http.StatusOK {
		resp.Body = bodyOf(resp.Body, h.conn)
		return nil, resp, nil
	}
	return &Hijacked{conn: h.conn, reader: br, MediaType: resp.Header.Get("Content-Type")}, resp, nil
}

// connect returns a connection on which nothing was sent, or no request is under way.
func (c *Client) connect(ctx context.Context) (net.Conn, error) {
	if c.local == nil {
		return c.dial(ctx)
	}
	conn, err := c.local.connect(ctx)
	if err != nil {
		return nil, err
	}
	return conn.Conn, nil
}

// Ahead opens connections for n requests to come, if the daemon is on this
// machine: what it does for each is done when the request arrives.
func (c *Client) Ahead(ctx context.Context, n int) {
	if c.local != nil {
		c.local.ahead(ctx, n)
	}
}

// Dial opens a raw connection to the daemon (wherry system dial-stdio).
func (c *Client) Dial(ctx context.Context) (net.Conn, error) {
	conn, err := c.dial(ctx)
	if err != nil {
		return nil, c.connError(ctx, err)
	}
	return conn, nil
}

type closers struct {
	io.Reader
	body, conn io.Closer
}

func bodyOf(body io.ReadCloser, conn io.Closer) io.ReadCloser { return closers{body, body, conn} }

func (c closers) Close() error { return errors.Join(c.conn.Close(), c.body.Close()) }
