package system

import (
	"context"
	"encoding/json"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/api/types/container"
	apievents "github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/system"
	"github.com/moby/moby/api/types/volume"

	"github.com/wherry-engine/wherry/api/route"
)

// past replays fixed events.
type past []apievents.Message

func (p past) Subscribe(_ context.Context, _, _ time.Time, match func(apievents.Message) bool) <-chan apievents.Message {
	ch := make(chan apievents.Message, len(p))
	for _, m := range p {
		if match == nil || match(m) {
			ch <- m
		}
	}
	close(ch)
	return ch
}

func message(typ apievents.Type, action, id string, attrs ...string) apievents.Message {
	m := apievents.Message{Type: typ, Action: apievents.Action(action), Scope: "local", Time: 1, TimeNano: 1e9}
	m.Actor.ID, m.Actor.Attributes = id, map[string]string{}
	for i := 0; i < len(attrs); i += 2 {
		m.Actor.Attributes[attrs[i]] = attrs[i+1]
	}
	return m
}

var sample = past{
	message("container", "create", "c1aa", "name", "web", "image", "nginx:1", "tier", "front"),
	message("container", "exec_start: ls", "c1aa", "name", "web", "image", "nginx:1"),
	message("container", "health_status: healthy", "c2bb", "name", "db", "image", "redis"),
	message("image", "pull", "nginx:1", "name", "nginx:1"),
	message("network", "connect", "n1", "name", "bridge", "container", "c1aa"),
	message("volume", "create", "data", "driver", "local"),
	message("daemon", "reload", "d1", "name", "host"),
}

