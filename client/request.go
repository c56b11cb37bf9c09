package client

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/wherry-engine/wherry/internal/coldjson"
	"github.com/wherry-engine/wherry/internal/entry"
)

// Request is one call of the API.
type Request struct {
	Method string
	// Path begins with a slash and has no version prefix. Its variable
	// segments are escaped by the caller (see Segment).
	Path  string
	Query url.Values
	// Header is added to the client's own headers.
	Header http.Header
	// JSON, when not nil, is encoded as the body.
	JSON any
	// Body is sent as it is; used when JSON is nil. It is read once.
	Body io.Reader
	// Unversioned leaves the version prefix out.
	Unversioned bool
	// Meanwhile, when not nil, is called while the daemon works on the request:
	// after it was sent, where the transport can tell, and before otherwise.
	Meanwhile func()
}

// Segment escapes one path segment.
func Segment(s string) string { return url.PathEscape(s) }

// Do sends r and returns the answer with its body still to be read. A status
// of 400 or above comes back as *Error; not reaching the daemon as *ConnError.
func (c *Client) Do(ctx context.Context, r Request) (*http.Response, error) {
	body, err := r.encode()
	if err != nil {
		return nil, err
	}
	if r.Body != nil && !r.Unversioned {
		if err := c.settle(ctx); err != nil {
			return nil, err
		}
	}
	for {
		version := c.Version()
		resp, err := c.send(ctx, r, version, body)
		if err != nil {
			return nil, c.connError(ctx, err)
		}
		if c.learn(resp, version) && body.replayable() {
			drain(resp)
			continue
		}
		if resp.StatusCode >= 400 {
			return nil, decodeError(resp)
		}
		return resp, nil
	}
}

// Call sends r and decodes the JSON answer into out, unless out is nil.
func (c *Client) Call(ctx context.Context, r Request, out any) error {
	resp, err := c.Do(ctx, r)
	if err != nil {
		return err
	}
	defer drain(resp)
	if out == nil {
		return nil
	}
	if raw, ok := out.(*json.RawMessage); ok {
		*raw, err = io.ReadAll(resp.Body)
		return err
	}
	if err := json.NewDecoder(resp.Body).Decode(out); err != nil {
		return fmt.Errorf("decode answer of %s %s: %w", r.Method, r.Path, err)
	}
	return nil
}

// Get is Call with method GET.
func (c *Client) Get(ctx context.Context, path string, q url.Values, out any) error {
	return c.Call(ctx, Request{Method: http.MethodGet, Path: path, Query: q}, out)
}

// Post is Call with method POST; body, unless nil, is sent as JSON.
func (c *Client) Post(ctx context.Context, path string, q url.Values, body, out any) error {
	return c.Call(ctx, Request{Method: http.MethodPost, Path: path, Query: q, JSON: body}, out)
}

// Delete is Call with method DELETE.
func (c *Client) Delete(ctx context.Context, path string, q url.Values, out any) error {
	return c.Call(ctx, Request{Method: http.MethodDelete, Path: path, Query: q}, out)
}

// Stream is Do, giving the body alone.
func (c *Client) Stream(ctx context.Context, r Request) (io.ReadCloser, error) {
	resp, err := c.Do(ctx, r)
	if err != nil {
		return nil, err
	}
	return resp.Body, nil
}

// payload is an encoded request body.
type payload struct {
	json   []byte
	stream io.Reader
}

func (p payload) replayable() bool { return p.stream == nil }

func (p payload) reader() io.Reader {
	switch {
	case p.stream != nil:
		return p.stream
	case p.json != nil:
		return bytes.NewReader(p.json)
	}
	return nil
}

func (r Request) encode() (payload, error) {
	if r.JSON == nil {
		return payload{stream: r.Body}, nil
	}
	b, err := coldjson.Marshal(r.JSON)
	if err != nil {
		return payload{}, fmt.Errorf("encode body of %s %s: %w", r.Method, r.Path, err)
	}
	return payload{json: b}, nil
}

func (c *Client) send(ctx context.Context, r Request, version string, p payload) (*http.Response, error) {
	if r.Meanwhile != nil {
		if c.local == nil {
			r.Meanwhile()
		}
		ctx = context.WithValue(ctx, meanwhileKey{}, r.Meanwhile)
	}
	if p.stream != nil {
		entry.AllProcessors() // more than a moment's work
	}
	req, err := c.newRequest(ctx, r, version, p)
	if err != nil {
		return nil, err
	}
	return c.http.Do(req)
}

func (c *Client) newRequest(ctx context.Context, r Request, version string, p payload) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, r.Method, c.url(r, version), p.reader())
	if err != nil {
		return nil, err
	}
	if !strings.HasPrefix(c.opts.Host, "tcp") && !strings.HasPrefix(c.opts.Host, "http") {
		req.Host = "api.wherry.localhost"
	}
	for k, v := range c.opts.Headers {
		req.Header.Set(k, v)
	}
	if c.opts.UserAgent != "" {
		req.Header.Set("User-Agent", c.opts.UserAgent)
	}
	for k, v := range r.Header {
		req.Header[k] = v
	}
	switch {
	case p.json != nil:
		req.Header.Set("Content-Type", "application/json")
	case p.stream != nil && req.Header.Get("Content-Type") == "":
		req.Header.Set("Content-Type", "application/x-tar")
	}
	return req, nil
}

func (c *Client) url(r Request, version string) string {
	var b strings.Builder
	b.WriteString(c.base)
	if !r.Unversioned {
		b.WriteString("/v")
		b.WriteString(version)
	}
	b.WriteString(r.Path)
	if len(r.Query) > 0 {
		b.WriteByte('?')
		b.WriteString(r.Query.Encode())
	}
	return b.String()
}

// drain lets the connection be used again.
func drain(resp *http.Response) {
	_, _ = io.CopyN(io.Discard, resp.Body, 64<<10)
	_ = resp.Body.Close()
}
