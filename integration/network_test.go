package integration

import (
	"fmt"
	"strings"
	"testing"

	"github.com/wherry-engine/wherry/internal/testenv"
)

// network makes a network that is removed at the end.
func network(t *testing.T, cli testenv.CLI, args ...string) string {
	t.Helper()
	n := name(t)
	cli.OK(t, append(append([]string{"network", "create"}, args...), n)...)
	t.Cleanup(func() { cli.Try(t, "network", "rm", n) })
	return n
}

func TestDefaultBridge(t *testing.T) {
	t.Parallel()
	d := shared(t)
	image := d.Image(t, "busybox")
	d.Both(t, func(t *testing.T, cli testenv.CLI) {
		a := detached(t, cli, image, "sleep", "1000")
		ip := cli.OK(t, "inspect", "-f", "{{.NetworkSettings.Networks.bridge.IPAddress}}", a)
		contains(t, "address", cli.OK(t, "exec", a, "ip", "addr", "show", "eth0"), ip+"/24")
		contains(t, "route", cli.OK(t, "exec", a, "ip", "route"), "default via "+d.Gateway.String())
		contains(t, "neighbour", cli.OK(t, "run", "--rm", image, "ping", "-c", "1", "-W", "2", ip), "1 packets received")
		contains(t, "gateway", cli.OK(t, "exec", a, "ping", "-c", "1", "-W", "2", d.Gateway.String()), "1 packets received")
		contains(t, "hosts", cli.OK(t, "exec", a, "cat", "/etc/hosts"), ip+"\t"+a[:12])
		contains(t, "network inspect", cli.OK(t, "network", "inspect", "bridge"), a)
		if cli.Try(t, "run", "--rm", image, "nslookup", a[:12]).Code == 0 {
			t.Error("the default bridge resolves names of containers")
		}
	})
}

func TestUserNetworkNames(t *testing.T) {
	t.Parallel()
	d := shared(t)
	image := d.Image(t, "busybox")
	d.Both(t, func(t *testing.T, cli testenv.CLI) {
		net, other := network(t, cli), network(t, cli)
		server := name(t)
		id := detached(t, cli, "--name", server, "--network", net, "--network-alias", "db", image, "sleep", "1000")
		inNet := func(args ...string) testenv.Result {
			return cli.Try(t, append([]string{"run", "--rm", "--network", net, image}, args...)...)
		}
		ip := cli.OK(t, "inspect", "-f", fmt.Sprintf("{{(index .NetworkSettings.Networks %q).IPAddress}}", net), server)
		for _, n := range []string{server, "db", id[:12]} {
			contains(t, "lookup of "+n, inNet("nslookup", n).All(), ip)
			contains(t, "ping "+n, inNet("ping", "-c", "1", "-W", "2", n).All(), "1 packets received")
		}
		contains(t, "resolver", inNet("cat", "/etc/resolv.conf").Stdout, "nameserver 127.0.0.11")
		contains(t, "reverse lookup", inNet("nslookup", ip).All(), server+"."+net)
		if inNet("nslookup", "nosuchname").Code == 0 {
			t.Error("a name that does not exist was found")
		}
		// Networks do not see each other, until a container joins both.
		if cli.Try(t, "run", "--rm", "--network", other, image, "ping", "-c", "1", "-W", "1", ip).Code == 0 {
			t.Error("two networks reach each other")
		}
		cli.OK(t, "network", "connect", "--alias", "second", other, server)
		contains(t, "joined", cli.OK(t, "run", "--rm", "--network", other, image, "ping", "-c", "1", "-W", "2", "second"), "1 packets received")
		contains(t, "two interfaces", cli.OK(t, "exec", server, "ls", "/sys/class/net"), "eth1")
		cli.OK(t, "network", "disconnect", other, server)
		if strings.Contains(cli.OK(t, "exec", server, "ls", "/sys/class/net"), "eth1") {
			t.Error("the interface of the network that was left is still there")
		}
		cli.Fails(t, 1, "active endpoints", "network", "rm", net)
		renamed := name(t)
		cli.OK(t, "rename", server, renamed)
		contains(t, "the new name", inNet("nslookup", renamed).All(), ip)
	})
}

func TestNetworkSettings(t *testing.T) {
	t.Parallel()
	d := shared(t)
	image := d.Image(t, "busybox")
	cli := d.Docker(t)
	net := network(t, cli, "--subnet", "10.127.77.0/24", "--gateway", "10.127.77.9", "--ip-range", "10.127.77.128/25", "--label", "kind=test")
	out := cli.OK(t, "run", "--rm", "--network", net, "--ip", "10.127.77.200", image, "sh", "-c", "hostname -i; ip route")
	contains(t, "fixed address", out, "10.127.77.200")
	contains(t, "gateway", out, "default via 10.127.77.9")
	contains(t, "range", cli.OK(t, "run", "--rm", "--network", net, image, "hostname", "-i"), "10.127.77.1")
	equal(t, "filter", cli.OK(t, "network", "ls", "--filter", "label=kind=test", "--format", "{{.Name}} {{.Driver}} {{.Scope}}"), net+" bridge local")
	cli.Fails(t, 1, "overlap", "network", "create", "--subnet", "10.127.77.0/25", name(t))
	cli.Fails(t, 1, "already exists", "network", "create", net)
	cli.Fails(t, 1, "", "network", "rm", "bridge")
	cli.Fails(t, 125, "not found", "run", "--rm", "--network", "nosuch", image, "true")
	cli.Fails(t, 1, "", "network", "create", "--subnet", "not-a-subnet", name(t))

	internal := network(t, cli, "--internal")
	if strings.Contains(cli.OK(t, "run", "--rm", "--network", internal, image, "ip", "route"), "default") {
		t.Error("an internal network has a default route")
	}
}

func TestHostNetwork(t *testing.T) {
	t.Parallel()
	d := shared(t)
	image := d.Image(t, "busybox")
	d.Both(t, func(t *testing.T, cli testenv.CLI) {
		// Not ls: links of others that go away meanwhile make it fail.
		contains(t, "links of the host", cli.OK(t, "run", "--rm", "--network", "host", image, "cat", "/proc/net/dev"), d.Bridge)
		equal(t, "host name", cli.OK(t, "run", "--rm", "--network", "host", image, "hostname"), hostname())
	})
}

func TestIPv6Network(t *testing.T) {
	t.Parallel()
	d := shared(t)
	image := d.Image(t, "busybox")
	cli := d.Wherry(t)
	net := network(t, cli, "--ipv6", "--subnet", "fd00:77:1::/64")
	server := name(t)
	detached(t, cli, "--name", server, "--network", net, image, "sleep", "1000")
	six := cli.OK(t, "inspect", "-f", fmt.Sprintf("{{(index .NetworkSettings.Networks %q).GlobalIPv6Address}}", net), server)
	contains(t, "address", six, "fd00:77:1::")
	contains(t, "ping", cli.OK(t, "run", "--rm", "--network", net, image, "ping", "-6", "-c", "1", "-W", "2", server), "1 packets received")
}
