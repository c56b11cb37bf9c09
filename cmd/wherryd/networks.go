package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"

	"github.com/wherry-engine/wherry/daemon/config"
	dataplane "github.com/wherry-engine/wherry/dataplane/client"
	"github.com/wherry-engine/wherry/network/bridge"
	"github.com/wherry-engine/wherry/network/ipam"
)

func (e *engine) wireNetworks(ctx context.Context) error {
	opts, err := e.networkOptions(e.cfg.Load())
	if err != nil {
		return err
	}
	m, err := bridge.New(ctx, opts)
	if err != nil {
		return fmt.Errorf("networks: %w", err)
	}
	e.networks, e.sandboxes = m, m.Sandboxes()
	// With no container and no helper left, nothing of ours stays on the machine.
	e.onClose(func(context.Context) error { return m.Shutdown(e.idle) })
	return nil
}

// networkOptions translates the configuration, which config has checked.
func (e *engine) networkOptions(cfg *config.Config) (bridge.Options, error) {
	n := &cfg.Network
	o := bridge.Options{
		ExecRoot: cfg.ExecRoot, Bridge: n.Bridge, MTU: n.MTU, IPv6: n.IPv6,
		NoICC: !n.ICC, NoMasquerade: !n.IPMasq, NoForward: !n.IPForward,
		NoRules4: !n.IPTables, NoRules6: !n.IP6Tables, LeaveForeign: n.ForeignRules == "leave",
		HostGateway: cfg.Containers.HostGatewayIPs,
		Gateway:     addrOf(n.Gateway), Gateway6: addrOf(n.GatewayV6), BindIP: addrOf(n.DefaultIP),
		DataPlane: dataplane.New(cfg.ExecRoot),
		Store:     e.state, Events: e.bus, Logger: e.log,
	}
	for _, p := range []struct {
		name, text string
		to         *netip.Prefix
	}{
		{"bip", n.BIP, &o.BridgeIP}, {"bip6", n.BIP6, &o.BridgeIP6},
		{"fixed-cidr", n.FixedCIDR, &o.FixedCIDR}, {"fixed-cidr-v6", n.FixedCIDRv6, &o.FixedCIDR6},
	} {
		if p.text == "" {
			continue
		}
		var err error
		if *p.to, err = netip.ParsePrefix(p.text); err != nil {
			return o, fmt.Errorf("%s: %w", p.name, err)
		}
	}
	for _, p := range n.Pools {
		o.Pools = append(o.Pools, ipam.Pool{Base: p.Base, Size: p.Size})
	}
	return o, nil
}

func addrOf(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}
