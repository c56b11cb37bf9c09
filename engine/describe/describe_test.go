package describe

import (
	"net/netip"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	apicontainer "github.com/moby/moby/api/types/container"
	apinetwork "github.com/moby/moby/api/types/network"

	"github.com/wherry-engine/wherry/container"
	"github.com/wherry-engine/wherry/network"
)

// containers are three, newest first.
func containers() []*Container {
	none := func() *network.Sandbox { return nil }
	return []*Container{
		{
			Spec: &container.Spec{
				ID: "c3", Name: "web", Image: "sha256:1", Config: &apicontainer.Config{
					Image: "nginx", Cmd: []string{"run", "a b"}, Labels: map[string]string{"tier": "front"},
					ExposedPorts: apinetwork.PortSet{apinetwork.MustParsePort("80/tcp"): {}, apinetwork.MustParsePort("443/tcp"): {}},
				},
				HostConfig: &apicontainer.HostConfig{
					NetworkMode:  "front",
					PortBindings: apinetwork.PortMap{apinetwork.MustParsePort("80/tcp"): nil},
				},
				Mounts: []container.Mount{{Name: "data", Destination: "/data"}},
			},
			Status: &container.Status{State: container.StateRunning, Pid: 7},
			Health: &apicontainer.Health{Status: apicontainer.Healthy},
			Sandbox: func() *network.Sandbox {
				return &network.Sandbox{
					ID: "c3", Endpoints: []network.Endpoint{{Name: "front", Settings: &apinetwork.EndpointSettings{NetworkID: "feed"}}},
					Ports: apinetwork.PortMap{apinetwork.MustParsePort("80/tcp"): {{HostPort: "8080"}}},
				}
			},
		},
		{
			Spec: &container.Spec{
				ID: "b2", Name: "job", Image: "sha256:2", Config: &apicontainer.Config{Image: "busybox", Cmd: []string{"false"}},
				HostConfig: &apicontainer.HostConfig{NetworkMode: "none"},
			},
			Status: &container.Status{State: container.StateExited, ExitCode: 1}, Sandbox: none,
		},
		{
			Spec: &container.Spec{
				ID: "a1", Name: "db", Image: "sha256:2", Config: &apicontainer.Config{
					Image: "busybox", Cmd: []string{"db"}, Labels: map[string]string{"tier": "back", "old": ""},
				},
				HostConfig: &apicontainer.HostConfig{NetworkMode: "none"},
			},
			Status: &container.Status{State: container.StatePaused}, Sandbox: none,
		},
	}
}

func lookup() Lookup {
	return Lookup{
		Container: func(ref string) (container.ID, error) {
			for _, c := range containers() {
				if ref == c.Spec.Name || ref == string(c.Spec.ID) {
					return c.Spec.ID, nil
				}
			}
			return "", errdefs.ErrNotFound
		},
		Image: func(ref string) (string, error) {
			if ref == "box" {
				return "sha256:2", nil
			}
			return "", errdefs.ErrNotFound
		},
	}
}

