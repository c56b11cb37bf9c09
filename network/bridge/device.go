package bridge

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/network/netns"
	"github.com/wherry-engine/wherry/network/rtnl"
)

// makeBridge makes sure of a network's device, its addresses and settings. A
// device of that name that is not ours is used as it is, and never removed.
func (m *Manager) makeBridge(n *netw) error {
	if n.Driver != driverBridge {
		return nil
	}
	l, err := m.nl.LinkByName(n.Device)
	if errors.Is(err, unix.ENODEV) {
		var b rtnl.Batch
		b.AddBridge(n.Device, m.alias, randomMAC(), n.MTU)
		if err := m.nl.Do(&b); err != nil {
			return err
		}
		l, err = m.nl.LinkByName(n.Device)
	}
	if err != nil {
		return err
	}
	if l.Kind != "bridge" {
		return fmt.Errorf("device %s is a %s, not a bridge", n.Device, l.Kind)
	}
	n.OwnDevice = l.Alias == m.alias
	m.warnOverlap(n, l.Index)
	n.index = l.Index
	m.settings(n)
	var b rtnl.Batch
	have, err := m.nl.Prefixes()
	if err != nil {
		return err
	}
	for _, s := range n.subnets {
		want := netip.PrefixFrom(s.bridge, s.Subnet().Bits())
		if !slices.Contains(have[l.Index], want) {
			b.AddAddr(l.Index, want)
		}
	}
	for _, p := range have[l.Index] {
		if n.OwnDevice && !p.Addr().IsLinkLocalUnicast() && !n.has(p) {
			b.DelAddr(l.Index, p)
		}
	}
	b.SetLink(l.Index, rtnl.LinkChange{Up: true})
	return m.nl.Do(&b)
}

// warnOverlap reports routes of other devices that hide a network's addresses.
func (m *Manager) warnOverlap(n *netw, index int) {
	routes, err := m.nl.Destinations()
	if err != nil {
		return
	}
	for link, list := range routes {
		for _, p := range list {
			if link != index && p.Bits() > 0 && slices.ContainsFunc(n.subnets, func(s *subnet) bool { return s.Subnet().Overlaps(p) && p.Addr().Is4() }) {
				m.o.Logger.Warn("a network's subnet overlaps a route of this machine", "network", n.Name, "route", p)
			}
		}
	}
}

// has reports whether p is the bridge's address in one of the subnets.
func (n *netw) has(p netip.Prefix) bool {
	return slices.ContainsFunc(n.subnets, func(s *subnet) bool {
		return s.bridge == p.Addr() && s.Subnet().Bits() == p.Bits()
	})
}

// settings writes the device's sysctls; what the kernel lacks is not needed.
func (m *Manager) settings(n *netw) {
	v4, v6 := "net/ipv4/conf/"+n.Device+"/", "net/ipv6/conf/"+n.Device+"/"
	// The host's own connections to published ports come from 127.0.0.1. Our
	// rules keep containers from using that way to the host's loopback services;
	// without rules the proxy connects, and there must be no such way.
	localnet := "1"
	if m.o.NoRules4 {
		localnet = "0"
	}
	_ = netns.Sysctl(v4+"route_localnet", localnet)
	_ = netns.Sysctl(v6+"accept_ra", "0")
	if n.EnableIPv6 {
		_ = netns.Sysctl(v6+"disable_ipv6", "0")
	}
}

func (m *Manager) removeBridge(n *netw) error {
	if n.Driver != driverBridge {
		return nil
	}
	l, err := m.nl.LinkByName(n.Device)
	if errors.Is(err, unix.ENODEV) || err == nil && l.Alias != m.alias {
		return nil
	}
	if err != nil {
		return err
	}
	var b rtnl.Batch
	b.DelLink(l.Index)
	return m.nl.Do(&b)
}

// deviceAddress is the first address of an existing device that is not
// link-local; not valid if there is none.
func (m *Manager) deviceAddress(name string, v6 bool) netip.Prefix {
	l, err := m.nl.LinkByName(name)
	if err != nil {
		return netip.Prefix{}
	}
	all, err := m.nl.Prefixes()
	if err != nil {
		return netip.Prefix{}
	}
	for _, p := range all[l.Index] {
		if p.Addr().Is6() == v6 && !p.Addr().IsLinkLocalUnicast() {
			return p
		}
	}
	return netip.Prefix{}
}

// forwarding lets the kernel route between the networks and the world.
func (m *Manager) forwarding(list []*netw) {
	if m.o.NoForward {
		return
	}
	keys := map[string]bool{"net/ipv4/ip_forward": true}
	for _, n := range list {
		if n.EnableIPv6 {
			keys["net/ipv6/conf/default/forwarding"] = true
			keys["net/ipv6/conf/all/forwarding"] = true
		}
	}
	for key := range keys {
		if cur, err := netns.ReadSysctl(key); err == nil && cur == "1" {
			continue
		}
		if err := netns.Sysctl(key, "1"); err != nil {
			m.o.Logger.Warn("forwarding stays off: containers cannot reach other machines", "sysctl", key, "err", err)
		}
	}
}

// randomMAC is a locally administered address; a bridge without one changes
// its own whenever a port comes or goes.
func randomMAC() net.HardwareAddr {
	mac := make(net.HardwareAddr, 6)
	_, _ = rand.Read(mac) // never fails
	mac[0], mac[1] = 0x02, 0x42
	return mac
}

// hasIPv6 reports whether IPv6 sockets can be bound here.
func hasIPv6() bool {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	return unix.Bind(fd, &unix.SockaddrInet6{}) == nil
}
