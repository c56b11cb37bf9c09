package containers

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"encoding/json"
	"io"
	"iter"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	apicontainer "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"

	"github.com/wherry-engine/wherry/api/route"
	"github.com/wherry-engine/wherry/container"
	"github.com/wherry-engine/wherry/logs"
)

// fake answers what a test sets and records what it was asked.
type fake struct {
	Backend
	created container.CreateRequest
	stopped container.StopRequest
	put     string
	logged  container.LogsRequest
	lines   []logs.Message
	tty     bool
}

func (f *fake) Create(_ context.Context, req container.CreateRequest) (container.Created, error) {
	f.created = req
	return container.Created{ID: "id"}, nil
}

func (f *fake) Stop(_ context.Context, _ string, req container.StopRequest) error {
	f.stopped = req
	return nil
}

func (f *fake) ArchivePut(_ context.Context, _ string, _ container.PutRequest, r io.Reader) error {
	b, err := io.ReadAll(r)
	f.put = string(b)
	return err
}

func (f *fake) Logs(_ context.Context, _ string, req container.LogsRequest) (iter.Seq2[logs.Message, error], bool, error) {
	f.logged = req
	return func(yield func(logs.Message, error) bool) {
		for _, m := range f.lines {
			if !yield(m, nil) {
				return
			}
		}
	}, f.tty, nil
}

func (f *fake) Inspect(context.Context, string, bool) (apicontainer.InspectResponse, error) {
	return apicontainer.InspectResponse{
		ID: "id", Driver: "overlayfs", Config: &apicontainer.Config{}, HostConfig: &apicontainer.HostConfig{NetworkMode: "bridge"},
		NetworkSettings: &apicontainer.NetworkSettings{Networks: map[string]*network.EndpointSettings{
			"bridge": {EndpointID: "ep", IPPrefixLen: 24},
		}},
	}, nil
}

func call(h route.Handler, version, method, target, body string) (*httptest.ResponseRecorder, error) {
	r := httptest.NewRequestWithContext(context.Background(), method, target, strings.NewReader(body))
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	w := httptest.NewRecorder()
	return w, h(w, route.WithVars(r, map[string]string{"id": "c"}, version))
}

func TestCreateAdaptsOldClients(t *testing.T) {
	body := `{"Image":"x","MacAddress":"02:00:00:00:00:01","Healthcheck":{"StartInterval":5000000000},
		"HostConfig":{"AutoRemove":true,"Annotations":{"a":"b"},"Mounts":[{"Type":"bind","ReadOnly":true,"BindOptions":{"CreateMountpoint":true}}]}}`
	for _, tc := range []struct {
		version string
		check   func(container.CreateRequest) bool
	}{
		{"1.24", func(r container.CreateRequest) bool { return !r.HostConfig.AutoRemove }},
		{"1.39", func(r container.CreateRequest) bool { return r.HostConfig.IpcMode.IsShareable() }},
		{"1.40", func(r container.CreateRequest) bool {
			return r.HostConfig.CgroupnsMode.IsHost() && r.HostConfig.IpcMode == ""
		}},
		{"1.41", func(r container.CreateRequest) bool { return !r.HostConfig.Mounts[0].BindOptions.CreateMountpoint }},
		{"1.42", func(r container.CreateRequest) bool { return r.HostConfig.Annotations == nil }},
		{"1.43", func(r container.CreateRequest) bool {
			return r.Config.Healthcheck.StartInterval == 0 && r.HostConfig.Mounts[0].BindOptions.ReadOnlyNonRecursive
		}},
		{"1.44", func(r container.CreateRequest) bool {
			return r.Config.Healthcheck.StartInterval == 5*time.Second && r.HostConfig.Annotations["a"] == "b" &&
				cmp.Equal(r.HostConfig.Mounts[0].BindOptions, &mount.BindOptions{CreateMountpoint: true})
		}},
	} {
		t.Run(tc.version, func(t *testing.T) {
			f := &fake{}
			w, err := call(New(f).Create, tc.version, "POST", "/?name=n", body)
			if err != nil || w.Code != http.StatusCreated {
				t.Fatalf("%d %v", w.Code, err)
			}
			if !tc.check(f.created) {
				t.Errorf("request: %+v %+v", f.created.Config, f.created.HostConfig)
			}
			if ep := f.created.Networking.EndpointsConfig["bridge"]; ep == nil || ep.MacAddress.String() != "02:00:00:00:00:01" {
				t.Errorf("the container's MAC address: %+v", ep)
			}
		})
	}
}

func TestCreateRefuses(t *testing.T) {
	for name, tc := range map[string]struct{ version, body string }{
		"no body":          {"1.44", ""},
		"not an object":    {"1.44", `[]`},
		"no configuration": {"1.44", `{}`},
		"bad MAC address":  {"1.44", `{"Image":"x","MacAddress":"zz"}`},
		"two networks":     {"1.43", `{"Image":"x","NetworkingConfig":{"EndpointsConfig":{"a":{},"b":{}}}}`},
		"trailing":         {"1.44", `{"Image":"x"}{"Image":"y"}`},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := call(New(&fake{}).Create, tc.version, "POST", "/", tc.body); !errdefs.IsInvalidArgument(err) {
				t.Errorf("error: %v", err)
			}
		})
	}
}

