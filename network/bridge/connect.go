package bridge

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/wherry-engine/wherry/network"
	"github.com/wherry-engine/wherry/network/netns"
)

// Get returns what Open returned, with later changes.
func (sb *Sandboxes) Get(_ context.Context, id network.SandboxID) (network.Sandbox, error) {
	m := sb.m
	s, err := m.sandbox(id)
	if err != nil {
		return network.Sandbox{}, err
	}
	return m.result(s), nil
}

// Connect adds an endpoint to a live sandbox.
func (sb *Sandboxes) Connect(ctx context.Context, id network.SandboxID, ns *os.File, req network.EndpointRequest) (network.Endpoint, error) {
	m := sb.m
	s, err := m.sandbox(id)
	if err != nil {
		return network.Endpoint{}, err
	}
	m.mu.Lock()
	e, err := m.join(s, req)
	if e != nil {
		s.Endpoints = append(s.Endpoints, e)
	}
	m.mu.Unlock()
	if err != nil || e == nil {
		return network.Endpoint{}, err
	}
	if err := m.connect(ctx, s, ns, e); err != nil {
		return network.Endpoint{}, errors.Join(err, m.leaveLive(context.WithoutCancel(ctx), s, ns, e))
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return e.result(), nil
}

func (m *Manager) connect(ctx context.Context, s *sandbox, ns *os.File, e *endpoint) (err error) {
	link, err := netns.Dial(ns)
	if err != nil {
		return err
	}
	defer link.Close()
	bound, err := m.reservePorts(s)
	if err != nil {
		return err
	}
	defer func() { m.settle(s, bound, err) }()
	if err := m.attach(ns, link, e); err != nil {
		return err
	}
	if err := m.defaultRoutes(link, s, nil); err != nil {
		return err
	}
	if len(bound) > 0 {
		if err := m.publishRules(s.rules()); err != nil {
			return err
		}
	}
	if err := m.handOver(ctx, s, ns, bound); err != nil {
		return err
	}
	return m.save(s)
}

// Disconnect removes an endpoint from a live sandbox.
func (sb *Sandboxes) Disconnect(ctx context.Context, id network.SandboxID, ns *os.File, networkRef string, force bool) error {
	m := sb.m
	s, err := m.sandbox(id)
	if err != nil {
		return err
	}
	m.mu.Lock()
	var e *endpoint
	n, err := m.find(networkRef)
	if err == nil {
		e = n.endpoints[s.ID]
	}
	m.mu.Unlock()
	if err != nil {
		return err
	}
	if e == nil {
		return errdefs.ErrNotFound.WithMessage(fmt.Sprintf("container %s is not connected to network %s", s.ContainerID, n.Name))
	}
	if err := m.leaveLive(ctx, s, ns, e); err != nil && !force {
		return err
	}
	return m.save(s)
}

// leaveLive takes an endpoint out of a live sandbox. Ports published through
// it move to the endpoint that is the way out now, or end.
func (m *Manager) leaveLive(ctx context.Context, s *sandbox, ns *os.File, e *endpoint) error {
	var errs []error
	old := s.rules()
	m.mu.Lock()
	s.Endpoints = slices.DeleteFunc(s.Endpoints, func(x *endpoint) bool { return x == e })
	v4, v6 := s.gateways()
	for i, p := range s.Published {
		if v4 != nil || v6 != nil {
			s.Published[i].Target = netip.AddrPortFrom(target(p.Host.Addr(), v4, v6), p.Target.Port())
		}
	}
	m.mu.Unlock()
	if len(old) > 0 && !slices.Equal(old, s.rules()) || v4 == nil && v6 == nil && len(old) > 0 {
		errs = append(errs, m.unpublishRules(old))
		if v4 == nil && v6 == nil {
			m.freePorts(s)
		} else {
			errs = append(errs, m.publishRules(s.rules()))
		}
	}
	// The veth pair must be gone before its address is free: the container lives.
	errs = append(errs, m.back.removeNow(e.Host))
	m.mu.Lock()
	e.leave()
	m.mu.Unlock()
	if link, err := netns.Dial(ns); err == nil {
		errs = append(errs, m.defaultRoutes(link, s, nil), link.Close())
	} else {
		errs = append(errs, err)
	}
	return errors.Join(append(errs, m.handOver(ctx, s, ns, nil))...)
}

// Rename changes the DNS names of a sandbox.
func (sb *Sandboxes) Rename(ctx context.Context, id network.SandboxID, name string) error {
	m := sb.m
	s, err := m.sandbox(id)
	if err != nil {
		return err
	}
	m.mu.Lock()
	s.ContainerName = strings.TrimPrefix(name, "/")
	for _, e := range s.Endpoints {
		if len(e.Names) > 0 {
			e.Names = s.names(e.Settings.Aliases)
			e.describe()
		}
	}
	m.mu.Unlock()
	if err := m.handOver(ctx, s, nil, nil); err != nil {
		return err
	}
	return m.save(s)
}
