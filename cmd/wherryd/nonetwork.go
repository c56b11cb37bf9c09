package main

import (
	"context"
	"fmt"
	"os"

	"github.com/containerd/errdefs"
	apinetwork "github.com/moby/moby/api/types/network"

	"github.com/wherry-engine/wherry/network"
	"github.com/wherry-engine/wherry/network/netns"
)

// noNetwork stands where networks are not built yet: every use is refused.
type noNetwork struct{}

var errNoNetwork = fmt.Errorf("networks are not built yet: use --network none or host: %w", errdefs.ErrNotImplemented)

func (noNetwork) Create(context.Context, network.CreateRequest) (r apinetwork.CreateResponse, err error) {
	return r, errNoNetwork
}
func (noNetwork) Get(_ context.Context, ref string) (n apinetwork.Inspect, err error) {
	if ref == "none" || ref == "host" || ref == "bridge" {
		n.Name, n.ID = ref, ref
		return n, nil
	}
	return n, errNoNetwork
}
func (noNetwork) List(context.Context) ([]apinetwork.Inspect, error) { return nil, nil }
func (noNetwork) Delete(context.Context, string) error               { return errNoNetwork }
func (noNetwork) Open(_ context.Context, r network.SandboxRequest) (s network.Sandbox, f *os.File, err error) {
	for _, ep := range r.Endpoints {
		if ep.Network != "none" {
			return s, nil, errNoNetwork
		}
	}
	f, err = netns.Open()
	s.ID = r.ID
	return s, f, err
}
func (noNetwork) Close(context.Context, network.SandboxID) error { return nil }

// sandboxes is the other half: Get differs.
type noSandboxes struct{ noNetwork }

func (noSandboxes) Get(context.Context, network.SandboxID) (s network.Sandbox, err error) {
	return s, errdefs.ErrNotFound
}
func (noSandboxes) Connect(context.Context, network.SandboxID, *os.File, network.EndpointRequest) (e network.Endpoint, err error) {
	return e, errNoNetwork
}
func (noSandboxes) Disconnect(context.Context, network.SandboxID, *os.File, string, bool) error {
	return errNoNetwork
}
func (noSandboxes) Rename(context.Context, network.SandboxID, string) error       { return nil }
func (noSandboxes) Restore(context.Context, map[network.SandboxID]*os.File) error { return nil }
