package imageconfig

import (
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	apicontainer "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wherry-engine/wherry/container"
	"github.com/wherry-engine/wherry/image"
)

func TestMerge(t *testing.T) {
	var img image.Config
	img.Config = ocispec.ImageConfig{
		User: "www", Env: []string{"PATH=/bin", "A=image"}, Entrypoint: []string{"/init"}, Cmd: []string{"serve"},
		Labels: map[string]string{"from": "image", "kept": "image"}, WorkingDir: "/srv", StopSignal: "SIGINT",
		ExposedPorts: map[string]struct{}{"80/tcp": {}}, Volumes: map[string]struct{}{"/data": {}},
	}
	img.Healthcheck = []byte(`{"Test":["CMD","true"],"Retries":7}`)
	for _, tc := range []struct {
		name      string
		req, want apicontainer.Config
	}{
		{"nothing asked for", apicontainer.Config{}, apicontainer.Config{
			User: "www", Env: []string{"PATH=/bin", "A=image"}, Entrypoint: []string{"/init"}, Cmd: []string{"serve"},
			Labels: map[string]string{"from": "image", "kept": "image"}, WorkingDir: "/srv", StopSignal: "SIGINT",
			ExposedPorts: network.PortSet{network.MustParsePort("80/tcp"): {}}, Volumes: map[string]struct{}{"/data": {}},
			Healthcheck: &apicontainer.HealthConfig{Test: []string{"CMD", "true"}, Retries: 7},
		}},
		{"asked for", apicontainer.Config{
			User: "me", Env: []string{"A=mine"}, Cmd: []string{"other"}, Labels: map[string]string{"from": "me"}, WorkingDir: "/",
			StopSignal: "SIGHUP", ExposedPorts: network.PortSet{network.MustParsePort("81/tcp"): {}}, Volumes: map[string]struct{}{"/mine": {}},
			Healthcheck: &apicontainer.HealthConfig{Interval: time.Second},
		}, apicontainer.Config{
			User: "me", Env: []string{"PATH=/bin", "A=mine"}, Entrypoint: []string{"/init"}, Cmd: []string{"other"},
			Labels: map[string]string{"from": "me", "kept": "image"}, WorkingDir: "/", StopSignal: "SIGHUP",
			ExposedPorts: network.PortSet{network.MustParsePort("80/tcp"): {}, network.MustParsePort("81/tcp"): {}},
			Volumes:      map[string]struct{}{"/mine": {}, "/data": {}},
			Healthcheck:  &apicontainer.HealthConfig{Test: []string{"CMD", "true"}, Retries: 7, Interval: time.Second},
		}},
		{"an entrypoint drops the image's command", apicontainer.Config{Entrypoint: []string{"/mine"}}, apicontainer.Config{
			User: "www", Env: []string{"PATH=/bin", "A=image"}, Entrypoint: []string{"/mine"},
			Labels: map[string]string{"from": "image", "kept": "image"}, WorkingDir: "/srv", StopSignal: "SIGINT",
			ExposedPorts: network.PortSet{network.MustParsePort("80/tcp"): {}}, Volumes: map[string]struct{}{"/data": {}},
			Healthcheck: &apicontainer.HealthConfig{Test: []string{"CMD", "true"}, Retries: 7},
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if err := Merge(&tc.req, img); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, tc.req, cmpopts.EquateComparable(network.Port{})); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
	if img.Config.Labels["from"] != "image" || len(img.Config.Labels) != 2 {
		t.Errorf("the image's labels were changed: %v", img.Config.Labels)
	}
}

func TestMergeRefuses(t *testing.T) {
	var empty, ports, check image.Config
	ports.Config = ocispec.ImageConfig{Cmd: []string{"sh"}, ExposedPorts: map[string]struct{}{"many": {}}}
	check.Config = ocispec.ImageConfig{Cmd: []string{"sh"}}
	check.Healthcheck = []byte(`[]`)
	for name, tc := range map[string]struct {
		c   apicontainer.Config
		img image.Config
		is  func(error) bool
	}{
		"nothing to run":            {apicontainer.Config{}, empty, errdefs.IsInvalidArgument},
		"an entrypoint taken away":  {apicontainer.Config{Entrypoint: []string{""}}, empty, errdefs.IsInvalidArgument},
		"a port that is none":       {apicontainer.Config{}, ports, errdefs.IsInvalidArgument},
		"a health check that isn't": {apicontainer.Config{}, check, func(err error) bool { return err != nil }},
	} {
		if err := Merge(&tc.c, tc.img); !tc.is(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestCommit takes an image's configuration through a container and back.
func TestCommit(t *testing.T) {
	c := apicontainer.Config{
		Cmd: []string{"sh"}, Env: []string{"A=1"}, Labels: map[string]string{"a": "1"},
		ExposedPorts: network.PortSet{network.MustParsePort("53/udp"): {}}, Healthcheck: &apicontainer.HealthConfig{Test: []string{"NONE"}},
	}
	changed := Clone(&c)
	Overlay(&changed, &apicontainer.Config{Cmd: []string{"new"}, Labels: map[string]string{"b": "2"}})
	if len(c.Labels) != 1 || c.Cmd[0] != "sh" {
		t.Errorf("the container was changed: %+v", c)
	}
	parent := image.Config{}
	parent.Platform = ocispec.Platform{OS: "linux", Architecture: "arm64"}
	img, err := OfContainer(&changed, parent, container.CommitRequest{Author: "me", Comment: "why"})
	if err != nil {
		t.Fatal(err)
	}
	if img.Architecture != "arm64" || img.Author != "me" || img.Comment != "why" || img.Created == nil {
		t.Errorf("image: %+v", img)
	}
	var again apicontainer.Config
	if err := Merge(&again, img); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(changed, again, cmpopts.EquateComparable(network.Port{}), cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("after the way back (-want +got):\n%s", diff)
	}
}
