package networks

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	apinetwork "github.com/moby/moby/api/types/network"

	"github.com/wherry-engine/wherry/api/route"
	"github.com/wherry-engine/wherry/network"
)

// fake is a network manager and connector that remembers.
type fake struct {
	list []apinetwork.Inspect
	said []string
}

func (f *fake) Create(_ context.Context, req network.CreateRequest) (apinetwork.CreateResponse, error) {
	f.said = append(f.said, "create "+req.Name)
	return apinetwork.CreateResponse{ID: "new"}, nil
}

func (f *fake) Get(_ context.Context, ref string) (apinetwork.Inspect, error) {
	for _, n := range f.list {
		if n.Name == ref {
			return n, nil
		}
	}
	return apinetwork.Inspect{}, fmt.Errorf("network %s not found: %w", ref, errdefs.ErrNotFound)
}

func (f *fake) List(context.Context) ([]apinetwork.Inspect, error) { return slices.Clone(f.list), nil }

func (f *fake) Delete(_ context.Context, ref string) error {
	f.said = append(f.said, "delete "+ref)
	return nil
}

func (f *fake) ConnectNetwork(_ context.Context, n, c string, s *apinetwork.EndpointSettings) error {
	f.said = append(f.said, fmt.Sprintf("connect %s %s %v", n, c, s != nil))
	return nil
}

func (f *fake) DisconnectNetwork(_ context.Context, n, c string, force bool) error {
	f.said = append(f.said, fmt.Sprintf("disconnect %s %s %v", n, c, force))
	return nil
}

func newFake() *fake {
	at := func(name, driver string, labels map[string]string, busy bool) apinetwork.Inspect {
		n := apinetwork.Inspect{Network: apinetwork.Network{
			Name: name, ID: "id-" + name, Driver: driver, Scope: "local", Labels: labels, Created: time.Unix(1000, 0),
		}, Containers: map[string]apinetwork.EndpointResource{}, Status: &apinetwork.Status{}}
		if busy {
			n.Containers["c"] = apinetwork.EndpointResource{Name: "c"}
		}
		return n
	}
	return &fake{list: []apinetwork.Inspect{
		at("bridge", "bridge", nil, false), at("host", "host", nil, false), at("none", "null", nil, false),
		at("front", "bridge", map[string]string{"tier": "web"}, true), at("back", "bridge", map[string]string{"tier": "db"}, false),
	}}
}

func do(t *testing.T, h route.Handler, version, target, body, id string) (*httptest.ResponseRecorder, error) {
	t.Helper()
	r := httptest.NewRequest(http.MethodPost, target, strings.NewReader(body))
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	} else {
		r = httptest.NewRequest(http.MethodGet, target, nil)
	}
	w := httptest.NewRecorder()
	return w, h(w, route.WithVars(r, map[string]string{"id": id}, version))
}

func TestList(t *testing.T) {
	tests := []struct {
		name, filters string
		want          []string
		bad           bool
	}{
		{name: "all", want: []string{"bridge", "host", "none", "front", "back"}},
		{name: "name", filters: `{"name":["on"]}`, want: []string{"none", "front"}},
		{name: "name pattern", filters: `{"name":["^b.*k$"]}`, want: []string{"back"}},
		{name: "id", filters: `{"id":["id-fr"]}`, want: []string{"front"}},
		{name: "driver", filters: `{"driver":{"null":true}}`, want: []string{"none"}},
		{name: "custom", filters: `{"type":["custom"]}`, want: []string{"front", "back"}},
		{name: "builtin", filters: `{"type":["builtin"]}`, want: []string{"bridge", "host", "none"}},
		{name: "label", filters: `{"label":["tier=db"]}`, want: []string{"back"}},
		{name: "dangling", filters: `{"dangling":["true"]}`, want: []string{"back"}},
		{name: "not dangling", filters: `{"dangling":["false"]}`, want: []string{"bridge", "host", "none", "front"}},
		{name: "scope", filters: `{"scope":["swarm"]}`, want: []string{}},
		{name: "bad type", filters: `{"type":["odd"]}`, bad: true},
		{name: "unknown filter", filters: `{"colour":["red"]}`, bad: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w, err := do(t, New(newFake(), newFake()).List, "1.52", "/networks?filters="+url.QueryEscape(tt.filters), "", "")
			if tt.bad {
				if !errdefs.IsInvalidArgument(err) {
					t.Fatalf("error %v, want InvalidArgument", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var got []apinetwork.Summary
			if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
				t.Fatal(err)
			}
			names := make([]string, 0, len(got))
			for _, n := range got {
				names = append(names, n.Name)
			}
			if d := cmp.Diff(tt.want, names); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestVersions(t *testing.T) {
	f := newFake()
	for version, want := range map[string]string{"1.24": `"c":{`, "1.30": `"Containers":{}`, "1.52": `"Name":"front"`} {
		w, err := do(t, New(f, f).List, version, "/networks?filters="+url.QueryEscape(`{"name":["front"]}`), "", "")
		if err != nil || !strings.Contains(w.Body.String(), want) || strings.Contains(w.Body.String(), "Status") {
			t.Errorf("%s: %v %s", version, err, w.Body)
		}
	}
	for version, status := range map[string]bool{"1.51": false, "1.52": true} {
		w, err := do(t, New(f, f).Inspect, version, "/networks/front", "", "front")
		if err != nil || strings.Contains(w.Body.String(), `"Status"`) != status {
			t.Errorf("%s: %v %s", version, err, w.Body)
		}
	}
	if _, err := do(t, New(f, f).Inspect, "1.52", "/networks/front?scope=swarm", "", "front"); !errdefs.IsNotFound(err) {
		t.Errorf("other scope: %v", err)
	}
}

func TestChanges(t *testing.T) {
	f := newFake()
	h := New(f, f)
	for _, c := range []struct {
		h        route.Handler
		body, id string
		status   int
	}{
		{h.Create, `{"Name":"x","CheckDuplicate":true}`, "", http.StatusCreated},
		{h.Connect, `{"Container":"c","EndpointConfig":{"Aliases":["a"]}}`, "front", http.StatusOK},
		{h.Disconnect, `{"Container":"c","Force":true}`, "front", http.StatusOK},
		{h.Delete, "", "back", http.StatusNoContent},
		{h.Prune, "", "", http.StatusOK},
	} {
		w, err := do(t, c.h, "1.52", "/", c.body, c.id)
		if err != nil || w.Result().StatusCode != c.status {
			t.Errorf("%s: status %d, %v", c.body, w.Result().StatusCode, err)
		}
	}
	want := []string{"create x", "connect front c true", "disconnect front c true", "delete back", "delete id-back"}
	if d := cmp.Diff(want, f.said); d != "" {
		t.Error(d)
	}
	if _, err := do(t, h.Create, "1.52", "/", "", ""); !errdefs.IsInvalidArgument(err) {
		t.Errorf("no body: %v", err)
	}
}
