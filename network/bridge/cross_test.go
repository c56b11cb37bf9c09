package bridge

import (
	"context"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/google/nftables"
	apinetwork "github.com/moby/moby/api/types/network"

	"github.com/wherry-engine/wherry/network"
	"github.com/wherry-engine/wherry/network/netns"
	"github.com/wherry-engine/wherry/network/rtnl"
)

// reach is one attempt to connect.
type reach struct {
	name string
	from *os.File
	addr string
	ok   bool
}

func (h *host) reaches(list []reach) {
	h.t.Helper()
	for _, r := range list {
		_, err := dial(r.from, r.addr)
		for try := 0; try < 3 && r.ok && os.IsTimeout(err); try++ {
			_, err = dial(r.from, r.addr) // the first packet to a new neighbour may be lost
		}
		if (err == nil) != r.ok {
			h.t.Errorf("%s (%s): %v, want possible: %v", r.name, r.addr, err, r.ok)
		}
	}
}

// neighbourRoute gives the neighbour a route to our containers, as on a shared LAN.
func (h *host) neighbourRoute(p netip.Prefix) {
	h.t.Helper()
	link, err := netns.Dial(h.next)
	check(h.t, err)
	defer link.Close()
	up, err := link.LinkByName("up0")
	check(h.t, err)
	var b rtnl.Batch
	via := netip.MustParseAddr(hostAddr)
	if p.Addr().Is6() {
		via = netip.MustParseAddr(hostAddr6)
	}
	b.AddRoute(rtnl.Route{Dst: p, Via: via, Link: up.Index})
	check(h.t, link.Do(&b))
}

func TestIsolation(t *testing.T) {
	h := newHost(t, nil)
	h.network("front", nil)
	h.network("closed", func(r *apinetwork.CreateRequest) { r.Options = map[string]string{optICC: "false"} })
	h.network("inner", func(r *apinetwork.CreateRequest) { r.Internal = true })
	a := h.open(network.SandboxRequest{Endpoints: on("bridge"), Ports: publishPorts("", "8080", "80/tcp", "127.0.0.1", "8081", "80/tcp")})
	b := h.open(network.SandboxRequest{Endpoints: on("front"), Ports: publishPorts("", "8090", "80/tcp")})
	c1 := h.open(network.SandboxRequest{Endpoints: on("closed"), Ports: publishPorts("", "8091", "80/tcp")})
	c2 := h.open(network.SandboxRequest{Endpoints: on("closed")})
	i1 := h.open(network.SandboxRequest{Endpoints: on("inner"), Ports: publishPorts("", "8092", "80/tcp")})
	i2 := h.open(network.SandboxRequest{Endpoints: on("inner")})
	for _, x := range []box{a, b, c1, i1} {
		serve(t, x.ns, "0.0.0.0:80")
	}
	serve(t, h.next, nextAddr+":9000")
	serve(t, hostNS(t), "127.0.0.1:7000")
	for _, x := range []box{a, b, c1} {
		h.neighbourRoute(netip.PrefixFrom(x.ip(), 16).Masked())
	}
	at := func(x box, port string) string { return x.ip().String() + ":" + port }
	h.reaches([]reach{
		{"other network", b.ns, at(a, "80"), false},
		{"other network through its published port", b.ns, hostAddr + ":8080", true},
		{"other network through our own gateway", b.ns, b.Endpoints[0].Settings.Gateway.String() + ":8080", true},
		{"neighbour who knows the address", h.next, at(a, "80"), false},
		{"neighbour through the published port", h.next, hostAddr + ":8080", true},
		{"neighbour through a port of loopback", h.next, hostAddr + ":8081", false},
		{"host through a port of loopback", nil, "127.0.0.1:8081", true},
		{"host through another address than loopback", nil, hostAddr + ":8081", false},
		{"the host's loopback from a container", a.ns, "127.0.0.1:7000", false},
		{"closed network", c2.ns, at(c1, "80"), false},
		{"closed network through the published port", c2.ns, hostAddr + ":8091", true},
		{"closed network to the world", c2.ns, nextAddr + ":9000", true},
		{"inside an internal network", i2.ns, at(i1, "80"), true},
		{"internal network to the world", i2.ns, nextAddr + ":9000", false},
		{"internal network to another's published port", i2.ns, hostAddr + ":8080", false},
		{"internal networks publish nothing", nil, "127.0.0.1:8092", false},
		{"host to container", nil, at(b, "80"), true},
	})
	if len(i1.Ports) != 0 || i1.Endpoints[0].Settings.Gateway.IsValid() {
		t.Errorf("internal sandbox: ports %v, gateway %v", i1.Ports, i1.Endpoints[0].Settings.Gateway)
	}
}

