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
		usage: "[OPTIONS] NETWORK", short: "Set up a network",
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
	f.BoolVar(&r.Attachable, "attachable", false, "Let single containers join the network")
	f.Var(opts.NewMap(&n.aux, nil), "aux-address", "Address to keep from containers (NAME=IP)")
	f.StringVar(&n.configFrom, "config-from", "", "Network made with --config-only to copy settings from")
	f.BoolVar(&r.ConfigOnly, "config-only", false, "Only keep these settings, for other networks to copy")
	f.StringVarP(&r.Driver, "driver", "d", "bridge", "Driver of the network")
	f.StringSliceVar(&n.gateways, "gateway", nil, "Address of the subnet's gateway, IPv4 or IPv6")
	f.BoolVar(&r.Ingress, "ingress", false, "Network for a swarm's published ports")
	f.BoolVar(&r.Internal, "internal", false, "Keep the network apart from the outside")
	f.StringSliceVar(&n.ranges, "ip-range", nil, "Part of the subnet (CIDR) that containers get addresses from")
	f.StringVar(&n.ipamDriver, "ipam-driver", "default", "Driver that hands out addresses")
	f.Var(opts.NewMap(&n.ipamOpts, nil), "ipam-opt", "Setting for the address driver (KEY=VALUE)")
	f.BoolVar(&n.ipv4, "ipv4", true, "Give containers IPv4 addresses")
	f.BoolVar(&n.ipv6, "ipv6", false, "Give containers IPv6 addresses")
	f.Var(newList(&n.labels), "label", "Label for the network (KEY=VALUE)")
	f.VarP(opts.NewMap(&r.Options, nil), "opt", "o", "Setting for the driver (KEY=VALUE)")
	f.StringVar(&r.Scope, "scope", "", "Scope of the network")
	f.StringSliceVar(&n.subnets, "subnet", nil, "Addresses of the network, in CIDR form")
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
