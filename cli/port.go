package cli

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/network"
	"github.com/spf13/pflag"
)

func portCommand() command {
	return command{
		group: "container", name: "port", top: "port",
		usage: "CONTAINER [PRIVATE_PORT[/PROTO]]", short: "Show which host ports lead to a container",
		args: rangeArgs(1, 2),
		run: func(a *app, _ *pflag.FlagSet) runFunc {
			return func(ctx context.Context, args []string) error {
				cl, err := a.client()
				if err != nil {
					return err
				}
				var c struct {
					NetworkSettings struct{ Ports network.PortMap }
				}
				if err := cl.Get(ctx, containerPath(args[0], "json"), nil, &c); err != nil {
					return err
				}
				if len(args) == 2 {
					return a.onePort(args[0], args[1], c.NetworkSettings.Ports)
				}
				a.allPorts(c.NetworkSettings.Ports)
				return nil
			}
		},
	}
}

func (a *app) onePort(name, want string, ports network.PortMap) error {
	p, err := network.ParsePort(want)
	if err != nil {
		return err
	}
	bindings := ports[p]
	if len(bindings) == 0 {
		return invalidf("Error: No public port '%s' published for %s", want, name)
	}
	for _, l := range hostPorts(bindings) {
		fmt.Fprintln(a.out, l)
	}
	return nil
}

func (a *app) allPorts(ports network.PortMap) {
	keys := make([]network.Port, 0, len(ports))
	for p := range ports {
		keys = append(keys, p)
	}
	slices.SortFunc(keys, func(x, y network.Port) int {
		if x.Num() != y.Num() {
			return int(x.Num()) - int(y.Num())
		}
		return strings.Compare(string(x.Proto()), string(y.Proto()))
	})
	for _, p := range keys {
		for _, l := range hostPorts(ports[p]) {
			fmt.Fprintf(a.out, "%s -> %s\n", p, l)
		}
	}
}

func hostPorts(bindings []network.PortBinding) []string {
	var out []string
	for _, b := range bindings {
		ip := ""
		if b.HostIP.IsValid() {
			ip = b.HostIP.String()
		}
		out = append(out, net.JoinHostPort(ip, b.HostPort))
	}
	return out
}
