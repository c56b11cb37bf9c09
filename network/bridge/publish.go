package bridge

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	apinetwork "github.com/moby/moby/api/types/network"
	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/network/nft"
	"github.com/wherry-engine/wherry/network/ports"
)

// binding is one publication that was asked for.
type binding struct {
	port       apinetwork.Port
	proto      uint8
	addrs      []netip.Addr // of the host
	start, end uint16       // 0: any
}

// reservePorts takes the ports of a sandbox on the host and notes them in
// Published. Nothing is published without an endpoint that leads outside.
// FailedPrecondition, InvalidArgument, NotImplemented.
func (m *Manager) reservePorts(s *sandbox) ([]ports.Bound, error) {
	m.mu.Lock()
	v4, v6 := s.gateways()
	m.mu.Unlock()
	if (v4 == nil && v6 == nil) || len(s.Published) > 0 {
		return nil, nil
	}
	list, err := m.bindings(s, v4, v6)
	if err != nil {
		return nil, err
	}
	var bound []ports.Bound
	var out []published
	for _, b := range list {
		got, err := m.ports.Reserve(b.proto, b.addrs, b.start, b.end)
		if err != nil {
			m.ports.Free(bound)
			return nil, fmt.Errorf("driver failed programming external connectivity on endpoint %s (%s): %w", s.ContainerName, first(v4, v6).ID, err)
		}
		bound = append(bound, got...)
		for _, g := range got {
			out = append(out, published{
				Port: b.port, Proto: b.proto, Host: netip.AddrPortFrom(g.Addr, g.Port),
				Target: netip.AddrPortFrom(target(g.Addr, v4, v6), b.port.Num()),
			})
		}
	}
	m.mu.Lock()
	s.Published = out
	m.mu.Unlock()
	return bound, nil
}

func first(a, b *endpoint) *endpoint {
	if a != nil {
		return a
	}
	return b
}

// target is the container's address for connections to a host address: of the
// same family if it has one, else the proxy translates.
func target(host netip.Addr, v4, v6 *endpoint) netip.Addr {
	if v6 != nil && (host.Is6() || v4 == nil) {
		return v6.V6.Addr()
	}
	return v4.V4.Addr()
}

// bindings lists what is to be published, the fixed ports first, so that a
// chosen one does not take their place.
func (m *Manager) bindings(s *sandbox, v4, v6 *endpoint) ([]binding, error) {
	var fixed, free []binding
	add := func(p apinetwork.Port, pb apinetwork.PortBinding) error {
		b, err := m.binding(p, pb, v4, v6)
		if err != nil {
			return err
		}
		if b.start == 0 {
			free = append(free, b)
			return nil
		}
		fixed = append(fixed, b)
		return nil
	}
	for _, p := range slices.SortedFunc(maps.Keys(s.Ports), comparePorts) {
		list := s.Ports[p]
		if len(list) == 0 {
			list = []apinetwork.PortBinding{{}}
		}
		for _, pb := range list {
			if err := add(p, pb); err != nil {
				return nil, err
			}
		}
	}
	for _, p := range s.Exposed {
		if _, ok := s.Ports[p]; !s.PublishAll || ok {
			continue
		}
		if err := add(p, apinetwork.PortBinding{}); err != nil {
			return nil, err
		}
	}
	return append(fixed, free...), nil
}

func (m *Manager) binding(p apinetwork.Port, pb apinetwork.PortBinding, v4, v6 *endpoint) (binding, error) {
	b := binding{port: p}
	switch p.Proto() {
	case apinetwork.TCP:
		b.proto = unix.IPPROTO_TCP
	case apinetwork.UDP:
		b.proto = unix.IPPROTO_UDP
	default:
		return b, fmt.Errorf("publishing %s: protocol %q is not supported yet: %w", p, p.Proto(), errdefs.ErrNotImplemented)
	}
	var err error
	if b.start, b.end, err = hostPorts(pb.HostPort); err != nil {
		return b, err
	}
	b.addrs = m.hostAddrs(pb.HostIP, first(v4, v6).net, v6 != nil && v4 == nil)
	return b, nil
}

// hostAddrs are the addresses to publish on: the one that was named, the
// default, or all of both families.
func (m *Manager) hostAddrs(want netip.Addr, n *netw, only6 bool) []netip.Addr {
	if !want.IsValid() {
		want = n.BindIP
	}
	any4, any6 := netip.IPv4Unspecified(), netip.IPv6Unspecified()
	switch {
	case want.IsValid():
		return []netip.Addr{want.Unmap()}
	case !m.ip6:
		return []netip.Addr{any4}
	case only6:
		return []netip.Addr{any6, any4}
	}
	return []netip.Addr{any4, any6}
}

// hostPorts parses "", "0", "8080" or "8000-8010".
func hostPorts(s string) (start, end uint16, err error) {
	from, to, isRange := strings.Cut(s, "-")
	if !isRange {
		to = from
	}
	if s == "" {
		return 0, 0, nil
	}
	a, err1 := strconv.ParseUint(from, 10, 16)
	b, err2 := strconv.ParseUint(to, 10, 16)
	if err1 != nil || err2 != nil || a > b || a == 0 && b != 0 {
		return 0, 0, errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("invalid port specification: %q", s))
	}
	return uint16(a), uint16(b), nil
}

// settle ends a reservation: the sockets are the helper's now, or the
// manager's if there is none.
func (m *Manager) settle(s *sandbox, bound []ports.Bound, failed error) {
	if len(bound) == 0 {
		return
	}
	if failed == nil && m.o.DataPlane == nil {
		m.mu.Lock()
		m.held[s.ID] = append(m.held[s.ID], bound...)
		m.mu.Unlock()
		return
	}
	ports.CloseAll(bound)
}

// freePorts gives the ports of a sandbox back.
func (m *Manager) freePorts(s *sandbox) {
	m.mu.Lock()
	held := m.held[s.ID]
	delete(m.held, s.ID)
	list := s.Published
	s.Published = nil
	m.mu.Unlock()
	ports.CloseAll(held)
	for _, p := range list {
		m.ports.Release(p.key())
	}
}

func (p published) key() ports.Key {
	return ports.Key{Proto: p.Proto, Addr: p.Host.Addr(), Port: p.Host.Port()}
}

// publishRules adds the rules of published ports; a table that somebody
// flushed is made anew.
func (m *Manager) publishRules(list []nft.Port) error {
	if err := m.table.AddPorts(list); err != nil {
		if err := m.rebuild(); err != nil {
			return err
		}
	}
	m.back.forgetFlows(list)
	return nil
}

func (m *Manager) unpublishRules(list []nft.Port) error {
	err := m.table.DelPorts(list)
	m.back.forgetFlows(list)
	if err == nil {
		return nil
	}
	missing, e := m.table.Missing()
	if e == nil && missing {
		return nil // they went with the table; the next change restores it
	}
	return err
}

// portMap is what inspect shows: the chosen ports, and those only exposed.
func (s *sandbox) portMap() apinetwork.PortMap {
	out := apinetwork.PortMap{}
	for _, p := range s.Exposed {
		out[p] = nil
	}
	for _, p := range s.Published {
		out[p.Port] = append(out[p.Port], apinetwork.PortBinding{
			HostIP: p.Host.Addr(), HostPort: strconv.Itoa(int(p.Host.Port())),
		})
	}
	return out
}