func TestStopParameters(t *testing.T) {
	f := &fake{}
	h := New(f)
	if w, err := call(h.Stop, "1.44", "POST", "/?t=-1&signal=INT", ""); err != nil || w.Code != http.StatusNoContent {
		t.Fatal(w.Code, err)
	}
	if f.stopped.Signal != "INT" || *f.stopped.Timeout != -1 {
		t.Errorf("request: %+v", f.stopped)
	}
	if _, err := call(h.Stop, "1.41", "POST", "/?signal=INT", ""); err != nil || f.stopped.Signal != "" || f.stopped.Timeout != nil {
		t.Errorf("an old client's: %+v %v", f.stopped, err)
	}
	if _, err := call(h.Stop, "1.44", "POST", "/?t=soon", ""); !errdefs.IsInvalidArgument(err) {
		t.Errorf("error: %v", err)
	}
}

func TestLogFrames(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	f := &fake{lines: []logs.Message{
		{Stream: logs.Stdout, Time: at, Line: []byte("begin "), Partial: true},
		{Stream: logs.Stdout, Time: at, Line: []byte("end\n")},
		{Stream: logs.Stderr, Time: at, Line: []byte("oops\n"), Attrs: map[string]string{"b": "2", "a": "x y"}},
	}}
	w, err := call(New(f).Logs, "1.44", "GET", "/?stdout=1&stderr=1&timestamps=1&details=1&tail=3", "")
	if err != nil {
		t.Fatal(err)
	}
	if f.logged.Tail != 3 || w.Header().Get("Content-Type") != multiplexedStream {
		t.Errorf("%+v, %s", f.logged, w.Header())
	}
	stamp := "2026-01-02T03:04:05.000000006Z "
	want := []string{"1 " + stamp + " begin ", "1 end\n", "2 " + stamp + "a=x+y,b=2 oops\n"}
	if diff := cmp.Diff(want, frames(t, w.Body.Bytes())); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	f.tty = true
	if w, _ = call(New(f).Logs, "1.44", "GET", "/?stdout=1", ""); w.Body.String() != "begin end\noops\n" || w.Header().Get("Content-Type") != rawStream {
		t.Errorf("of a terminal: %q", w.Body)
	}
	if _, err := call(New(f).Logs, "1.44", "GET", "/", ""); !errdefs.IsInvalidArgument(err) {
		t.Errorf("no stream: %v", err)
	}
}

func frames(t *testing.T, p []byte) (out []string) {
	t.Helper()
	for len(p) >= 8 {
		n := int(binary.BigEndian.Uint32(p[4:8]))
		out = append(out, string('0'+p[0])+" "+string(p[8:8+n]))
		p = p[8+n:]
	}
	if len(p) > 0 {
		t.Errorf("%d bytes too many", len(p))
	}
	return out
}

func TestArchiveIsDecompressed(t *testing.T) {
	var gz bytes.Buffer
	zw := gzip.NewWriter(&gz)
	_, _ = zw.Write([]byte("payload"))
	_ = zw.Close()
	for name, body := range map[string]string{"plain": "payload", "gzip": gz.String()} {
		f := &fake{}
		if _, err := call(New(f).ArchivePut, "1.44", "PUT", "/?path=/", body); err != nil || f.put != "payload" {
			t.Errorf("%s: %q %v", name, f.put, err)
		}
	}
	if _, err := call(New(&fake{}).ArchivePut, "1.44", "PUT", "/?path=/", "\xfd7zXZ\x00..."); !errdefs.IsInvalidArgument(err) {
		t.Errorf("xz: %v", err)
	}
	if _, err := call(New(&fake{}).ArchivePut, "1.44", "PUT", "/", "x"); !errdefs.IsInvalidArgument(err) {
		t.Errorf("no path: %v", err)
	}
}

func TestInspectForOldClients(t *testing.T) {
	w, err := call(New(&fake{}).Inspect, "1.44", "GET", "/", "")
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		NetworkSettings struct {
			EndpointID  string
			IPPrefixLen int
		}
		GraphDriver struct{ Name string }
	}
	if err := json.Unmarshal(w.Body.Bytes(), &doc); err != nil {
		t.Fatal(err)
	}
	if doc.NetworkSettings.EndpointID != "ep" || doc.NetworkSettings.IPPrefixLen != 24 || doc.GraphDriver.Name != "overlayfs" {
		t.Errorf("%s", w.Body)
	}
	w, err = call(New(&fake{}).Inspect, "1.56", "GET", "/", "")
	if err != nil || strings.Contains(w.Body.String(), "HairpinMode") {
		t.Errorf("today's: %s %v", w.Body, err)
	}
}

func TestHeads(t *testing.T) {
	r := httptest.NewRequestWithContext(context.Background(), "POST", "/", nil)
	r = route.WithVars(r, nil, "1.44")
	w := httptest.NewRecorder()
	w.Header().Set("Api-Version", "1.56")
	if got := string((&hijacker{w: w, r: r}).head("x/y")); got != "HTTP/1.1 200 OK\r\nContent-Type: x/y\r\nApi-Version: 1.56\r\n\r\n" {
		t.Errorf("%q", got)
	}
	r.Header.Set("Upgrade", "tcp")
	if got := string((&hijacker{w: w, r: r}).head("x/y")); !strings.HasPrefix(got, "HTTP/1.1 101 UPGRADED\r\n") || !strings.Contains(got, "Upgrade: tcp\r\n") {
		t.Errorf("%q", got)
	}
}
