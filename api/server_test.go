package api

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"

	"github.com/wherry-engine/wherry/api/route"
)

// Every row of the surface has a route that its path reaches.
func TestSurfaceIsInTheTable(t *testing.T) {
	data, err := os.ReadFile("testdata/surface.tsv")
	if err != nil {
		t.Fatal(err)
	}
	rt := newRouter(Routes(Groups{}))
	for line := range strings.Lines(string(data)) {
		f := strings.Split(strings.TrimRight(line, "\n"), "\t")
		method, pattern, minVersion := f[0], f[1], f[2]
		path := strings.NewReplacer("{id}", "X", "{name}", "X", "{checkpoint}", "X", "{anyroute}", "a/b").Replace(pattern)
		r, _ := rt.find(method, path)
		if r == nil {
			t.Errorf("%s %s: no route", method, path)
			continue
		}
		if r.Min != minVersion {
			t.Errorf("%s %s: minimum version %q, want %q", method, path, r.Min, minVersion)
		}
		if !strings.Contains(path, "X") && r.Path != pattern && !strings.HasPrefix(path, "/debug/") && method != http.MethodOptions {
			t.Errorf("%s %s: reaches %s", method, path, r.Path)
		}
	}
}

func TestRouting(t *testing.T) {
	rt := newRouter(Routes(Groups{}))
	for _, tc := range []struct{ method, path, want, variable string }{
		{"GET", "/images/json", "/images/json", ""},
		{"GET", "/images/a/b:1/json", "/images/{name:.*}/json", "a/b:1"},
		{"GET", "/images/host:5000/a/json/json", "/images/{name:.*}/json", "host:5000/a/json"},
		{"DELETE", "/images/a/b", "/images/{name:.*}", "a/b"},
		{"POST", "/images/create", "/images/create", ""},
		{"GET", "/containers/x/json", "/containers/{id:.*}/json", "x"},
		{"GET", "/containers/x/attach/ws", "/containers/{id:.*}/attach/ws", "x"},
		{"GET", "/networks/", "/networks/", ""},
		{"GET", "/networks/a", "/networks/{id}", "a"},
		{"GET", "/networks/a/b", "", ""},
		{"GET", "/containers//json", "", ""},
		{"PUT", "/containers/json", "", ""},
		{"GET", "/", "", ""},
		{"GET", "", "", ""},
		{"OPTIONS", "/what/ever", "/{anyroute:.*}", "what/ever"},
	} {
		r, vars := rt.find(tc.method, tc.path)
		got, variable := "", ""
		if r != nil {
			got = r.Path
			for _, v := range vars {
				variable = v
			}
		}
		if got != tc.want || variable != tc.variable {
			t.Errorf("%s %s: %q with %q, want %q with %q", tc.method, tc.path, got, variable, tc.want, tc.variable)
		}
	}
}

func newTestServer(t *testing.T, log io.Writer, h route.Handler) *httptest.Server {
	t.Helper()
	s := New(Options{
		Routes: []Route{
			{"GET", "/thing/{name:.*}", "1.30", h},
			{"POST", "/absent", "", nil},
		},
		Logger: slog.New(slog.NewTextHandler(log, nil)), ServerVersion: "9",
	})
	srv := httptest.NewServer(s)
	t.Cleanup(srv.Close)
	return srv
}

func get(t *testing.T, method, url string) (int, string, http.Header) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, strings.TrimSpace(string(body)), resp.Header
}

func TestVersions(t *testing.T) {
	srv := newTestServer(t, io.Discard, func(w http.ResponseWriter, r *http.Request) error {
		_, err := io.WriteString(w, route.Version(r)+" "+route.Var(r, "name"))
		return err
	})
	for _, tc := range []struct {
		method, path string
		status       int
		body         string
	}{
		{"GET", "/thing/a/b", 200, CurrentVersion + " a/b"},
		{"GET", "/v1.44/thing/a", 200, "1.44 a"},
		{"GET", "/v" + CurrentVersion + "/thing/a%2Fb", 200, CurrentVersion + " a/b"},
		{"GET", "/v1.99/thing/a", 400, `{"message":"client version 1.99 is too new. Maximum supported API version is ` + CurrentVersion + `"}`},
		{"GET", "/v1.12/thing/a", 400, `{"message":"client version 1.12 is too old. Minimum supported API version is 1.24, please upgrade your client to a newer version"}`},
		{"GET", "/v1.29/thing/a", 400, `{"message":"GET /thing/{name:.*} requires API version 1.30 or newer, the client uses 1.29"}`},
		{"GET", "/v1.99/nothing", 404, `{"message":"page not found"}`},
		{"GET", "/vX/thing/a", 404, `{"message":"page not found"}`},
		{"POST", "/thing/a", 404, `{"message":"page not found"}`},
		{"POST", "/absent", 501, `{"message":"POST /absent is not implemented by this engine yet"}`},
	} {
		status, body, head := get(t, tc.method, srv.URL+tc.path)
		if status != tc.status || body != tc.body {
			t.Errorf("%s %s: %d %s", tc.method, tc.path, status, body)
		}
		if head.Get("Api-Version") != CurrentVersion || head.Get("Ostype") != "linux" || head.Get("Server") != "Wherry/9 (linux)" {
			t.Errorf("%s %s: headers %v", tc.method, tc.path, head)
		}
	}
}

