// Package network is the contract of networks and network sandboxes.
//
// # Lifecycle
//
// A network is made by Create and lives until Delete. A sandbox is a network
// namespace with endpoints in networks; it is separate from the containers
// that use it. Open makes the namespace and all its endpoints (addresses,
// routes, published ports, names) and returns its descriptor; the caller hands
// it to the supervisor, which keeps it. The sandbox survives restarts of its
// container and of the daemon; Close releases addresses, ports and names
// before it returns, while links and the namespace itself may go later.
// After a daemon restart, Restore is told which sandboxes still live and
// releases everything else.
package network

import (
	"context"
	"net/netip"
	"os"

	apinetwork "github.com/moby/moby/api/types/network"
)

// ID is the 64-digit identifier of a network.
type ID string

// SandboxID names a sandbox; for an ordinary container it is the container's ID.
type SandboxID string

// CreateRequest is the API's, after decoding.
type CreateRequest = apinetwork.CreateRequest

// Networks manages networks. Names and unambiguous ID prefixes are accepted
// wherever a reference is taken.
type Networks interface {
	// Create returns the new network's ID and warnings. InvalidArgument,
	// AlreadyExists (name taken), PermissionDenied (predefined name),
	// FailedPrecondition (subnet overlaps).
	Create(ctx context.Context, req CreateRequest) (apinetwork.CreateResponse, error)
	// Get returns one network with its containers. NotFound.
	Get(ctx context.Context, ref string) (apinetwork.Inspect, error)
	List(ctx context.Context) ([]apinetwork.Inspect, error)
	// Delete: NotFound, PermissionDenied (predefined), FailedPrecondition (endpoints active).
	Delete(ctx context.Context, ref string) error
}

// Sandboxes manages sandboxes.
type Sandboxes interface {
	// Open makes a sandbox. FailedPrecondition if an address or port is taken;
	// nothing is left behind on error. The caller closes the file.
	Open(ctx context.Context, req SandboxRequest) (Sandbox, *os.File, error)
	// Close releases the sandbox. NotFound is not an error.
	Close(ctx context.Context, id SandboxID) error
	// Get returns what Open returned. NotFound.
	Get(ctx context.Context, id SandboxID) (Sandbox, error)
	// Connect adds an endpoint to a live sandbox, whose namespace is given.
	Connect(ctx context.Context, id SandboxID, netns *os.File, ep EndpointRequest) (Endpoint, error)
	Disconnect(ctx context.Context, id SandboxID, netns *os.File, networkRef string, force bool) error
	// Rename changes the DNS names of the sandbox's endpoints.
	Rename(ctx context.Context, id SandboxID, containerName string) error
	// Restore is called once after start with the namespaces of the sandboxes
	// whose containers live, nil for one that cannot be found; all others are closed.
	Restore(ctx context.Context, live map[SandboxID]*os.File) error
}

// SandboxRequest asks for a sandbox.
type SandboxRequest struct {
	ID            SandboxID
	ContainerID   string
	ContainerName string
	Hostname      string
	Endpoints     []EndpointRequest // empty: loopback only ("none")
	// Ports to publish, and whether to publish every exposed port on a free one.
	Ports      apinetwork.PortMap
	Exposed    apinetwork.PortSet
	PublishAll bool
	DNS        DNS
	Sysctls    map[string]string // net.* only, applied inside
	// NetNS is the namespace to use, which nobody else has set up; nil for a new
	// one. The caller closes it, and the one that Open returns.
	NetNS *os.File
}

// DNS is what the user asked for, unvalidated names already checked by the engine.
type DNS struct {
	Servers []netip.Addr
	Search  []string
	Options []string
}

// EndpointRequest is one network to join. Settings holds aliases, links and
// fixed addresses.
type EndpointRequest struct {
	Network  string // name or ID
	Settings *apinetwork.EndpointSettings
}

// Endpoint is a joined network with the addresses it got.
type Endpoint struct {
	Network  ID
	Name     string // network name
	Settings *apinetwork.EndpointSettings
}

// Sandbox is the result: what inspect shows and what goes into the
// container's files.
type Sandbox struct {
	ID        SandboxID
	Endpoints []Endpoint
	// Ports with the host ports that were chosen.
	Ports apinetwork.PortMap
	// Hosts are the lines of /etc/hosts after the loopback ones ("ip\tname name").
	Hosts []string
	// ResolvConf is the content of /etc/resolv.conf.
	ResolvConf []byte
	// HostGateway answers the name host-gateway in ExtraHosts.
	HostGateway []netip.Addr
}
