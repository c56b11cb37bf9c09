package bridge

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"strings"

	"github.com/wherry-engine/wherry/network"
	"github.com/wherry-engine/wherry/network/netns"
	"github.com/wherry-engine/wherry/network/ports"
	"github.com/wherry-engine/wherry/network/rtnl"
)

// adopt registers the persisted sandboxes with their networks: addresses and
// ports are in use again. What does not fit any more is reported and left out.
// Called before anything else runs.
func (m *Manager) adopt() {
	for _, s := range m.sandboxes {
		var kept []*endpoint
		for _, e := range s.Endpoints {
			n := m.networks[e.NetworkID]
			if n == nil {
				m.o.Logger.Warn("a live container is in a network that is gone", "container", s.ContainerName, "network", e.Network)
				m.back.remove(e.Host)
				continue
			}
			e.sandbox, e.net = s, n
			n.endpoints[s.ID] = e
			e.retake(m)
			kept = append(kept, e)
		}
		s.Endpoints, s.server = kept, s.Helper
		for _, p := range s.Published {
			if err := m.ports.Claim(p.key()); err != nil {
				m.o.Logger.Warn("a published port of a live container is in use", "container", s.ContainerName, "err", err)
			}
		}
	}
}

func (e *endpoint) retake(m *Manager) {
	for _, p := range []netip.Prefix{e.V4, e.V6} {
		if !p.IsValid() {
			continue
		}
		s := e.net.subnetOf(p.Addr().Is6())
		for _, x := range e.net.subnets {
			if x.Subnet().Contains(p.Addr()) {
				s = x
			}
		}
		if s == nil || s.Take(p.Addr()) != nil {
			m.o.Logger.Warn("the address of a live container does not fit its network", "network", e.Network, "address", p)
		}
	}
}

// sweep removes devices of ours that belong to nothing, as a killed daemon
// leaves them. Called before the pool is started.
func (m *Manager) sweep() {
	links, err := m.nl.Links()
	if err != nil {
		m.o.Logger.Warn("cannot look for left-over links", "err", err)
		return
	}
	known := map[string]bool{}
	for _, s := range m.sandboxes {
		for _, e := range s.Endpoints {
			known[e.Host] = true
		}
	}
	for _, n := range m.networks {
		known[n.Device] = true
	}
	var b rtnl.Batch
	for _, l := range links {
		if l.Alias == m.alias && !known[l.Name] && (strings.HasPrefix(l.Name, netns.VethPrefix) || l.Kind == "bridge") {
			b.DelLink(l.Index)
		}
	}
	// Many go by themselves at this moment, with the namespaces of a killed daemon.
	if err := m.nl.Do(&b); err != nil && !onlyGone(err) {
		m.o.Logger.Warn("cannot remove left-over links", "err", err)
	}
}

// Restore closes the sandboxes that are not live and makes sure that the
// helper has the others.
func (sb *Sandboxes) Restore(ctx context.Context, live map[network.SandboxID]*os.File) error {
	m := sb.m
	m.mu.Lock()
	var ended []network.SandboxID
	for id := range m.sandboxes {
		if _, ok := live[id]; !ok {
			ended = append(ended, id)
		}
	}
	m.mu.Unlock()
	var errs []error
	for _, id := range ended {
		errs = append(errs, sb.Close(ctx, id))
	}
	if m.o.DataPlane == nil {
		m.reholdPorts()
		return errors.Join(errs...)
	}
	return errors.Join(append(errs, m.reconcile(ctx, live))...)
}

// reconcile makes the helper's sandboxes those that live.
func (m *Manager) reconcile(ctx context.Context, live map[network.SandboxID]*os.File) error {
	known, err := m.o.DataPlane.List(ctx)
	if err != nil {
		return err
	}
	var errs []error
	has := map[network.SandboxID]bool{}
	for _, id := range known {
		has[network.SandboxID(id)] = true
		if _, err := m.sandbox(network.SandboxID(id)); err != nil {
			errs = append(errs, m.o.DataPlane.Drop(ctx, id))
		}
	}
	for id, ns := range live {
		s, err := m.sandbox(id)
		if err != nil || !s.Helper || has[id] {
			continue
		}
		if ns == nil {
			m.o.Logger.Error("the net helper lost a sandbox whose namespace cannot be found", "container", s.ContainerName)
			continue
		}
		m.o.Logger.Info("the net helper lost a sandbox; making it again", "container", s.ContainerName)
		errs = append(errs, m.handOverAgain(ctx, s, ns))
	}
	return errors.Join(errs...)
}

// handOverAgain gives the helper new sockets for a sandbox that it lost.
func (m *Manager) handOverAgain(ctx context.Context, s *sandbox, ns *os.File) error {
	bound, err := m.rebind(s)
	defer ports.CloseAll(bound)
	if err != nil {
		return err
	}
	m.mu.Lock()
	s.Helper, s.server = false, false
	m.mu.Unlock()
	return m.handOver(ctx, s, ns, bound)
}

// rebind makes the sockets of ports that are reserved already.
func (m *Manager) rebind(s *sandbox) ([]ports.Bound, error) {
	var out []ports.Bound
	for _, p := range s.Published {
		fd, err := ports.Bind(p.key())
		if err != nil {
			return out, err
		}
		out = append(out, ports.Bound{Key: p.key(), FD: fd})
	}
	return out, nil
}

// reholdPorts binds the ports of live sandboxes in this process.
func (m *Manager) reholdPorts() {
	for _, s := range m.sandboxes {
		bound, err := m.rebind(s)
		if err != nil {
			m.o.Logger.Warn("a published port of a live container is in use", "container", s.ContainerName, "err", err)
		}
		m.held[s.ID] = bound
	}
}
