package bridge

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/events"
	apinetwork "github.com/moby/moby/api/types/network"

	"github.com/wherry-engine/wherry/network"
	"github.com/wherry-engine/wherry/network/netns"
	"github.com/wherry-engine/wherry/network/nft"
)

// Sandboxes implements network.Sandboxes.
type Sandboxes struct{ m *Manager }

var _ network.Sandboxes = (*Sandboxes)(nil)

// Sandboxes returns the manager's other face.
func (m *Manager) Sandboxes() *Sandboxes { return &Sandboxes{m} }

// sandbox is a live sandbox, as persisted. Manager.mu guards it.
type sandbox struct {
	Version       int               `json:"version"`
	ID            network.SandboxID `json:"id"`
	ContainerID   string            `json:"containerId,omitempty"`
	ContainerName string            `json:"containerName,omitempty"`
	Hostname      string            `json:"hostname,omitempty"`
	Endpoints     []*endpoint       `json:"endpoints,omitempty"`
	Published     []published       `json:"published,omitempty"`
	// What was asked for, in case the endpoint to publish on comes later.
	Ports      apinetwork.PortMap `json:"ports,omitempty"`
	Exposed    []apinetwork.Port  `json:"exposed,omitempty"`
	PublishAll bool               `json:"publishAll,omitempty"`
	DNS        network.DNS        `json:"dns,omitzero"`
	// Helper: the net helper has a part in it.
	Helper bool `json:"helper,omitempty"`

	server bool // the helper has its name server's sockets
}

// published is a port of the host that leads to the sandbox.
type published struct {
	Port   apinetwork.Port `json:"port"` // of the container
	Proto  uint8           `json:"proto"`
	Host   netip.AddrPort  `json:"host"`
	Target netip.AddrPort  `json:"target"`
}

// endpoint is the presence of a sandbox in a network.
type endpoint struct {
	ID        string           `json:"id"`
	NetworkID network.ID       `json:"networkId"`
	Network   string           `json:"network"`
	Ifname    string           `json:"ifname"` // inside
	Host      string           `json:"host"`   // name of the veth end in the host
	MAC       net.HardwareAddr `json:"mac"`
	V4        netip.Prefix     `json:"v4,omitzero"`
	V6        netip.Prefix     `json:"v6,omitzero"`
	Gateway4  netip.Addr       `json:"gateway4,omitzero"` // that the network offers
	Gateway6  netip.Addr       `json:"gateway6,omitzero"`
	// Names others resolve; empty on the default bridge.
	Names    []string                     `json:"names,omitempty"`
	Settings *apinetwork.EndpointSettings `json:"settings"`

	sandbox *sandbox
	net     *netw
	inside  int // index of the inner link; 0 if not known
}

// Open makes a sandbox.
func (sb *Sandboxes) Open(ctx context.Context, req network.SandboxRequest) (network.Sandbox, *os.File, error) {
	m := sb.m
	s, err := m.admit(req)
	if err != nil {
		return network.Sandbox{}, nil, err
	}
	ns, err := m.build(ctx, s, req)
	if err != nil {
		return network.Sandbox{}, nil, errors.Join(err, m.dismantle(context.WithoutCancel(ctx), s))
	}
	out := m.result(s)
	m.announce(events.ActionConnect, s)
	return out, ns, nil
}

// build makes what an admitted sandbox consists of, outside this process.
func (m *Manager) build(ctx context.Context, s *sandbox, req network.SandboxRequest) (_ *os.File, err error) {
	bound, err := m.reservePorts(s)
	if err != nil {
		return nil, err
	}
	defer func() { m.settle(s, bound, err) }()
	rules := make(chan error, 1)
	if published := s.rules(); len(published) > 0 {
		go func() { rules <- m.publishRules(published) }()
	} else {
		rules <- nil
	}
	ns, err := m.namespace(ctx, s, &req)
	if ns != nil {
		defer ns.Link.Close()
	}
	if err = errors.Join(err, <-rules); err == nil {
		err = m.handOver(ctx, s, ns.File, bound)
	}
	if err == nil {
		err = m.save(s)
	}
	if err != nil {
		if ns != nil {
			err = errors.Join(err, ns.File.Close())
		}
		return nil, err
	}
	return ns.File, nil
}

// namespace takes a namespace and connects it. On error the namespace may be
// set and is the caller's.
func (m *Manager) namespace(ctx context.Context, s *sandbox, req *network.SandboxRequest) (*netns.NS, error) {
	bare := len(s.Endpoints) == 0
	ns, err := m.obtain(ctx, req.NetNS, bare)
	if err != nil {
		return nil, err
	}
	if bare {
		return ns, setSysctls(ns.File, req.Sysctls)
	}
	first := s.Endpoints[0]
	m.mu.Lock()
	first.Host = ns.Host
	m.mu.Unlock()
	pair := plugged{host: ns.HostIndex, inside: ns.PeerIndex, name: netns.Peer, only: len(s.Endpoints) == 1}
	if err := m.plug(ns.File, ns.Link, first, pair); err != nil {
		return ns, err
	}
	for _, e := range s.Endpoints[1:] {
		if err := m.attach(ns.File, ns.Link, e); err != nil {
			return ns, err
		}
	}
	if !pair.only {
		if err := m.defaultRoutes(ns.Link, s, nil); err != nil {
			return ns, err
		}
	}
	return ns, setSysctls(ns.File, req.Sysctls)
}

