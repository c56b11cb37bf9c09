package bridge

import (
	"cmp"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	apinetwork "github.com/moby/moby/api/types/network"
	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/network"
	"github.com/wherry-engine/wherry/network/ipam"
	"github.com/wherry-engine/wherry/network/netns"
	"github.com/wherry-engine/wherry/network/rtnl"
)

// Endpoint options.
const (
	optIfname  = optPrefix + "endpoint.ifname"
	optSysctls = optPrefix + "endpoint.sysctls"
)

// join takes addresses for a sandbox in a network; nil for the network none.
// Called with m.mu held.
func (m *Manager) join(s *sandbox, req network.EndpointRequest) (*endpoint, error) {
	n, err := m.find(req.Network)
	if err != nil {
		return nil, err
	}
	switch n.Driver {
	case driverNull:
		return nil, nil
	case driverHost:
		return nil, errdefs.ErrInvalidArgument.WithMessage("container cannot be connected to host network with a network sandbox of its own")
	}
	if n.endpoints[s.ID] != nil {
		return nil, errdefs.ErrAlreadyExists.WithMessage(fmt.Sprintf("endpoint with name %s already exists in network %s", s.ContainerName, n.Name))
	}
	set := req.Settings.Copy()
	if set == nil {
		set = &apinetwork.EndpointSettings{}
	}
	if err := n.checkSettings(s, set); err != nil {
		return nil, err
	}
	e := &endpoint{ID: newID(), NetworkID: n.id(), Network: n.Name, Settings: set, sandbox: s, net: n}
	if err := e.takeAddresses(); err != nil {
		e.leave()
		return nil, err
	}
	e.Ifname = s.freeIfname(n, set)
	e.MAC = e.mac()
	if !n.Default {
		e.Names = s.names(set.Aliases)
	}
	e.describe()
	n.endpoints[s.ID] = e
	return e, nil
}

// checkSettings refuses what cannot be had.
func (n *netw) checkSettings(s *sandbox, set *apinetwork.EndpointSettings) error {
	for k, v := range set.DriverOpts {
		switch k {
		case optIfname:
			if !deviceName(v) {
				return invalidOption(k, v, "is not a device name")
			}
		case optSysctls:
			if _, err := endpointSysctls(v, "x"); err != nil {
				return err
			}
		default:
			if strings.HasPrefix(k, optPrefix) {
				return fmt.Errorf("endpoint option %s is not supported yet: %w", k, errdefs.ErrNotImplemented)
			}
		}
	}
	if n.NoICC && len(set.Links) > 0 {
		return fmt.Errorf("links in a network without inter-container communication are not supported yet: %w", errdefs.ErrNotImplemented)
	}
	if !n.Default {
		return nil
	}
	if c := set.IPAMConfig; c != nil && (c.IPv4Address.IsValid() || c.IPv6Address.IsValid()) {
		return errdefs.ErrInvalidArgument.WithMessage("user specified IP address is supported on user defined networks only")
	}
	for _, a := range set.Aliases {
		if a != "" && !strings.HasPrefix(s.ContainerID, a) {
			return errdefs.ErrInvalidArgument.WithMessage("network-scoped aliases are only supported for user-defined networks")
		}
	}
	return nil
}

// takeAddresses reserves an address of each family.
func (e *endpoint) takeAddresses() error {
	want := e.Settings.IPAMConfig
	if want == nil {
		want = &apinetwork.EndpointIPAMConfig{}
	}
	var err error
	if e.V4, e.Gateway4, err = e.net.take(false, want.IPv4Address); err != nil {
		return err
	}
	e.V6, e.Gateway6, err = e.net.take(true, want.IPv6Address)
	return err
}

// take reserves the address wanted, or any. The zero values if the network
// does not have the family.
func (n *netw) take(v6 bool, want netip.Addr) (netip.Prefix, netip.Addr, error) {
	family := "IPv4"
	if v6 {
		family = "IPv6"
	}
	var last error
	for _, s := range n.subnets {
		if s.Subnet().Addr().Is6() != v6 {
			continue
		}
		a := want
		if want.IsValid() {
			if !s.Subnet().Contains(want) {
				last = errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("no configured subnet contains IP address %s", want))
				continue
			}
			last = s.Take(want)
			if errdefs.IsAlreadyExists(last) {
				last = errdefs.ErrFailedPrecondition.WithMessage("Address already in use")
			}
		} else {
			a, last = s.Next()
		}
		if last == nil {
			return netip.PrefixFrom(a, s.Subnet().Bits()), n.offered(s), nil
		}
		if want.IsValid() {
			return netip.Prefix{}, netip.Addr{}, last
		}
	}
	switch {
	case errors.Is(last, ipam.ErrFull):
		last = errdefs.ErrFailedPrecondition.WithMessage(fmt.Sprintf("no available %s addresses on this network's address pools: %s (%s)", family, n.Name, n.ID))
	case last == nil && want.IsValid():
		last = errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("no configured subnet contains IP address %s", want))
	}
	return netip.Prefix{}, netip.Addr{}, last
}

