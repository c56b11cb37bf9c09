package client

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
)

// daemon is a server on a unix socket that speaks up to one API version and
// notes what it was asked.
type daemon struct {
	mu      sync.Mutex
	version string
	asked   []string
	handle  http.HandlerFunc
}

func (d *daemon) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	d.mu.Lock()
	d.asked = append(d.asked, r.Method+" "+r.URL.Path)
	d.mu.Unlock()
	w.Header().Set("Api-Version", d.version)
	if v, _, ok := strings.Cut(strings.TrimPrefix(r.URL.Path, "/v"), "/"); ok && strings.HasPrefix(r.URL.Path, "/v") && Older(d.version, v) {
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprint(w, `{"message":"too new"}`)
		return
	}
	if d.handle != nil {
		d.handle(w, r)
	}
}

func serve(t *testing.T, d *daemon) *Client {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: d}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.Serve(l)
	}()
	c, err := New(Options{Host: "unix://" + path})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Close()
		_ = srv.Close()
		<-done
	})
	return c
}

func TestNegotiation(t *testing.T) {
	for _, tc := range []struct {
		name, server string
		call         func(*Client) error
		asked        []string
		settled      string
	}{
		{
			"newer daemon: no extra request", "1.99",
			func(c *Client) error { return c.Get(t.Context(), "/a", nil, nil) },
			[]string{"GET /v1.56/a"}, "1.56",
		},
		{
			"older daemon: asked again", "1.41",
			func(c *Client) error {
				return errors.Join(c.Post(t.Context(), "/a", nil, map[string]int{"x": 1}, nil), c.Get(t.Context(), "/b", nil, nil))
			},
			[]string{"POST /v1.56/a", "POST /v1.41/a", "GET /v1.41/b"}, "1.41",
		},
		{
			"a body that can be sent once: ping first", "1.41",
			func(c *Client) error {
				return c.Call(t.Context(), Request{Method: http.MethodPut, Path: "/a", Body: strings.NewReader("x")}, nil)
			},
			[]string{"HEAD /_ping", "PUT /v1.41/a"}, "1.41",
		},
		{
			"hijack", "1.41",
			func(c *Client) error {
				h, err := c.Hijack(t.Context(), Request{Method: http.MethodPost, Path: "/a"})
				if err == nil {
					err = h.Close()
				}
				return err
			},
			[]string{"POST /v1.56/a", "POST /v1.41/a"}, "1.41",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := &daemon{version: tc.server}
			c := serve(t, d)
			if err := tc.call(c); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.asked, d.asked); diff != "" {
				t.Error(diff)
			}
			if c.Version() != tc.settled {
				t.Errorf("settled on %s, want %s", c.Version(), tc.settled)
			}
		})
	}
}

func TestPinnedVersion(t *testing.T) {
	d := &daemon{version: "1.41"}
	c := serve(t, d)
	c.version, c.settled = "1.50", true
	if err := c.Get(t.Context(), "/a", nil, nil); !errdefs.IsInvalidArgument(err) {
		t.Errorf("got %v", err)
	}
	if len(d.asked) != 1 {
		t.Errorf("asked %v", d.asked)
	}
}

func TestErrors(t *testing.T) {
	for status, is := range map[int]func(error) bool{
		400: errdefs.IsInvalidArgument, 401: errdefs.IsUnauthorized, 403: errdefs.IsPermissionDenied,
		404: errdefs.IsNotFound, 409: errdefs.IsConflict, 500: errdefs.IsInternal,
		501: errdefs.IsNotImplemented, 503: errdefs.IsUnavailable, 418: errdefs.IsUnknown,
	} {
		d := &daemon{version: "1.99", handle: func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			fmt.Fprint(w, `{"message":"told you"}`)
		}}
		err := serve(t, d).Get(t.Context(), "/a", nil, nil)
		if !is(err) || err.Error() != "Error response from daemon: told you" {
			t.Errorf("%d: got %v", status, err)
		}
	}
	d := &daemon{version: "1.99", handle: func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }}
	if err := serve(t, d).Get(t.Context(), "/a", nil, nil); err == nil || !strings.Contains(err.Error(), "request returned 500") {
		t.Errorf("got %v", err)
	}
}