func TestEventFilters(t *testing.T) {
	for filter, want := range map[string][]int{
		``:                               {0, 1, 2, 3, 4, 5, 6},
		`{"type":["container"]}`:         {0, 1, 2},
		`{"type":["container","image"]}`: {0, 1, 2, 3},
		`{"container":["web"]}`:          {0, 1},
		`{"container":["c2"]}`:           {2},
		`{"container":["web"],"event":["create"]}`:   {0},
		`{"event":["exec_start"]}`:                   {1},
		`{"event":["health_status"]}`:                {2},
		`{"event":["health_status: healthy"]}`:       {2},
		`{"image":["nginx"]}`:                        {0, 1, 3},
		`{"image":["nginx:1"]}`:                      {0, 1, 3},
		`{"label":["tier=front"]}`:                   {0},
		`{"label":["tier"]}`:                         {0},
		`{"network":["bridge"]}`:                     {4},
		`{"volume":["data"]}`:                        {5},
		`{"daemon":["host"]}`:                        {6},
		`{"scope":["swarm"]}`:                        {},
		`{"container":{"web":true}}`:                 {0, 1},
		`{"container":["web"],"network":["bridge"]}`: {},
	} {
		f, err := route.DecodeFilters(filter)
		if err != nil {
			t.Fatal(err)
		}
		match := eventFilter(f)
		got := []int{}
		for i, m := range sample {
			if match == nil || match(m) {
				got = append(got, i)
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", filter, diff)
		}
	}
}

func ask(t *testing.T, h route.Handler, url, version, accept string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequest("GET", url, nil)
	r.Header.Set("Accept", accept)
	w := httptest.NewRecorder()
	if err := h(w, route.WithVars(r, nil, version)); err != nil {
		t.Fatal(err)
	}
	return w
}

func TestEventFormats(t *testing.T) {
	h := New(Options{Events: sample[:1]})
	for _, tc := range []struct{ version, accept, want, begins string }{
		{"1.44", "application/x-ndjson", "application/json", `{"status":"create","id":"c1aa","from":"nginx:1","Type":"container"`},
		{"1.52", "", "application/json", `{"Type":"container"`},
		{"1.52", "application/json-seq", "application/json-seq", "\x1e{\"Type\""},
		{"1.52", "application/x-ndjson", "application/x-ndjson", `{"Type"`},
		{"1.52", "application/jsonl", "application/json", `{"Type"`},
		{"1.53", "application/jsonl, text/plain", "application/jsonl", `{"Type"`},
	} {
		w := ask(t, h.Events, "/events?since=1", tc.version, tc.accept)
		if got := w.Header().Get("Content-Type"); got != tc.want || !strings.HasPrefix(w.Body.String(), tc.begins) {
			t.Errorf("%s, %s: %s, %.40q", tc.version, tc.accept, got, w.Body.String())
		}
	}
	for _, url := range []string{"/events?since=x", "/events?since=10&until=5", "/events?filters={"} {
		r := httptest.NewRequest("GET", url, nil)
		if err := h.Events(httptest.NewRecorder(), r); err == nil {
			t.Errorf("%s: no error", url)
		}
	}
}

func TestDataUsageShapes(t *testing.T) {
	h := New(Options{Usage: Usage{
		Images: func(context.Context) ([]image.Summary, int64, error) {
			return []image.Summary{{ID: "i1", Size: 100, SharedSize: 40, Containers: 1}, {ID: "i2", Size: 50, SharedSize: 40}}, 110, nil
		},
		Containers: func(context.Context) ([]container.Summary, error) {
			return []container.Summary{{ID: "c1", State: "running", SizeRw: 10}, {ID: "c2", State: "exited", SizeRw: 5}}, nil
		},
		Volumes: func(context.Context) ([]volume.Volume, error) {
			return []volume.Volume{{Name: "v", UsageData: &volume.UsageData{Size: 7}}}, nil
		},
	}})
	keys := func(url, version string) (map[string]json.RawMessage, []string) {
		m := map[string]json.RawMessage{}
		if err := json.Unmarshal(ask(t, h.DataUsage, url, version, "").Body.Bytes(), &m); err != nil {
			t.Fatal(err)
		}
		names := []string{}
		for _, k := range []string{"BuildCache", "BuildCacheUsage", "ContainerUsage", "Containers", "ImageUsage", "Images", "LayersSize", "VolumeUsage", "Volumes"} {
			if _, ok := m[k]; ok {
				names = append(names, k)
			}
		}
		return m, names
	}
	for _, tc := range []struct {
		url, version string
		want         []string
	}{
		{"/", "1.44", []string{"BuildCache", "Containers", "Images", "LayersSize", "Volumes"}},
		{"/", "1.52", []string{"BuildCache", "ContainerUsage", "Containers", "ImageUsage", "Images", "LayersSize", "VolumeUsage", "Volumes"}},
		{"/?verbose=1", "1.52", []string{"ContainerUsage", "ImageUsage", "VolumeUsage"}},
		{"/", "1.53", []string{"ContainerUsage", "ImageUsage", "VolumeUsage"}},
		{"/?type=volume", "1.53", []string{"VolumeUsage"}},
	} {
		if _, got := keys(tc.url, tc.version); !cmp.Equal(tc.want, got) {
			t.Errorf("%s, %s: %v", tc.url, tc.version, got)
		}
	}
	var u system.DiskUsage
	if err := json.Unmarshal(ask(t, h.DataUsage, "/", "1.56", "").Body.Bytes(), &u); err != nil {
		t.Fatal(err)
	}
	want := system.DiskUsage{
		ImageUsage:     &image.DiskUsage{ActiveCount: 1, TotalCount: 2, TotalSize: 110, Reclaimable: 50},
		ContainerUsage: &container.DiskUsage{ActiveCount: 1, TotalCount: 2, TotalSize: 15, Reclaimable: 5},
		VolumeUsage:    &volume.DiskUsage{TotalCount: 1, TotalSize: 7, Reclaimable: 7},
	}
	if diff := cmp.Diff(want, u); diff != "" {
		t.Error(diff)
	}
	r := httptest.NewRequest("GET", "/?type=nope", nil)
	if err := h.DataUsage(httptest.NewRecorder(), r); err == nil {
		t.Error("an unknown type is accepted")
	}
}

func TestProfilesNeedDebug(t *testing.T) {
	debug := false
	h := New(Options{Debug: func() bool { return debug }})
	r := route.WithVars(httptest.NewRequest("GET", "/debug/pprof/goroutine", nil), map[string]string{"name": "goroutine"}, "1.44")
	if err := h.Profile(httptest.NewRecorder(), r); err == nil {
		t.Error("a profile without debug")
	}
	debug = true
	w := httptest.NewRecorder()
	if err := h.Profile(w, r); err != nil || w.Body.Len() == 0 {
		t.Errorf("profile: %v, %d bytes", err, w.Body.Len())
	}
}

func TestInfoShapes(t *testing.T) {
	for version, want := range map[string][]string{
		"1.41": {"BridgeNfIp6tables", "BridgeNfIptables", "KernelMemory", "KernelMemoryTCP"},
		"1.48": {"BridgeNfIp6tables", "BridgeNfIptables", "KernelMemoryTCP"},
		"1.51": {"FirewallBackend", "KernelMemoryTCP"},
		"1.52": {"FirewallBackend"},
	} {
		info := &system.Info{FirewallBackend: &system.FirewallInfo{Driver: "nftables"}}
		data, err := json.Marshal(forVersion(info, version))
		if err != nil {
			t.Fatal(err)
		}
		m := map[string]any{}
		if err := json.Unmarshal(data, &m); err != nil {
			t.Fatal(err)
		}
		got := []string{}
		for _, k := range []string{"BridgeNfIp6tables", "BridgeNfIptables", "FirewallBackend", "KernelMemory", "KernelMemoryTCP"} {
			if v, ok := m[k]; ok && v != nil {
				got = append(got, k)
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", version, diff)
		}
	}
}