func TestIPv6(t *testing.T) {
	h := newHost(t, func(o *Options) { o.IPv6, o.BridgeIP6 = true, netip.MustParsePrefix("fd42:1::1/64") })
	h.network("six", func(r *apinetwork.CreateRequest) {
		r.EnableIPv6 = yes()
		r.IPAM = &apinetwork.IPAM{Config: []apinetwork.IPAMConfig{{Subnet: netip.MustParsePrefix("fd42:2::/64")}}}
	})
	h.network("only6", func(r *apinetwork.CreateRequest) {
		no := false
		r.EnableIPv4, r.EnableIPv6 = &no, yes()
	})
	h.network("four", nil)
	a := h.open(network.SandboxRequest{Endpoints: on("bridge"), Ports: publishPorts("", "8080", "80/tcp", "", "8053", "53/udp")})
	b := h.open(network.SandboxRequest{Endpoints: on("six")})
	o := h.open(network.SandboxRequest{Endpoints: on("only6"), Ports: publishPorts("", "8070", "80/tcp")})
	f := h.open(network.SandboxRequest{Endpoints: on("four"), Ports: publishPorts("", "8060", "80/tcp", "", "8063", "53/udp")})
	for _, x := range []box{a, b, o} {
		serve(t, x.ns, "[::]:80")
	}
	serveUDP(t, a.ns, "[::]:53")
	serve(t, f.ns, "0.0.0.0:80")
	serveUDP(t, f.ns, "0.0.0.0:53")
	serve(t, h.next, "["+nextAddr6+"]:9000")
	h.neighbourRoute(netip.MustParsePrefix("fd42:1::/64"))
	at := func(a netip.Addr, port string) string { return "[" + a.String() + "]:" + port }
	h.reaches([]reach{
		{"host to container", nil, at(a.ip6(), "80"), true},
		{"::1", nil, "[::1]:8080", true},
		{"host's address", nil, "[" + hostAddr6 + "]:8080", true},
		{"neighbour", h.next, "[" + hostAddr6 + "]:8080", true},
		{"neighbour who knows the address", h.next, at(a.ip6(), "80"), false},
		{"other network", b.ns, at(a.ip6(), "80"), false},
		{"other network, published", b.ns, "[" + hostAddr6 + "]:8080", true},
		{"itself, published", a.ns, "[" + hostAddr6 + "]:8080", true},
		{"world", b.ns, "[" + nextAddr6 + "]:9000", true},
		{"v4 loopback", nil, "127.0.0.1:8080", true},
		{"IPv6 only", nil, "[::1]:8070", true},
		{"IPv6 only, from the neighbour", h.next, "[" + hostAddr6 + "]:8070", true},
		{"IPv6 only, v4 loopback", nil, "127.0.0.1:8070", true},
		{"IPv4 only container through ::1", nil, "[::1]:8060", true},
		{"IPv4 only container through the host's v6 address", h.next, "[" + hostAddr6 + "]:8060", true},
	})
	if from, err := dial(h.next, "["+hostAddr6+"]:8080"); err != nil || from != nextAddr6 {
		t.Errorf("neighbour is seen as %q, %v", from, err)
	}
	for _, addr := range []string{"[::1]:8053", "[" + hostAddr6 + "]:8053", "127.0.0.1:8053", "[::1]:8063", "[" + hostAddr6 + "]:8063"} {
		if err := pingUDP(nil, addr); err != nil {
			t.Errorf("UDP to %s: %v", addr, err)
		}
	}
	if err := pingUDP(h.next, "["+hostAddr6+"]:8063"); err != nil {
		t.Errorf("UDP from the neighbour: %v", err)
	}
	if s := o.Endpoints[0].Settings; s.IPAddress.IsValid() || !s.GlobalIPv6Address.IsValid() || s.GlobalIPv6Address.As16()[0] != 0xfd {
		t.Errorf("IPv6 only endpoint: %+v", s)
	}
}

// TestProxyAlone publishes without any firewall rules.
func TestProxyAlone(t *testing.T) {
	h := newHost(t, func(o *Options) { o.NoRules4, o.NoRules6 = true, true })
	a := h.open(network.SandboxRequest{Endpoints: on("bridge"), Ports: publishPorts("", "8080", "80/tcp", "", "8053", "53/udp")})
	serve(t, a.ns, "0.0.0.0:80")
	serveUDP(t, a.ns, "0.0.0.0:53")
	h.reaches([]reach{
		{"loopback", nil, "127.0.0.1:8080", true},
		{"neighbour", h.next, hostAddr + ":8080", true},
		{"itself", a.ns, hostAddr + ":8080", true},
	})
	if v, err := netns.ReadSysctl("net/ipv4/conf/wt0/route_localnet"); err != nil || v != "0" {
		t.Errorf("route_localnet is %s, %v: containers can reach the host's loopback", v, err)
	}
	if err := pingUDP(h.next, hostAddr+":8053"); err != nil {
		t.Errorf("UDP: %v", err)
	}
	c, err := nftables.New()
	check(t, err)
	tables, err := c.ListTables()
	check(t, err)
	if len(tables) != 0 {
		t.Errorf("%d tables were made", len(tables))
	}
}