// offered is the gateway of a subnet; internal networks offer none.
func (n *netw) offered(s *subnet) netip.Addr {
	if n.Internal {
		return netip.Addr{}
	}
	return s.gateway
}

// leave gives the addresses back. Called with Manager.mu held.
func (e *endpoint) leave() {
	for _, s := range e.net.subnets {
		for _, p := range []netip.Prefix{e.V4, e.V6} {
			if p.IsValid() && s.Subnet().Contains(p.Addr()) {
				s.Free(p.Addr())
			}
		}
	}
	if e.net.endpoints[e.sandbox.ID] == e {
		delete(e.net.endpoints, e.sandbox.ID)
	}
}

// mac is the address asked for, or one that follows from the IPv4 address, so
// that neighbours' caches are right when the address is used again.
func (e *endpoint) mac() net.HardwareAddr {
	if len(e.Settings.MacAddress) > 0 {
		return net.HardwareAddr(e.Settings.MacAddress)
	}
	mac := net.HardwareAddr{0x02, 0x42, 0, 0, 0, 0}
	if e.V4.IsValid() {
		a := e.V4.Addr().As4()
		copy(mac[2:], a[:])
		return mac
	}
	_, _ = rand.Read(mac[2:]) // never fails
	return mac
}

// freeIfname is the next ethN, or the name asked for.
func (s *sandbox) freeIfname(n *netw, set *apinetwork.EndpointSettings) string {
	if name := set.DriverOpts[optIfname]; name != "" {
		return name
	}
	prefix := cmp.Or(n.IfPrefix, "eth")
	for i := 0; ; i++ {
		name := fmt.Sprintf("%s%d", prefix, i)
		if !slices.ContainsFunc(s.Endpoints, func(e *endpoint) bool { return e.Ifname == name }) {
			return name
		}
	}
}

