package bridge

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"strings"

	apinetwork "github.com/moby/moby/api/types/network"
)

// Get returns one network with its containers; see network.Networks.
func (m *Manager) Get(_ context.Context, ref string) (apinetwork.Inspect, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.find(ref)
	if err != nil {
		return apinetwork.Inspect{}, err
	}
	return n.inspect(), nil
}

// List returns all networks, the newest last.
func (m *Manager) List(context.Context) ([]apinetwork.Inspect, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make([]apinetwork.Inspect, 0, len(m.networks))
	for _, n := range m.networks {
		out = append(out, n.inspect())
	}
	slices.SortFunc(out, func(a, b apinetwork.Inspect) int {
		if c := a.Created.Compare(b.Created); c != 0 {
			return c
		}
		return strings.Compare(a.Name, b.Name)
	})
	return out, nil
}

// inspect is called with Manager.mu held.
func (n *netw) inspect() apinetwork.Inspect {
	out := apinetwork.Inspect{Network: n.Network, Containers: map[string]apinetwork.EndpointResource{}}
	out.Options, out.Labels = maps.Clone(n.Options), maps.Clone(n.Labels)
	out.IPAM.Config = slices.Clone(n.IPAM.Config)
	for _, e := range n.endpoints {
		key := e.sandbox.ContainerID
		if key == "" {
			key = string(e.sandbox.ID)
		}
		out.Containers[key] = apinetwork.EndpointResource{
			Name: e.sandbox.ContainerName, EndpointID: e.ID, MacAddress: apinetwork.HardwareAddr(e.MAC),
			IPv4Address: e.V4, IPv6Address: e.V6,
		}
	}
	if len(n.subnets) > 0 {
		stats := map[netip.Prefix]apinetwork.SubnetStatus{}
		for _, s := range n.subnets {
			used := uint64(s.Used())
			if s.Subnet().Addr().Is4() && s.Subnet().Bits() < 31 {
				used += 2 // network and broadcast address
			}
			stats[s.Subnet()] = apinetwork.SubnetStatus{IPsInUse: used, DynamicIPsAvailable: s.Available()}
		}
		out.Status = &apinetwork.Status{IPAM: apinetwork.IPAMStatus{Subnets: stats}}
	}
	return out
}
