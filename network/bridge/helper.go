package bridge

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/wherry-engine/wherry/dataplane/wire"
	"github.com/wherry-engine/wherry/network/dnsport"
	"github.com/wherry-engine/wherry/network/ports"
)

// handOver tells the net helper about a sandbox, with the sockets of its
// ports, and with those of a name server if it needs one and has none. A
// sandbox that needs neither costs nothing. ns may be nil where no name server
// can become necessary.
func (m *Manager) handOver(ctx context.Context, s *sandbox, ns *os.File, bound []ports.Bound) error {
	m.mu.Lock()
	needed := len(s.Published) > 0 || s.named()
	had := s.Helper
	msg := s.wire()
	m.mu.Unlock()
	if m.o.DataPlane == nil || (!needed && !had) {
		return nil
	}
	var files []int
	for _, b := range bound {
		files = append(files, b.FD)
	}
	for i := range msg.Ports { // all of them are reserved at once
		msg.Ports[i].New = len(bound) > 0
	}
	if msg.DNS != nil && !s.server {
		if ns == nil {
			msg.DNS = nil
		} else {
			srv, err := dnsport.Open(ns)
			if err != nil {
				return fmt.Errorf("set up name service: %w", err)
			}
			defer srv.Close()
			files = append(files, srv.UDP, srv.TCP)
			msg.NewDNS = true
		}
	}
	m.mu.Lock()
	s.Helper = true
	m.mu.Unlock()
	if err := m.o.DataPlane.Put(ctx, msg, files); err != nil {
		return fmt.Errorf("hand ports and names to the net helper: %w", err)
	}
	m.mu.Lock()
	s.server = s.server || msg.NewDNS
	m.mu.Unlock()
	return nil
}

// named reports whether an endpoint is in a network with name service. Called
// with Manager.mu held.
func (s *sandbox) named() bool {
	for _, e := range s.Endpoints {
		if !e.net.Default {
			return true
		}
	}
	return false
}

// wire is the sandbox as the helper sees it. Called with Manager.mu held.
func (s *sandbox) wire() wire.Sandbox {
	out := wire.Sandbox{ID: string(s.ID)}
	for _, p := range s.Published {
		out.Ports = append(out.Ports, wire.Port{Proto: p.Proto, Host: p.Host, Target: p.Target})
	}
	if s.named() {
		v4, v6 := s.gateways()
		out.DNS = &wire.DNS{Servers: s.DNS.Servers, NoForward: v4 == nil && v6 == nil}
	}
	for _, e := range s.Endpoints {
		we := wire.Endpoint{
			Network: string(e.NetworkID), NetworkName: e.Network, NoNames: e.net.Default,
			IPv4: e.V4.Addr(), IPv6: e.V6.Addr(), Names: e.Names,
		}
		for _, l := range e.Settings.Links {
			name, alias, ok := strings.Cut(l, ":")
			if !ok {
				alias = name
			}
			if we.Links == nil {
				we.Links = map[string]string{}
			}
			we.Links[strings.TrimPrefix(alias, "/")] = strings.TrimPrefix(name, "/")
		}
		out.Endpoints = append(out.Endpoints, we)
	}
	return out
}
