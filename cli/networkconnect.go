package cli

import (
	"context"
	"strings"

	"github.com/moby/moby/api/types/network"
	"github.com/spf13/pflag"

	"github.com/wherry-engine/wherry/cli/opts"
	"github.com/wherry-engine/wherry/client"
)

func networkConnectCommand() command {
	return command{
		group: "network", name: "connect",
		usage: "[OPTIONS] NETWORK CONTAINER", short: "Attach a container to a network",
		args: exactArgs(2),
		run: func(a *app, f *pflag.FlagSet) runFunc {
			var att opts.Attachment
			var ip, ip6 opts.Addr
			var driverOpts, linkLocal []string
			f.StringSliceVar(&att.Aliases, "alias", nil, "Further name for the container on this network")
			f.StringSliceVar(&driverOpts, "driver-opt", nil, "Setting for the network's driver (KEY=VALUE)")
			f.IntVar(&att.GwPriority, "gw-priority", 0, "Rank for the default gateway: the network with the highest number wins")
			f.Var(&ip, "ip", "Fixed IPv4 address on this network, such as 10.20.0.9")
			f.Var(&ip6, "ip6", "Fixed IPv6 address on this network, such as fd00:20::9")
			f.Var(newList(&att.Links), "link", "Other container to reach under a name (CONTAINER[:ALIAS])")
			f.StringSliceVar(&linkLocal, "link-local-ip", nil, "Link-local address for the container on this network")
			return func(ctx context.Context, args []string) error {
				att.IPv4, att.IPv6 = ip.Addr, ip6.Addr
				for _, l := range linkLocal {
					var ll opts.Addr
					if err := ll.Set(strings.TrimSpace(l)); err != nil {
						return err
					}
					att.LinkLocalIPs = append(att.LinkLocalIPs, ll.Addr)
				}
				var err error
				if att.DriverOpts, err = opts.Pairs("driver option", driverOpts); err != nil {
					return err
				}
				ep, err := att.Endpoint()
				if err != nil {
					return err
				}
				cl, err := a.client()
				if err != nil {
					return err
				}
				return cl.Post(ctx, "/networks/"+client.Segment(args[0])+"/connect", nil,
					network.ConnectRequest{Container: args[1], EndpointConfig: ep}, nil)
			}
		},
	}
}

func networkDisconnectCommand() command {
	return command{
		group: "network", name: "disconnect",
		usage: "[OPTIONS] NETWORK CONTAINER", short: "Detach a container from a network",
		args: exactArgs(2),
		run: func(a *app, f *pflag.FlagSet) runFunc {
			var force bool
			f.BoolVarP(&force, "force", "f", false, "Detach even if the container cannot be reached")
			return func(ctx context.Context, args []string) error {
				cl, err := a.client()
				if err != nil {
					return err
				}
				return cl.Post(ctx, "/networks/"+client.Segment(args[0])+"/disconnect", nil,
					network.DisconnectRequest{Container: args[1], Force: force}, nil)
			}
		},
	}
}