func TestUnreachable(t *testing.T) {
	c, err := New(Options{Host: "unix:///nosuch/socket"})
	if err != nil {
		t.Fatal(err)
	}
	err = c.Get(t.Context(), "/a", nil, nil)
	var conn *ConnError
	if !errors.As(err, &conn) || !errors.Is(err, os.ErrNotExist) || !errdefs.IsUnavailable(err) {
		t.Errorf("got %#v", err)
	}
	if _, err := c.Hijack(t.Context(), Request{Method: http.MethodPost, Path: "/a"}); !errors.As(err, &conn) {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("why")
	cancel(why)
	if err := c.Get(ctx, "/a", nil, nil); !errors.Is(err, why) {
		t.Errorf("got %v", err)
	}
}

func TestHosts(t *testing.T) {
	for host, base := range map[string]string{
		"unix:///x": "http://api.wherry.localhost", "tcp://h:1": "http://h:1", "tcp://h": "http://h:2375",
		"https://h": "https://h:2376", "http://h:80/p/": "http://h:80/p", "tcp://[::1]:5": "http://[::1]:5", "ssh://u@h": "http://api.wherry.localhost",
	} {
		c, err := New(Options{Host: host})
		if err != nil || c.base != base {
			t.Errorf("%s: got %v %v", host, c, err)
		}
	}
	for _, bad := range []string{"", "x", "foo://x", "fd://", "tcp://", "ssh://", "ssh://-oProxyCommand=x", "ssh://-l@h", "ssh://u:p@h", "ssh://h/path", "npipe:////x"} {
		if _, err := New(Options{Host: bad}); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}

func TestSSHArgs(t *testing.T) {
	got, err := sshArgs("ssh://me@host:2222")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"-o", "ConnectTimeout=30", "-T", "-l", "me", "-p", "2222", "--", "host"}, got); diff != "" {
		t.Error(diff)
	}
}

// TestHijack sends both ways and closes one.
func TestHijack(t *testing.T) {
	d := &daemon{version: "1.99", handle: func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.ReadAll(r.Body)
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		fmt.Fprint(conn, "HTTP/1.1 101 UPGRADED\r\nContent-Type: application/x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\nfirst ")
		in, _ := io.ReadAll(rw)
		fmt.Fprintf(conn, "then %s", in)
	}}
	h, err := serve(t, d).Hijack(t.Context(), Request{Method: http.MethodPost, Path: "/a", JSON: map[string]bool{"Tty": true}})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close() //nolint:errcheck // the test is over
	if h.MediaType != "application/x" {
		t.Errorf("got %q", h.MediaType)
	}
	if _, err := io.WriteString(h, "input"); err != nil {
		t.Fatal(err)
	}
	if err := h.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	out, err := io.ReadAll(h)
	if err != nil || string(out) != "first then input" {
		t.Errorf("got %q %v", out, err)
	}
}

func frames(parts ...any) []byte {
	var b []byte
	for i := 0; i < len(parts); i += 2 {
		p := []byte(parts[i+1].(string))
		h := make([]byte, 8)
		h[0] = byte(parts[i].(int))
		binary.BigEndian.PutUint32(h[4:], uint32(len(p)))
		b = append(append(b, h...), p...)
	}
	return b
}

func TestDemux(t *testing.T) {
	big := strings.Repeat("x", 100_000)
	var out, errOut bytes.Buffer
	if err := Demux(&out, &errOut, bytes.NewReader(frames(1, "a", 2, "b", 1, big, 0, "c", 1, ""))); err != nil {
		t.Fatal(err)
	}
	if out.String() != "a"+big+"c" || errOut.String() != "b" {
		t.Errorf("got %d bytes and %q", out.Len(), errOut.String())
	}
	for name, raw := range map[string][]byte{
		"cut header": {1, 0, 0}, "cut frame": frames(1, "abc")[:10], "unknown stream": frames(7, "x"), "daemon's error": frames(3, "boom"),
	} {
		if err := Demux(io.Discard, io.Discard, bytes.NewReader(raw)); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func FuzzDemux(f *testing.F) {
	f.Add(frames(1, "a", 2, "b"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		var n counter
		_ = Demux(&n, &n, bytes.NewReader(raw))
		if int(n) > len(raw) {
			t.Errorf("%d bytes out of %d", n, len(raw))
		}
	})
}

type counter int

func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}
