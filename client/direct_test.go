package client

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
)

// unixServer counts its connections.
func unixServer(t *testing.T, h http.HandlerFunc) (c *Client, conns *atomic.Int32, srv *httptest.Server) {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	conns = &atomic.Int32{}
	srv = httptest.NewUnstartedServer(h)
	srv.Listener = l
	srv.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			conns.Add(1)
		}
	}
	srv.Start()
	t.Cleanup(srv.Close)
	if c, err = New(Options{Host: "unix://" + l.Addr().String()}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c, conns, srv
}

func TestDirectReuse(t *testing.T) {
	c, conns, srv := unixServer(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			_, _ = io.Copy(w, r.Body)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
	ctx := context.Background()
	for range 3 {
		var out struct{ A string }
		if err := c.Post(ctx, "/x", nil, map[string]string{"A": "<ä>"}, &out); err != nil || out.A != "<ä>" {
			t.Fatal(out, err)
		}
		if err := c.Delete(ctx, "/x", nil, nil); err != nil {
			t.Fatal(err)
		}
	}
	if n := conns.Load(); n != 1 {
		t.Errorf("%d connections", n)
	}
	// The daemon closes what is idle, or is replaced: that is noticed before
	// anything is sent, because nothing may be sent twice.
	srv.CloseClientConnections()
	if err := c.Post(ctx, "/x", nil, map[string]string{}, nil); err != nil {
		t.Error(err)
	}
	if n := conns.Load(); n != 2 {
		t.Errorf("%d connections", n)
	}
}

func TestDirectAbandoned(t *testing.T) {
	release := make(chan struct{})
	c, conns, _ := unixServer(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, strings.Repeat("x", 1<<20))
		if r.URL.Query().Get("hang") != "" {
			w.(http.Flusher).Flush()
			<-release
		}
	})
	defer close(release)
	ctx, cancel := context.WithCancel(context.Background())
	// Not read to its end: the connection is not used again.
	body, err := c.Stream(ctx, Request{Method: http.MethodGet, Path: "/x"})
	if err != nil {
		t.Fatal(err)
	}
	if err := body.Close(); err != nil {
		t.Fatal(err)
	}
	// A context that ends ends the stream, too.
	body, err = c.Stream(ctx, Request{Method: http.MethodGet, Path: "/x", Query: map[string][]string{"hang": {"1"}}})
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	cancel()
	if _, err := io.Copy(io.Discard, body); err == nil {
		t.Error("the stream went on")
	}
	if n := conns.Load(); n != 2 {
		t.Errorf("%d connections", n)
	}
	if err := c.Get(ctx, "/x", nil, nil); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// TestDirectBigBody: what does not fit the socket's buffers goes another way,
// since the daemon may answer before it has read it.
func TestDirectBigBody(t *testing.T) {
	c, _, _ := unixServer(t, func(w http.ResponseWriter, _ *http.Request) { http.Error(w, `{"message":"no"}`, http.StatusBadRequest) })
	err := c.Post(context.Background(), "/x", nil, strings.Repeat("x", 8<<20), nil)
	var api *Error
	if !errors.As(err, &api) {
		t.Error(err)
	}
}

// TestAhead: what was opened ahead, while the daemon worked on a request, serves
// the requests that follow, those that take their connection over as well.
func TestAhead(t *testing.T) {
	sent := make(chan struct{})
	c, conns, _ := unixServer(t, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/v"+APIVersion+"/first":
			<-sent // the daemon has the request by then
		case r.Header.Get("Upgrade") != "":
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			_, _ = io.WriteString(conn, "HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\nhello")
		}
	})
	ctx := t.Context()
	calls := 0
	err := c.Call(ctx, Request{Method: http.MethodPost, Path: "/first", Meanwhile: func() {
		calls++
		c.Ahead(ctx, 2)
		close(sent)
	}}, nil)
	if err != nil || calls != 1 {
		t.Fatal(err, calls)
	}
	answer, err := c.SendHijack(ctx, Request{Method: http.MethodPost, Path: "/second"})
	if err != nil {
		t.Fatal(err)
	}
	body, err := c.Stream(ctx, Request{Method: http.MethodPost, Path: "/third"})
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	h, err := answer()
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	if text, err := io.ReadAll(h); err != nil || string(text) != "hello" {
		t.Errorf("%q, %v", text, err)
	}
	if err := c.Post(ctx, "/fourth", nil, nil, nil); err != nil {
		t.Error(err)
	}
	if n := conns.Load(); n != 3 {
		t.Errorf("%d connections", n)
	}
}
