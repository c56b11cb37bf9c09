// Package netconfig says what the configuration of a container means for its
// network: the sandbox to ask for, the files in /etc that tell the container of
// it, and the names and variables of legacy links. It opens no sandbox.
package netconfig

import (
	"maps"
	"slices"
	"strings"

	apicontainer "github.com/moby/moby/api/types/container"
	apinetwork "github.com/moby/moby/api/types/network"

	"github.com/wherry-engine/wherry/container"
	"github.com/wherry-engine/wherry/engine/defaults"
	"github.com/wherry-engine/wherry/network"
)

// HasSandbox reports whether a container has a network sandbox of its own.
func HasSandbox(h *apicontainer.HostConfig) bool {
	return !h.NetworkMode.IsHost() && !h.NetworkMode.IsContainer()
}

// Sandbox is the sandbox to ask for.
func Sandbox(s *container.Spec, d *defaults.Containers) network.SandboxRequest {
	h := s.HostConfig
	req := network.SandboxRequest{
		ID: network.SandboxID(s.Sandbox), ContainerID: string(s.ID), ContainerName: s.Name,
		Hostname: s.Config.Hostname, Endpoints: endpoints(s),
		Ports: h.PortBindings, Exposed: s.Config.ExposedPorts, PublishAll: h.PublishAllPorts,
		DNS: network.DNS{Servers: h.DNS, Search: h.DNSSearch, Options: h.DNSOptions},
		Sysctls: map[string]string{
			"net.ipv4.ip_unprivileged_port_start": "0", "net.ipv4.ping_group_range": "0 2147483647",
		},
	}
	if len(req.DNS.Servers) == 0 {
		req.DNS.Servers = d.DNS
	}
	if len(req.DNS.Search) == 0 {
		req.DNS.Search = d.DNSSearch
	}
	if len(req.DNS.Options) == 0 {
		req.DNS.Options = d.DNSOptions
	}
	for k, v := range h.Sysctls {
		if strings.HasPrefix(k, "net.") {
			req.Sysctls[k] = v
		}
	}
	return req
}

// endpoints lists the networks to join, that of the mode first.
func endpoints(s *container.Spec) []network.EndpointRequest {
	mode := s.HostConfig.NetworkMode
	if mode.IsNone() || s.Networking == nil {
		return nil
	}
	var out []network.EndpointRequest
	eps := s.Networking.EndpointsConfig
	for _, name := range slices.Sorted(maps.Keys(eps)) {
		if name == apinetwork.NetworkNone || name == apinetwork.NetworkHost {
			continue
		}
		ep := network.EndpointRequest{Network: name, Settings: eps[name].Copy()}
		if name == mode.NetworkName() {
			out = slices.Insert(out, 0, ep)
			continue
		}
		out = append(out, ep)
	}
	return out
}
