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
	body, err := r.encode()
	if err != nil {
		return nil, err
	}
	for {
		version := c.Version()
		h, resp, err := c.hijackOnce(ctx, r, version, body)
		if err != nil {
			return nil, err
		}
		if h != nil {
			return h, nil
		}
		if c.learn(resp, version) {
			_ = resp.Body.Close()
			continue
		}
		return nil, decodeError(resp)
	}
}

// hijackOnce returns the stream, or the refusing answer, whose body closes the
// connection.
func (c *Client) hijackOnce(ctx context.Context, r Request, version string, body payload) (*Hijacked, *http.Response, error) {
	req, err := c.newRequest(ctx, r, version, body)
	if err != nil {
		return nil, nil, err
	}
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", "tcp")
	conn, err := c.dial(ctx)
	if err != nil {
		return nil, nil, c.connError(ctx, err)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	if err := req.Write(conn); err != nil {
		_ = conn.Close()
		return nil, nil, c.connError(ctx, err)
	}
	br := bufio.NewReaderSize(conn, 32<<10)
	resp, err := http.ReadResponse(br, req)
	if err != nil {
		_ = conn.Close()
		return nil, nil, c.connError(ctx, err)
	}
	if !stop() {
		_ = conn.Close()
		return nil, nil, context.Cause(ctx)
	}
	if resp.StatusCode != http.StatusSwitchingProtocols && resp.StatusCode != http.StatusOK {
		resp.Body = bodyOf(resp.Body, conn)
		return nil, resp, nil
	}
	c.learn(resp, version)
	return &Hijacked{conn: conn, reader: br, MediaType: resp.Header.Get("Content-Type")}, nil, nil
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