func TestPorts(t *testing.T) {
	h := newHost(t, nil)
	serve(t, hostNS(t), "0.0.0.0:7777")
	exposed := apinetwork.PortSet{apinetwork.MustParsePort("81/tcp"): {}, apinetwork.MustParsePort("82/udp"): {}}
	a := h.open(network.SandboxRequest{
		Endpoints: on("bridge"), Exposed: exposed, PublishAll: true,
		Ports: publishPorts("", "8080", "80/tcp", "", "9100-9110", "90/tcp", "", "", "91/tcp", "127.0.0.1", "9200", "92/tcp"),
	})
	want := map[string]int{"80/tcp": 2, "90/tcp": 2, "91/tcp": 2, "92/tcp": 1, "81/tcp": 2, "82/udp": 2}
	for p, n := range want {
		got := a.Ports[apinetwork.MustParsePort(p)]
		if len(got) != n || n == 2 && got[0].HostPort != got[1].HostPort {
			t.Errorf("%s: %v", p, got)
		}
	}
	only4 := h.open(network.SandboxRequest{Endpoints: on("bridge"), Ports: publishPorts("0.0.0.0", "9300", "80/tcp")})
	if got := only4.Ports[apinetwork.MustParsePort("80/tcp")]; len(got) != 1 {
		t.Errorf("on 0.0.0.0: %v", got)
	}
	if p := a.Ports[apinetwork.MustParsePort("90/tcp")][0].HostPort; p != "9100" {
		t.Errorf("first of the range: %s", p)
	}
	tests := []struct {
		name  string
		ports apinetwork.PortMap
		class func(error) bool
		text  string
	}{
		{"taken by us", publishPorts("", "8080", "80/tcp"), errdefs.IsFailedPrecondition, "Bind for 0.0.0.0:8080 failed: port is already allocated"},
		{"taken by us on all", publishPorts("127.0.0.1", "8080", "80/tcp"), errdefs.IsFailedPrecondition, "Bind for 127.0.0.1:8080 failed: port is already allocated"},
		{"taken by us on one", publishPorts("0.0.0.0", "9200", "80/tcp"), errdefs.IsFailedPrecondition, "Bind for 0.0.0.0:9200 failed: port is already allocated"},
		{"taken by another", publishPorts("", "7777", "80/tcp"), errdefs.IsFailedPrecondition, "address already in use"},
		{"range is full", publishPorts("", "8080-8080", "80/tcp"), errdefs.IsFailedPrecondition, "port is already allocated"},
		{"not our address", publishPorts("198.51.100.1", "1234", "80/tcp"), func(error) bool { return true }, "cannot assign requested address"},
		{"no number", publishPorts("", "http", "80/tcp"), errdefs.IsInvalidArgument, "invalid port specification"},
		{"sctp", publishPorts("", "1234", "80/sctp"), errdefs.IsNotImplemented, "sctp"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b, err := h.tryOpen(network.SandboxRequest{Endpoints: on("bridge"), Ports: tt.ports})
			if err == nil {
				t.Fatalf("it works: %v", b.Ports)
			}
			if !tt.class(err) || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("error: %v", err)
			}
		})
	}
	// A port is free as soon as its sandbox is closed, for us and for others.
	id := string(a.ID)
	check(t, h.sb.Close(context.Background(), a.ID))
	again := h.open(network.SandboxRequest{Endpoints: on("bridge"), Ports: publishPorts("", "8080", "80/tcp", "", "8053", "53/udp")})
	if id == string(again.ID) {
		t.Error("same sandbox")
	}
	check(t, h.sb.Close(context.Background(), again.ID))
	serve(t, hostNS(t), "0.0.0.0:8080")
	serveUDP(t, hostNS(t), "0.0.0.0:8053")
}

func TestManyPorts(t *testing.T) {
	h := newHost(t, nil)
	var list []string
	for port := 20000; port < 20600; port++ {
		list = append(list, "", strconv.Itoa(port), strconv.Itoa(port)+"/tcp")
	}
	a := h.open(network.SandboxRequest{Endpoints: on("bridge"), Ports: publishPorts(list...)})
	serve(t, a.ns, "0.0.0.0:20599")
	h.reaches([]reach{{"last", nil, "127.0.0.1:20599", true}, {"last over v6", nil, "[::1]:20599", true}})
}