// names are what others find the sandbox by, the container's own name first.
func (s *sandbox) names(aliases []string) []string {
	short := s.ContainerID
	if len(short) > 12 {
		short = short[:12]
	}
	var out []string
	for _, name := range slices.Concat([]string{s.ContainerName}, aliases, []string{short, s.Hostname}) {
		if name != "" && !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	return out
}

// describe fills in what inspect shows.
func (e *endpoint) describe() {
	s := e.Settings
	s.NetworkID, s.EndpointID, s.MacAddress, s.DNSNames = string(e.NetworkID), e.ID, apinetwork.HardwareAddr(e.MAC), e.Names
	s.IPAddress, s.IPPrefixLen, s.Gateway = e.V4.Addr(), max(e.V4.Bits(), 0), e.Gateway4
	s.GlobalIPv6Address, s.GlobalIPv6PrefixLen, s.IPv6Gateway = e.V6.Addr(), max(e.V6.Bits(), 0), e.Gateway6
}

// plugged is a veth pair that leads into a namespace.
type plugged struct {
	host, inside int
	name         string // of the inner end, now
	only         bool   // the sandbox has no other: its default routes come along
}

// attach makes a further veth pair for an endpoint and plugs it in.
func (m *Manager) attach(ns *os.File, link *rtnl.Conn, e *endpoint) error {
	host, hostIndex, inside, err := netns.AddVeth(m.nl, link, ns, e.Ifname, m.alias, e.net.MTU)
	if err != nil {
		return err
	}
	m.mu.Lock()
	e.Host = host
	m.mu.Unlock()
	return m.plug(ns, link, e, plugged{host: hostIndex, inside: inside, name: e.Ifname})
}

// plug connects a veth pair to the network and gives it the addresses.
func (m *Manager) plug(ns *os.File, link *rtnl.Conn, e *endpoint, p plugged) error {
	var in, out rtnl.Batch
	change := rtnl.LinkChange{Address: e.MAC}
	if e.net.MTU != m.o.MTU {
		change.MTU = e.net.MTU
		out.SetLink(p.host, rtnl.LinkChange{MTU: e.net.MTU})
	}
	if p.name != e.Ifname {
		in.SetLink(p.inside, rtnl.LinkChange{Down: true})
		change.Name, change.Up = e.Ifname, true
	}
	in.SetLink(p.inside, change)
	out.SetLink(p.host, rtnl.LinkChange{Master: e.net.index})
	if hairpin := e.hairpin(); hairpin || e.net.NoICC {
		out.SetPort(p.host, hairpin, e.net.NoICC)
	}
	if e.V6.IsValid() {
		if err := enableIPv6(ns, p.name); err != nil {
			return err
		}
	}
	for _, a := range e.allAddresses() {
		in.AddAddr(p.inside, a)
	}
	if p.only {
		for _, via := range []netip.Addr{e.Gateway4, e.Gateway6} {
			if via.IsValid() {
				in.AddRoute(rtnl.Route{Via: via, Link: p.inside})
			}
		}
	}
	e.inside = p.inside
	m.mu.Lock()
	first := len(e.net.endpoints) == 1
	m.mu.Unlock()
	var err error
	if first { // the bridge itself gets its carrier just now
		_, err = m.nl.Ask(&out, e.net.Device)
	} else {
		err = m.nl.Do(&out)
	}
	if err != nil {
		if errors.Is(err, unix.EXFULL) {
			return errdefs.ErrFailedPrecondition.WithMessage(fmt.Sprintf("network %s is full: the kernel allows a bridge 1023 endpoints", e.Network))
		}
		return fmt.Errorf("connect %s to bridge %s: %w", e.Host, e.net.Device, err)
	}
	if err := link.Do(&in); err != nil {
		return fmt.Errorf("set up %s: %w", e.Ifname, err)
	}
	if v := e.Settings.DriverOpts[optSysctls]; v != "" {
		return applyEndpointSysctls(ns, v, e.Ifname)
	}
	return nil
}

// hairpin: with bridge-netfilter, a connection to one's own published port
// must leave the bridge port it came in by.
func (e *endpoint) hairpin() bool {
	return len(e.sandbox.Published) > 0
}

// allAddresses of an endpoint, the link-local ones that were asked for included.
func (e *endpoint) allAddresses() []netip.Prefix {
	var out []netip.Prefix
	for _, p := range []netip.Prefix{e.V4, e.V6} {
		if p.IsValid() {
			out = append(out, p)
		}
	}
	if c := e.Settings.IPAMConfig; c != nil {
		for _, a := range c.LinkLocalIPs {
			bits := 16
			if a.Is6() {
				bits = 64
			}
			out = append(out, netip.PrefixFrom(a, bits))
		}
	}
	return out
}

// enableIPv6 turns IPv6 on for one interface, ready at once.
func enableIPv6(ns *os.File, ifname string) error {
	return netns.Do(ns, func() error {
		dir := "net/ipv6/conf/" + ifname + "/"
		_ = netns.Sysctl(dir+"accept_ra", "0")
		_ = netns.Sysctl(dir+"accept_dad", "0")
		return netns.Sysctl(dir+"disable_ipv6", "0")
	})
}

// endpointSysctls parses "net.ipv4.conf.IFNAME.log_martians=1,…".
func endpointSysctls(v, ifname string) (map[string]string, error) {
	out := map[string]string{}
	for _, one := range strings.Split(v, ",") {
		key, value, ok := strings.Cut(one, "=")
		f := strings.SplitN(key, ".", 5)
		if !ok || len(f) != 5 || f[0] != "net" || f[3] != "IFNAME" || strings.ContainsAny(key, "/") {
			return nil, invalidOption(optSysctls, one, "is not of the form net.X.Y.IFNAME.Z=value")
		}
		out["net/"+f[1]+"/"+f[2]+"/"+ifname+"/"+f[4]] = value
	}
	return out, nil
}

func applyEndpointSysctls(ns *os.File, v, ifname string) error {
	want, err := endpointSysctls(v, ifname)
	if err != nil {
		return err
	}
	return netns.Do(ns, func() error {
		for k, v := range want {
			if err := netns.Sysctl(k, v); err != nil {
				return fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
			}
		}
		return nil
	})
}
