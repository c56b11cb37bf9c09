package volumes

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	apievents "github.com/moby/moby/api/types/events"
	apivolume "github.com/moby/moby/api/types/volume"

	"github.com/wherry-engine/wherry/api/route"
)

// backend holds volumes, each of 10 bytes; the value tells who uses it.
type backend struct {
	all  []apivolume.Volume
	used map[string]string
}

func (b *backend) Create(_ context.Context, r apivolume.CreateRequest) (apivolume.Volume, error) {
	return apivolume.Volume{Name: r.Name}, nil
}
func (b *backend) Get(_ context.Context, name string) (v apivolume.Volume, err error) {
	return v, fmt.Errorf("get %s: no such volume: %w", name, errdefs.ErrNotFound)
}
func (b *backend) List(context.Context) ([]apivolume.Volume, error) { return b.all, nil }
func (b *backend) Delete(context.Context, string, bool) error       { return nil }
func (b *backend) Users(name string) []string {
	if u := b.used[name]; u != "" {
		return []string{u}
	}
	return nil
}
func (b *backend) Usage(context.Context, string) (int64, error) { return 10, nil }

type bus struct{ actions []string }

func (b *bus) Publish(_ apievents.Type, action apievents.Action, _ string, attrs map[string]string) {
	b.actions = append(b.actions, string(action)+" "+attrs["reclaimed"])
}

func sample() *backend {
	anonymous := map[string]string{anonymousLabel: ""}
	return &backend{
		all: []apivolume.Volume{
			{Name: "anon", Driver: "local", Labels: anonymous},
			{Name: "named", Driver: "local", Labels: map[string]string{"a": "b"}},
			{Name: "used", Driver: "local", Labels: anonymous},
		},
		used: map[string]string{"used": "c1"},
	}
}

func do(t *testing.T, h route.Handler, method, filters, version string, v any) {
	t.Helper()
	r := httptest.NewRequest(method, "/?filters="+url.QueryEscape(filters), nil)
	w := httptest.NewRecorder()
	if err := h(w, route.WithVars(r, map[string]string{"name": "x"}, version)); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(w.Body.Bytes(), v); err != nil {
		t.Fatal(err)
	}
}

func TestList(t *testing.T) {
	h := New(sample(), &bus{})
	for filters, want := range map[string]string{
		``: "anon named used", `{"dangling":["true"]}`: "anon named", `{"dangling":["0"]}`: "used",
		`{"label":["a=b"]}`: "named", `{"label":["a=c"]}`: "", `{"name":["a"]}`: "anon named", `{"driver":["local"]}`: "anon named used", `{"driver":["x"]}`: "",
	} {
		var resp apivolume.ListResponse
		do(t, h.List, "GET", filters, "1.44", &resp)
		names := []string{}
		for _, v := range resp.Volumes {
			names = append(names, v.Name)
		}
		if got := strings.Join(names, " "); got != want {
			t.Errorf("%s: %s", filters, got)
		}
	}
}

func TestPrune(t *testing.T) {
	for _, tc := range []struct{ filters, version, want string }{
		{``, "1.44", "anon"},
		{`{"all":["true"]}`, "1.44", "anon named"},
		{``, "1.41", "anon named"},
		{`{"all":["1"],"label!":["a"]}`, "1.44", "anon"},
		{`{"all":["1"],"label":["a=b"]}`, "1.44", "named"},
	} {
		events := &bus{}
		var resp apivolume.PruneReport
		do(t, New(sample(), events).Prune, "POST", tc.filters, tc.version, &resp)
		if got := strings.Join(resp.VolumesDeleted, " "); got != tc.want {
			t.Errorf("%s, %s: %s", tc.filters, tc.version, got)
		}
		want := []string{fmt.Sprintf("prune %d", resp.SpaceReclaimed)}
		if diff := cmp.Diff(want, events.actions); diff != "" || resp.SpaceReclaimed != uint64(10*len(resp.VolumesDeleted)) {
			t.Error(diff, resp.SpaceReclaimed)
		}
	}
}

func TestUnknownFilter(t *testing.T) {
	r := httptest.NewRequest("GET", "/?filters="+url.QueryEscape(`{"x":["y"]}`), nil)
	if err := New(sample(), &bus{}).List(httptest.NewRecorder(), r); !errdefs.IsInvalidArgument(err) {
		t.Errorf("err = %v", err)
	}
}
