package cli

import (
	"context"
	"fmt"
	"net/netip"
	"strings"

	"github.com/moby/moby/api/types/network"
	"github.com/spf13/pflag"

	"github.com/wherry-engine/wherry/cli/opts"
)

func networkCreateCommand() command {
	return command{
		group: "network", name: "create",
		usage: "[OPTIONS] NETWORK", short: "Create a network",
		args: exactArgs(1),
		run: func(a *app, f *pflag.FlagSet) runFunc {
			n := &networkCreator{set: f}
			n.flags(f)
			return func(ctx context.Context, args []string) error {
				req, err := n.request(args[0])
				if err != nil {
					return err
				}
				cl, err := a.client()
				if err != nil {
					return err
				}
				var r network.CreateResponse
				if err := cl.Post(ctx, "/networks/create", nil, req, &r); err != nil {
					return err
				}
				if r.Warning != "" {
					a.warn([]string{r.Warning})
				}
				fmt.Fprintln(a.out, r.ID)
				return nil
			}
		},
	}
}

type networkCreator struct {
	set                               *pflag.FlagSet
	req                               network.CreateRequest
	ipv4, ipv6                        bool
	configFrom, ipamDriver            string
	labels, subnets, ranges, gateways []string
	aux, ipamOpts                     map[string]string
}

func (n *networkCreator) flags(f *pflag.FlagSet) {
	r := &n.req
	f.BoolVar(&r.Attachable, "attachable", false, "Enable manual container attachment")
	f.Var(opts.NewMap(&n.aux, nil), "aux-address", "Auxiliary IPv4 or IPv6 addresses used by Network driver")
	f.StringVar(&n.configFrom, "config-from", "", "The network from which to copy the configuration")
	f.BoolVar(&r.ConfigOnly, "config-only", false, "Create a configuration only network")
	f.StringVarP(&r.Driver, "driver", "d", "bridge", "Driver to manage the Network")
	f.StringSliceVar(&n.gateways, "gateway", nil, "IPv4 or IPv6 Gateway for the master subnet")
	f.BoolVar(&r.Ingress, "ingress", false, "Create swarm routing-mesh network")
	f.BoolVar(&r.Internal, "internal", false, "Restrict external access to the network")
	f.StringSliceVar(&n.ranges, "ip-range", nil, "Allocate container ip from a sub-range")
	f.StringVar(&n.ipamDriver, "ipam-driver", "default", "IP Address Management Driver")
	f.Var(opts.NewMap(&n.ipamOpts, nil), "ipam-opt", "Set IPAM driver specific options")
	f.BoolVar(&n.ipv4, "ipv4", true, "Enable or disable IPv4 address assignment")
	f.BoolVar(&n.ipv6, "ipv6", false, "Enable or disable IPv6 address assignment")
	f.Var(newList(&n.labels), "label", "Set metadata on a network")
	f.VarP(opts.NewMap(&r.Options, nil), "opt", "o", "Set driver specific options")
	f.StringVar(&r.Scope, "scope", "", "Control the network's scope")
	f.StringSliceVar(&n.subnets, "subnet", nil, "Subnet in CIDR format that represents a network segment")
}

func (n *networkCreator) request(name string) (network.CreateRequest, error) {
	req := n.req
	req.Name = name
	if n.set.Changed("ipv4") {
		req.EnableIPv4 = &n.ipv4
	}
	if n.set.Changed("ipv6") {
		req.EnableIPv6 = &n.ipv6
	}
	if n.configFrom != "" {
		req.ConfigFrom = &network.ConfigReference{Network: n.configFrom}
	}
	var err error
	if req.Labels, err = opts.Labels(nil, n.labels); err != nil {
		return req, err
	}
	pools, err := n.pools()
	if err != nil {
		return req, err
	}
	req.IPAM = &network.IPAM{Driver: n.ipamDriver, Options: n.ipamOpts, Config: pools}
	return req, nil
}

// pools gives each subnet its range, gateway and auxiliary addresses.
func (n *networkCreator) pools() ([]network.IPAMConfig, error) {
	if len(n.subnets) < len(n.ranges) || len(n.subnets) < len(n.gateways) {
		return nil, invalidf("every ip-range or gateway must have a corresponding subnet")
	}
	pools := make([]network.IPAMConfig, 0, len(n.subnets))
	for _, s := range n.subnets {
		p, err := netip.ParsePrefix(strings.TrimSpace(s))
		if err != nil {
			return nil, invalidf("invalid subnet %s: %v", s, err)
		}
		for _, o := range pools {
			if o.Subnet.Overlaps(p) {
				return nil, invalidf("multiple overlapping subnet configuration is not supported")
			}
		}
		pools = append(pools, network.IPAMConfig{Subnet: p})
	}
	for _, r := range n.ranges {
		p, err := netip.ParsePrefix(r)
		if err != nil {
			return nil, invalidf("invalid argument %q for \"--ip-range\" flag: %v", r, err)
		}
		c := poolOf(pools, p.Addr())
		if c == nil {
			return nil, invalidf("no matching subnet for range %s", r)
		}
		if c.IPRange.IsValid() {
			return nil, invalidf("cannot configure multiple ranges (%s, %s) on the same subnet (%s)", r, c.IPRange, c.Subnet)
		}
		c.IPRange = p
	}
	for _, g := range n.gateways {
		ip, err := netip.ParseAddr(g)
		if err != nil {
			return nil, invalidf("invalid argument %q for \"--gateway\" flag: %v", g, err)
		}
		c := poolOf(pools, ip)
		if c == nil {
			return nil, invalidf("no matching subnet for gateway %s", g)
		}
		if c.Gateway.IsValid() {
			return nil, invalidf("cannot configure multiple gateways (%s, %s) for the same subnet (%s)", g, c.Gateway, c.Subnet)
		}
		c.Gateway = ip
	}
	for name, a := range n.aux {
		ip, err := netip.ParseAddr(a)
		c := poolOf(pools, ip)
		if err != nil || c == nil {
			return nil, invalidf("no matching subnet for aux-address %s", a)
		}
		if c.AuxAddress == nil {
			c.AuxAddress = map[string]netip.Addr{}
		}
		c.AuxAddress[name] = ip
	}
	return pools, nil
}

func poolOf(pools []network.IPAMConfig, ip netip.Addr) *network.IPAMConfig {
	for i := range pools {
		if pools[i].Subnet.Contains(ip) {
			return &pools[i]
		}
	}
	return nil
}