// obtain returns a namespace that is set up: one that is ready, or the one given.
func (m *Manager) obtain(ctx context.Context, given *os.File, bare bool) (*netns.NS, error) {
	switch {
	case given != nil:
		return m.pool.Furnish(given, bare)
	case bare:
		return m.pool.Bare(ctx)
	}
	return m.pool.Take(ctx)
}

// setSysctls writes those settings that the pool did not.
func setSysctls(ns *os.File, want map[string]string) error {
	have := presets()
	var keys []string
	for _, k := range slices.Sorted(maps.Keys(want)) {
		if v, ok := have[k]; !ok || v != want[k] {
			keys = append(keys, k)
		}
	}
	if len(keys) == 0 {
		return nil
	}
	return netns.Do(ns, func() error {
		for _, k := range keys {
			if err := netns.Sysctl(k, want[k]); err != nil {
				return fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
			}
		}
		return nil
	})
}

// admit registers a sandbox with its addresses. AlreadyExists, NotFound,
// InvalidArgument, FailedPrecondition.
func (m *Manager) admit(req network.SandboxRequest) (*sandbox, error) {
	s := &sandbox{
		Version: recordVersion, ID: req.ID, ContainerID: req.ContainerID, ContainerName: strings.TrimPrefix(req.ContainerName, "/"),
		Hostname: req.Hostname, Ports: req.Ports, Exposed: sortedPorts(req.Exposed), PublishAll: req.PublishAll, DNS: req.DNS,
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.sandboxes[s.ID] != nil {
		return nil, errdefs.ErrAlreadyExists.WithMessage(fmt.Sprintf("network sandbox %s exists already", s.ID))
	}
	for _, er := range req.Endpoints {
		e, err := m.join(s, er)
		if err != nil {
			m.leaveAll(s)
			return nil, err
		}
		if e != nil {
			s.Endpoints = append(s.Endpoints, e)
		}
	}
	m.sandboxes[s.ID] = s
	return s, nil
}

// leaveAll gives all addresses back. Called with m.mu held.
func (m *Manager) leaveAll(s *sandbox) {
	for _, e := range s.Endpoints {
		e.leave()
	}
}

// save persists a sandbox, without waiting for the disk.
func (m *Manager) save(s *sandbox) error {
	m.mu.Lock()
	raw, err := json.Marshal(s)
	m.mu.Unlock()
	if err == nil {
		err = m.o.Store.Put(bucketSandboxes, string(s.ID), raw)
	}
	if err != nil {
		return fmt.Errorf("save network sandbox: %w", err)
	}
	return nil
}

// Close releases a sandbox.
func (sb *Sandboxes) Close(ctx context.Context, id network.SandboxID) error {
	m := sb.m
	m.mu.Lock()
	s := m.sandboxes[id]
	m.mu.Unlock()
	if s == nil {
		return nil
	}
	err := m.dismantle(context.WithoutCancel(ctx), s)
	m.announce(events.ActionDisconnect, s)
	return err
}

// dismantle undoes admit and as much of build as there is. Rules and ports go
// first, so that nothing leads to an address that is free.
func (m *Manager) dismantle(ctx context.Context, s *sandbox) error {
	var errs []error
	if rules := s.rules(); len(rules) > 0 {
		errs = append(errs, m.unpublishRules(rules))
	}
	if s.Helper && m.o.DataPlane != nil {
		if err := m.o.DataPlane.Drop(ctx, string(s.ID)); err != nil {
			errs = append(errs, fmt.Errorf("release ports and names: %w", err))
		}
	}
	m.mu.Lock()
	delete(m.sandboxes, s.ID)
	m.leaveAll(s)
	links := s.hostLinks()
	m.mu.Unlock()
	m.freePorts(s)
	m.back.remove(links...)
	errs = append(errs, m.o.Store.Delete(bucketSandboxes, string(s.ID)))
	return errors.Join(errs...)
}

func (s *sandbox) hostLinks() []string {
	var out []string
	for _, e := range s.Endpoints {
		if e.Host != "" {
			out = append(out, e.Host)
		}
	}
	return out
}

// rules are the published ports that the kernel can translate.
func (s *sandbox) rules() []nft.Port {
	var out []nft.Port
	for _, p := range s.Published {
		if p.Host.Addr().Is4() == p.Target.Addr().Is4() && p.Host.Addr() != netip.IPv6Loopback() {
			out = append(out, nft.Port{Proto: p.Proto, Host: p.Host, Target: p.Target})
		}
	}
	return out
}

// announce publishes an event for each endpoint.
func (m *Manager) announce(a events.Action, s *sandbox) {
	for _, e := range s.Endpoints {
		m.publish(a, e.net, map[string]string{"container": s.ContainerID})
	}
}

// sandbox finds a live sandbox. NotFound.
func (m *Manager) sandbox(id network.SandboxID) (*sandbox, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if s := m.sandboxes[id]; s != nil {
		return s, nil
	}
	return nil, errdefs.ErrNotFound.WithMessage(fmt.Sprintf("network sandbox %s not found", id))
}

func sortedPorts(set apinetwork.PortSet) []apinetwork.Port {
	return slices.SortedFunc(maps.Keys(set), comparePorts)
}

func comparePorts(a, b apinetwork.Port) int {
	if a.Num() != b.Num() {
		return int(a.Num()) - int(b.Num())
	}
	return strings.Compare(string(a.Proto()), string(b.Proto()))
}
