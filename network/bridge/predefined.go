package bridge

import (
	"fmt"
	"net/netip"
	"strconv"
	"time"

	"github.com/containerd/errdefs"
	apinetwork "github.com/moby/moby/api/types/network"
)

// predefine makes the networks that always exist.
func (m *Manager) predefine() error {
	for name, driver := range map[string]string{apinetwork.NetworkHost: driverHost, apinetwork.NetworkNone: driverNull} {
		if m.byName(name) != nil {
			continue
		}
		_, err := m.add(record{Version: recordVersion, Network: apinetwork.Network{
			Name: name, ID: newID(), Created: time.Now().UTC(), Scope: "local", Driver: driver, EnableIPv4: true,
			IPAM: apinetwork.IPAM{Driver: "default", Config: []apinetwork.IPAMConfig{}}, Options: map[string]string{}, Labels: map[string]string{},
		}})
		if err != nil {
			return err
		}
	}
	old := m.byName(apinetwork.NetworkBridge)
	if m.o.Bridge == "none" {
		if old != nil {
			return m.forget(old)
		}
		return nil
	}
	if err := m.defaultBridge(old); err != nil {
		return fmt.Errorf("default bridge: %w", err)
	}
	return nil
}

// defaultBridge makes the network "bridge" as the daemon's options want it. It
// keeps its ID; its subnet only if the options do not say another.
func (m *Manager) defaultBridge(old *netw) error {
	o := m.o
	r := record{
		Version: recordVersion, Device: o.Bridge, OwnDevice: true, MTU: o.MTU, NoICC: o.NoICC, NoMasq: o.NoMasquerade,
		Default: true, BindIP: o.BindIP,
		Network: apinetwork.Network{
			Name: apinetwork.NetworkBridge, ID: newID(), Created: time.Now().UTC(), Scope: "local", Driver: driverBridge,
			EnableIPv4: true, EnableIPv6: o.IPv6, Labels: map[string]string{}, IPAM: apinetwork.IPAM{Driver: "default"},
		},
	}
	if old != nil {
		r.ID, r.Created, r.OwnDevice = old.ID, old.Created, old.OwnDevice || old.Device != r.Device
	}
	bind := "0.0.0.0"
	if o.BindIP.IsValid() {
		bind = o.BindIP.String()
	}
	r.Options = map[string]string{
		optDefault: "true", optICC: strconv.FormatBool(!o.NoICC), optMasq: strconv.FormatBool(!o.NoMasquerade),
		optBind: bind, optName: o.Bridge, optMTU: strconv.Itoa(o.MTU),
	}
	for _, v6 := range []bool{false, true} {
		if v6 && !o.IPv6 {
			break
		}
		c, err := m.defaultSubnet(old, v6, &r)
		if err != nil {
			return err
		}
		r.IPAM.Config = append(r.IPAM.Config, c)
	}
	if err := r.gateways(); err != nil {
		return err
	}
	n, err := m.add(r)
	if err != nil {
		return err
	}
	return n.otherGateway(o.Gateway, o.Gateway6)
}

// otherGateway makes containers use a router that is not the bridge.
func (n *netw) otherGateway(gateways ...netip.Addr) error {
	for _, g := range gateways {
		if !g.IsValid() {
			continue
		}
		s := n.subnetOf(g.Is6())
		if s == nil || !s.Subnet().Contains(g) {
			return fmt.Errorf("default gateway %s is not in the bridge's subnet: %w", g, errdefs.ErrInvalidArgument)
		}
		if g == s.bridge {
			continue
		}
		if err := s.Take(g); err != nil {
			return err
		}
		s.gateway = g
	}
	return nil
}

// subnetOf returns the network's first subnet of a family, nil if it has none.
func (n *netw) subnetOf(v6 bool) *subnet {
	for _, s := range n.subnets {
		if s.Subnet().Addr().Is6() == v6 {
			return s
		}
	}
	return nil
}

// defaultSubnet is what the daemon's options say, else the device's own, the
// last one used, or a free one.
func (m *Manager) defaultSubnet(old *netw, v6 bool, r *record) (apinetwork.IPAMConfig, error) {
	own, fixed := m.o.BridgeIP, m.o.FixedCIDR
	if v6 {
		own, fixed = m.o.BridgeIP6, m.o.FixedCIDR6
	}
	if !own.IsValid() {
		own = m.deviceAddress(m.o.Bridge, v6)
	}
	c := apinetwork.IPAMConfig{}
	switch {
	case own.IsValid():
		c.Subnet, c.Gateway = own.Masked(), own.Addr()
	case fixed.IsValid():
		c.Subnet = fixed.Masked()
		return c, m.overlaps(r, c.Subnet)
	case old != nil && old.subnetOf(v6) != nil:
		c.Subnet, c.Gateway = old.subnetOf(v6).Subnet(), old.subnetOf(v6).bridge
	default:
		p, err := m.freeSubnet(v6, r)
		return apinetwork.IPAMConfig{Subnet: p}, err
	}
	if fixed.IsValid() && fixed.Masked() != c.Subnet {
		if !c.Subnet.Contains(fixed.Addr()) || fixed.Bits() < c.Subnet.Bits() {
			return c, fmt.Errorf("fixed CIDR %s is not in the bridge's subnet %s: %w", fixed, c.Subnet, errdefs.ErrInvalidArgument)
		}
		c.IPRange = fixed.Masked()
	}
	return c, nil
}