func TestErrors(t *testing.T) {
	for class, want := range map[error]int{
		errdefs.ErrInvalidArgument: 400, errdefs.ErrOutOfRange: 400, errdefs.ErrUnauthenticated: 401, errdefs.ErrPermissionDenied: 403,
		errdefs.ErrNotFound: 404, errdefs.ErrConflict: 409, errdefs.ErrAlreadyExists: 409, errdefs.ErrFailedPrecondition: 409,
		errdefs.ErrAborted: 409, errdefs.ErrResourceExhausted: 429, errdefs.ErrInternal: 500, errdefs.ErrDataLoss: 500,
		errdefs.ErrUnknown: 500, errdefs.ErrNotImplemented: 501, errdefs.ErrUnavailable: 503,
		context.DeadlineExceeded: 504, errors.New("x"): 500,
	} {
		srv := newTestServer(t, io.Discard, func(http.ResponseWriter, *http.Request) error {
			return fmt.Errorf("No such thing: %w", class) //nolint:staticcheck // as clients see it
		})
		status, body, _ := get(t, "GET", srv.URL+"/thing/a")
		msg := "No such thing"
		if errdefs.Resolve(class) == errdefs.ErrUnknown && class != errdefs.ErrUnknown {
			msg += ": " + class.Error()
		}
		if diff := cmp.Diff(fmt.Sprintf(`%d {"message":%q}`, want, msg), fmt.Sprintf("%d %s", status, body)); diff != "" {
			t.Errorf("%v: %s", class, diff)
		}
	}
}

func TestNotModifiedHasNoBody(t *testing.T) {
	srv := newTestServer(t, io.Discard, func(http.ResponseWriter, *http.Request) error { return errdefs.ErrNotModified })
	if status, body, _ := get(t, "GET", srv.URL+"/thing/a"); status != 304 || body != "" {
		t.Errorf("%d %q", status, body)
	}
}

func TestPanicIsAnError(t *testing.T) {
	var log bytes.Buffer
	srv := newTestServer(t, &log, func(http.ResponseWriter, *http.Request) error { panic("broken") })
	status, body, _ := get(t, "GET", srv.URL+"/thing/a")
	if status != 500 || !strings.Contains(body, `"message"`) {
		t.Errorf("%d %s", status, body)
	}
	srv.Close()
	if !strings.Contains(log.String(), "broken") {
		t.Error("the panic was not logged")
	}
}

func TestErrorAfterTheAnswerBegan(t *testing.T) {
	srv := newTestServer(t, io.Discard, func(w http.ResponseWriter, _ *http.Request) error {
		if _, err := io.WriteString(w, "half"); err != nil {
			return err
		}
		return errors.New("late")
	})
	if status, body, _ := get(t, "GET", srv.URL+"/thing/a"); status != 200 || body != "half" {
		t.Errorf("%d %q", status, body)
	}
}

// At a shutdown streams end at once, and other requests are waited for.
func TestShutdown(t *testing.T) {
	began := make(chan struct{}, 2)
	release := make(chan struct{})
	ended := make(chan string, 2)
	s := New(Options{
		Routes: []Route{
			{"GET", "/events", "", func(_ http.ResponseWriter, r *http.Request) error {
				began <- struct{}{}
				<-r.Context().Done()
				ended <- "stream"
				close(release)
				return nil
			}},
			{"GET", "/work", "", func(_ http.ResponseWriter, r *http.Request) error {
				began <- struct{}{}
				<-release
				if r.Context().Err() != nil {
					t.Error("a request was cut off")
				}
				ended <- "work"
				return nil
			}},
		},
		Logger: slog.New(slog.DiscardHandler),
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.Serve(l)
	for _, path := range []string{"/events", "/work"} {
		go func() {
			if resp, err := http.Get("http://" + l.Addr().String() + path); err == nil { //nolint:noctx // ends with the server
				resp.Body.Close()
			}
		}()
	}
	<-began
	<-began
	s.Shutdown(t.Context())
	if a, b := <-ended, <-ended; a != "stream" || b != "work" {
		t.Errorf("%s ended before %s", a, b)
	}
}

// The routes that are streams exist.
func TestStreamsAreRoutes(t *testing.T) {
	known := map[string]bool{}
	for _, r := range Routes(Groups{}) {
		known[r.Method+" "+r.Path] = true
	}
	for name := range streams {
		if !known[name] {
			t.Errorf("%s is not in the table", name)
		}
	}
	for name := range quirks {
		if !known[name] {
			t.Errorf("quirk of %s, which is not in the table", name)
		}
	}
}
