package lifecycle

import (
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	apicontainer "github.com/moby/moby/api/types/container"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/wherry-engine/wherry/container"
	"github.com/wherry-engine/wherry/engine/defaults"
	"github.com/wherry-engine/wherry/task"
)

func remapped() defaults.Containers {
	one := []specs.LinuxIDMapping{{HostID: 100000, Size: 65536}}
	return defaults.Containers{IDs: container.IDMap{UIDs: one, GIDs: one}}
}

// TestUserNamespace: what a container with a user namespace is started with, what
// is written down of it, and how it changes with the configuration.
func TestUserNamespace(t *testing.T) {
	w := newWorld(t)
	e, stop := w.engine()
	d := remapped()
	e.SetDefaults(d)
	ids := d.IDs
	req := request("cc", "true")
	req.HostConfig.Binds = []string{"v:/v", "/tmp:/t"}
	id := create(t, e, req)
	u, err := e.index.find(id)
	if err != nil {
		t.Fatal(err)
	}
	start := func() task.StartRequest {
		t.Helper()
		if err := e.Start(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		got, _ := w.tasks.Request(id)
		return got
	}
	got := start()
	if diff := cmp.Diff([]task.NetNSRequest{{UIDMappings: ids.UIDs, GIDMappings: ids.GIDs}}, w.netns); diff != "" {
		t.Errorf("network namespaces (-want +got):\n%s", diff)
	}
	own := slices.ContainsFunc(got.Spec.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.UserNamespace })
	if !own || !slices.Equal(got.Root.UIDMappings, ids.UIDs) || !slices.Equal(got.Spec.Linux.GIDMappings, ids.GIDs) {
		t.Errorf("%+v %+v", got.Root, got.Spec.Linux)
	}
	for _, m := range got.Spec.Mounts {
		want := strings.HasPrefix(m.Destination, "/etc/") || m.Destination == "/v"
		if mapped := slices.Contains(m.Options, "idmap"); mapped != want {
			t.Errorf("mount at %s: mapped is %v", m.Destination, mapped)
		}
	}
	// A daemon without the option leaves what runs as it is, until it starts again.
	stop()
	e, _ = w.engine()
	if u, err = e.index.find(id); err != nil {
		t.Fatal(err)
	}
	if !e.idsOf(u).Equal(ids) {
		t.Error("the ids of a running container are forgotten")
	}
	if err := w.tasks.Exit(id, 0); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the end", func() bool { return !u.up() })
	got = start()
	if len(got.Root.UIDMappings)+len(got.Spec.Linux.UIDMappings) > 0 || !e.idsOf(u).IsZero() {
		t.Errorf("without the option: %+v", got.Root)
	}
}

// TestUserNamespaceRefused: what cannot be had is refused when a container is made,
// and when one is started that was made under another configuration.
func TestUserNamespaceRefused(t *testing.T) {
	w := newWorld(t)
	e, _ := w.engine()
	host := request("host", "true")
	host.HostConfig.NetworkMode = "host"
	old := create(t, e, host)
	shared := create(t, e, request("shared", "true"))
	if err := e.Start(t.Context(), shared); err != nil {
		t.Fatal(err)
	}
	e.SetDefaults(remapped())
	if err := e.Start(t.Context(), old); !errdefs.IsInvalidArgument(err) {
		t.Errorf("start: %v", err)
	}
	if _, err := e.Create(t.Context(), request("mine", "true")); err != nil {
		t.Error(err)
	}
	host.Name = "again"
	if _, err := e.Create(t.Context(), host); !errdefs.IsInvalidArgument(err) {
		t.Errorf("create: %v", err)
	}
	host.HostConfig.UsernsMode = "host"
	if _, err := e.Create(t.Context(), host); err != nil {
		t.Errorf("in the host's user namespace: %v", err)
	}
	join := request("join", "true")
	join.HostConfig.NetworkMode = apicontainer.NetworkMode("container:" + shared)
	id := create(t, e, join)
	if err := e.Start(t.Context(), id); !errdefs.IsConflict(err) || !strings.Contains(err.Error(), "user namespace of the host") {
		t.Errorf("join: %v", err)
	}
}
