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
		usage: "[OPTIONS] NETWORK CONTAINER", short: "Connect a container to a network",
		args: exactArgs(2),
		run: func(a *app, f *pflag.FlagSet) runFunc {
			var att opts.Attachment
			var ip, ip6 opts.Addr
			var driverOpts, linkLocal []string
			f.StringSliceVar(&att.Aliases, "alias", nil, "Add network-scoped alias for the container")
			f.StringSliceVar(&driverOpts, "driver-opt", nil, "driver options for the network")
			f.IntVar(&att.GwPriority, "gw-priority", 0, "Highest gw-priority provides the default gateway. Accepts positive and negative values.")
			f.Var(&ip, "ip", `IPv4 address (e.g., "172.30.100.104")`)
			f.Var(&ip6, "ip6", `IPv6 address (e.g., "2001:db8::33")`)
			f.Var(newList(&att.Links), "link", "Add link to another container")
			f.StringSliceVar(&linkLocal, "link-local-ip", nil, "Add a link-local address for the container")
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
		usage: "[OPTIONS] NETWORK CONTAINER", short: "Disconnect a container from a network",
		args: exactArgs(2),
		run: func(a *app, f *pflag.FlagSet) runFunc {
			var force bool
			f.BoolVarP(&force, "force", "f", false, "Force the container to disconnect from a network")
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