func TestFilter(t *testing.T) {
	for _, tc := range []struct {
		name string
		req  container.ListRequest
		f    map[string][]string
		want string // IDs, newest first
	}{
		{name: "those that are up", want: "c3 a1 "},
		{name: "all", req: container.ListRequest{All: true}, want: "c3 b2 a1 "},
		{name: "id", f: map[string][]string{"id": {"c"}}, want: "c3 "},
		{name: "name, without and with the slash", f: map[string][]string{"name": {"^db$", "^/web$"}}, want: "c3 a1 "},
		{name: "status wants those that are down, too", f: map[string][]string{"status": {"exited"}}, want: "b2 "},
		{name: "exit code", f: map[string][]string{"exited": {"1"}}, want: "b2 "},
		{name: "an exit code of what runs", f: map[string][]string{"exited": {"0"}}, want: ""},
		{name: "health", f: map[string][]string{"health": {"healthy"}}, want: "c3 "},
		{name: "no health", f: map[string][]string{"health": {"none"}}, want: "a1 "},
		{name: "label", f: map[string][]string{"label": {"tier"}}, want: "c3 a1 "},
		{name: "all labels", f: map[string][]string{"label": {"tier=back", "old"}}, want: "a1 "},
		{name: "not labelled", f: map[string][]string{"label!": {"tier=front"}}, want: "a1 "},
		{name: "before", f: map[string][]string{"before": {"job"}}, want: "a1 "},
		{name: "since", f: map[string][]string{"since": {"job"}}, want: "c3 "},
		{name: "since and before", f: map[string][]string{"since": {"db"}, "before": {"web"}}, want: "b2 "},
		{name: "image", req: container.ListRequest{All: true}, f: map[string][]string{"ancestor": {"box"}}, want: "b2 a1 "},
		{name: "image by the name in the request", f: map[string][]string{"ancestor": {"nginx"}}, want: "c3 "},
		{name: "network by name", f: map[string][]string{"network": {"front"}}, want: "c3 "},
		{name: "network by ID", f: map[string][]string{"network": {"fee"}}, want: "c3 "},
		{name: "volume", f: map[string][]string{"volume": {"data"}}, want: "c3 "},
		{name: "mount point", f: map[string][]string{"volume": {"/data"}}, want: "c3 "},
		{name: "exposed port", f: map[string][]string{"expose": {"440-450/tcp"}}, want: "c3 "},
		{name: "published port", f: map[string][]string{"publish": {"443/tcp"}}, want: ""},
		{name: "task of a swarm", f: map[string][]string{"is-task": {"true"}}, want: ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.req.Filters = tc.f
			f, err := NewFilter(tc.req, lookup())
			if err != nil {
				t.Fatal(err)
			}
			got := ""
			for _, c := range containers() {
				if f.Past(c.Spec.ID) {
					break
				}
				if f.Match(c) {
					got += string(c.Spec.ID) + " "
				}
			}
			if got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

func TestBadFilters(t *testing.T) {
	for name, value := range map[string]string{
		"nothing": "x", "exited": "x", "status": "x", "health": "x", "name": "(", "is-task": "x", "expose": "x", "publish": "1-0",
	} {
		_, err := NewFilter(container.ListRequest{Filters: map[string][]string{name: {value}}}, lookup())
		if !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s=%s: %v", name, value, err)
		}
	}
	for _, name := range []string{"before", "since"} {
		_, err := NewFilter(container.ListRequest{Filters: map[string][]string{name: {"nobody"}}}, lookup())
		if !errdefs.IsNotFound(err) {
			t.Errorf("%s=nobody: %v", name, err)
		}
	}
}

func TestSummary(t *testing.T) {
	s := containers()[0].Summary()
	if s.Command != "run 'a b'" || s.Names[0] != "/web" || s.Health.Status != apicontainer.Healthy {
		t.Errorf("summary: %+v", s)
	}
	want := []apicontainer.PortSummary{
		{IP: netip.IPv4Unspecified(), PrivatePort: 80, PublicPort: 8080, Type: "tcp"}, {PrivatePort: 443, Type: "tcp"},
	}
	if diff := cmp.Diff(want, s.Ports, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Errorf("ports (-want +got):\n%s", diff)
	}
	if s := containers()[2].Summary(); s.Ports == nil || len(s.Ports) > 0 || s.Health.Status != apicontainer.NoHealthcheck {
		t.Errorf("summary without a network: %+v", s)
	}
}

func TestStatusLine(t *testing.T) {
	now := time.Date(2024, 5, 1, 12, 0, 0, 0, time.UTC)
	began, ended := now.Add(-2*time.Hour), now.Add(-3*time.Minute)
	for _, tc := range []struct {
		st     container.Status
		health apicontainer.HealthStatus
		want   string
	}{
		{container.Status{State: container.StateRunning, StartedAt: began}, "", "Up 2 hours"},
		{container.Status{State: container.StateRunning, StartedAt: began}, apicontainer.Starting, "Up 2 hours (health: starting)"},
		{container.Status{State: container.StateRunning, StartedAt: began}, apicontainer.Unhealthy, "Up 2 hours (unhealthy)"},
		{container.Status{State: container.StatePaused, StartedAt: began}, apicontainer.Healthy, "Up 2 hours (Paused)"},
		{container.Status{State: container.StateRestarting, FinishedAt: ended, ExitCode: 3}, "", "Restarting (3) 3 minutes ago"},
		{container.Status{State: container.StateExited, FinishedAt: ended, ExitCode: 137}, "", "Exited (137) 3 minutes ago"},
		{container.Status{State: container.StateCreated}, "", "Created"},
		{container.Status{State: container.StateRemoving}, "", "Removal In Progress"},
		{container.Status{State: container.StateDead}, "", "Dead"},
	} {
		c := Container{Status: &tc.st}
		if tc.health != "" {
			c.Health = &apicontainer.Health{Status: tc.health}
		}
		if got := c.statusLine(now); got != tc.want {
			t.Errorf("%s: got %q, want %q", tc.st.State, got, tc.want)
		}
	}
}
