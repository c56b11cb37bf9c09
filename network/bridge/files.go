package bridge

import (
	"net/netip"
	"slices"
	"strings"

	apinetwork "github.com/moby/moby/api/types/network"

	"github.com/wherry-engine/wherry/network"
	"github.com/wherry-engine/wherry/network/resolv"
)

// result is what the engine is told of a sandbox.
func (m *Manager) result(s *sandbox) network.Sandbox {
	host := resolv.Host()
	m.mu.Lock()
	defer m.mu.Unlock()
	out := network.Sandbox{
		ID: s.ID, Ports: s.portMap(), Hosts: m.hosts(s), ResolvConf: m.resolvConf(s, host), HostGateway: m.hostGateway(),
	}
	for _, e := range s.Endpoints {
		out.Endpoints = append(out.Endpoints, e.result())
	}
	return out
}

func (e *endpoint) result() network.Endpoint {
	return network.Endpoint{Network: e.NetworkID, Name: e.Network, Settings: e.Settings.Copy()}
}

// hosts are the lines of /etc/hosts: the sandbox's own addresses, and those of
// links on the default bridge, which has no name service.
func (m *Manager) hosts(s *sandbox) []string {
	var out []string
	name := s.Hostname
	if short, _, dotted := strings.Cut(name, "."); dotted && short != "" {
		name += " " + short
	}
	for _, e := range s.Endpoints {
		for _, p := range []netip.Prefix{e.V4, e.V6} {
			if p.IsValid() && name != "" {
				out = append(out, p.Addr().String()+"\t"+name)
			}
		}
	}
	for _, e := range s.Endpoints {
		if e.net.Default {
			out = append(out, e.linkLines()...)
		}
	}
	return out
}

func (e *endpoint) linkLines() []string {
	var out []string
	for _, l := range e.Settings.Links {
		ref, alias, ok := strings.Cut(l, ":")
		if !ok {
			alias = ref
		}
		ref, alias = strings.TrimPrefix(ref, "/"), alias[strings.LastIndexByte(alias, '/')+1:]
		for _, other := range e.net.endpoints {
			o := other.sandbox
			if o.ContainerName != ref && o.ContainerID != ref && (len(ref) < 12 || !strings.HasPrefix(o.ContainerID, ref)) {
				continue
			}
			names := []string{alias}
			for _, n := range []string{o.Hostname, o.ContainerName} {
				if n != "" && !slices.Contains(names, n) {
					names = append(names, n)
				}
			}
			for _, p := range []netip.Prefix{other.V4, other.V6} {
				if p.IsValid() {
					out = append(out, p.Addr().String()+"\t"+strings.Join(names, " "))
				}
			}
		}
	}
	return out
}

// resolvConf is the content of /etc/resolv.conf. Called with m.mu held.
func (m *Manager) resolvConf(s *sandbox, host resolv.Conf) []byte {
	own := len(s.DNS.Servers) > 0
	c := host.Override(s.DNS.Servers, s.DNS.Search, s.DNS.Options)
	if s.named() && m.o.DataPlane != nil {
		return c.Embedded(own)
	}
	v6 := slices.ContainsFunc(s.Endpoints, func(e *endpoint) bool { return e.V6.IsValid() })
	return c.Direct(own, v6)
}

// hostGateway is what host-gateway means. Called with m.mu held.
func (m *Manager) hostGateway() []netip.Addr {
	if len(m.o.HostGateway) > 0 {
		return m.o.HostGateway
	}
	n := m.byName(apinetwork.NetworkBridge)
	if n == nil {
		return nil
	}
	var out []netip.Addr
	for _, s := range n.subnets {
		out = append(out, s.bridge)
	}
	return out
}
