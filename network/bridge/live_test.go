package bridge

import (
	"context"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/google/nftables"
	apinetwork "github.com/moby/moby/api/types/network"
	"golang.org/x/net/dns/dnsmessage"

	"github.com/wherry-engine/wherry/network"
	"github.com/wherry-engine/wherry/network/netns"
)

func TestConnectDisconnect(t *testing.T) {
	h := newHost(t, nil)
	h.network("alpha", nil)
	h.network("beta", nil)
	ctx := context.Background()
	serve(t, h.next, nextAddr+":9000")
	a := h.open(network.SandboxRequest{ContainerName: "a", Endpoints: on("alpha"), Ports: publishPorts("", "8080", "80/tcp")})
	b := h.open(network.SandboxRequest{ContainerName: "b", Endpoints: on("beta")})
	serve(t, a.ns, "0.0.0.0:80")
	ep, err := h.sb.Connect(ctx, a.ID, a.ns, network.EndpointRequest{Network: "beta", Settings: &apinetwork.EndpointSettings{Aliases: []string{"aa"}, GwPriority: 5}})
	check(t, err)
	addr := ep.Settings.IPAddress.String()
	h.reaches([]reach{
		{"over the new network", b.ns, addr + ":80", true},
		{"published", nil, "127.0.0.1:8080", true},
		{"world", a.ns, nextAddr + ":9000", true},
	})
	for _, name := range []string{"a", "aa", "a.beta"} {
		if got, err := ask(b.ns, "udp", name, dnsmessage.TypeA); err != nil || len(got) != 1 || got[0] != addr {
			t.Errorf("%s is %v, %v; want %s", name, got, err, addr)
		}
	}
	if _, err := h.sb.Connect(ctx, a.ID, a.ns, network.EndpointRequest{Network: "beta"}); !errdefs.IsAlreadyExists(err) {
		t.Errorf("second connect: %v", err)
	}
	if err := h.m.Delete(ctx, "beta"); !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "has active endpoints") {
		t.Errorf("delete of a network in use: %v", err)
	}
	if err := h.m.Delete(ctx, "bridge"); !errdefs.IsPermissionDenied(err) {
		t.Errorf("delete of the default bridge: %v", err)
	}
	check(t, h.sb.Disconnect(ctx, a.ID, a.ns, "alpha", false))
	h.reaches([]reach{
		{"published, through the other network", nil, "127.0.0.1:8080", true},
		{"world", a.ns, nextAddr + ":9000", true},
	})
	check(t, h.sb.Disconnect(ctx, a.ID, a.ns, "beta", false))
	h.reaches([]reach{
		{"gone from the network", b.ns, addr + ":80", false},
		{"not published", nil, "127.0.0.1:8080", false},
		{"no way out", a.ns, nextAddr + ":9000", false},
	})
	if got, err := ask(b.ns, "udp", "a.beta", dnsmessage.TypeA); err == nil && len(got) == 1 && got[0] == addr {
		t.Error("the name is still known")
	}
	_, err = h.sb.Connect(ctx, a.ID, a.ns, network.EndpointRequest{Network: "alpha"})
	check(t, err)
	h.reaches([]reach{{"published again", nil, "127.0.0.1:8080", true}})
	if err := h.sb.Disconnect(ctx, a.ID, a.ns, "beta", false); !errdefs.IsNotFound(err) {
		t.Errorf("disconnect from a network it is not in: %v", err)
	}
	// A sandbox without networks gets its first one.
	n := h.open(network.SandboxRequest{ContainerName: "n"})
	_, err = h.sb.Connect(ctx, n.ID, n.ns, network.EndpointRequest{Network: "beta"})
	check(t, err)
	if got, err := ask(n.ns, "udp", "b", dnsmessage.TypeA); err != nil || len(got) != 1 {
		t.Errorf("name service after a first connect: %v, %v", got, err)
	}
}

func TestAddresses(t *testing.T) {
	h := newHost(t, nil)
	h.network("fixed", func(r *apinetwork.CreateRequest) {
		r.IPAM = &apinetwork.IPAM{Config: []apinetwork.IPAMConfig{{
			Subnet: netip.MustParsePrefix("10.77.0.0/24"), IPRange: netip.MustParsePrefix("10.77.0.128/30"), Gateway: netip.MustParseAddr("10.77.0.254"),
			AuxAddress: map[string]netip.Addr{"router": netip.MustParseAddr("10.77.0.129")},
		}}}
		r.Options = map[string]string{optMTU: "1400", optName: "wtfix"}
	})
	at := func(a string) []network.EndpointRequest {
		return []network.EndpointRequest{{Network: "fixed", Settings: &apinetwork.EndpointSettings{
			IPAMConfig: &apinetwork.EndpointIPAMConfig{IPv4Address: netip.MustParseAddr(a)},
			MacAddress: apinetwork.HardwareAddr{2, 0, 0, 1, 2, 3}, DriverOpts: map[string]string{optIfname: "net7"},
		}}}
	}
	a := h.open(network.SandboxRequest{Endpoints: at("10.77.0.9"), Sysctls: map[string]string{"net.ipv4.ip_default_ttl": "33"}})
	check(t, netns.Do(a.ns, func() error {
		l, err := net.InterfaceByName("net7")
		if err != nil {
			return err
		}
		if l.MTU != 1400 || l.HardwareAddr.String() != "02:00:00:01:02:03" {
			t.Errorf("mtu %d, mac %s", l.MTU, l.HardwareAddr)
		}
		if v, _ := netns.ReadSysctl("net.ipv4.ip_default_ttl"); v != "33" {
			t.Errorf("ttl %s", v)
		}
		return nil
	}))
	if g := a.Endpoints[0].Settings.Gateway.String(); g != "10.77.0.254" {
		t.Errorf("gateway %s", g)
	}
	var got []string
	for range 3 {
		b, err := h.tryOpen(network.SandboxRequest{Endpoints: on("fixed")})
		check(t, err)
		got = append(got, b.ip().String())
	}
	if s := strings.Join(got, " "); s != "10.77.0.128 10.77.0.130 10.77.0.131" {
		t.Errorf("from the range: %s", s)
	}
	for _, tt := range []struct {
		req   []network.EndpointRequest
		class func(error) bool
		text  string
	}{
		{on("fixed"), errdefs.IsFailedPrecondition, "no available IPv4 addresses"},
		{at("10.77.0.9"), errdefs.IsFailedPrecondition, "Address already in use"},
		{at("10.78.0.9"), errdefs.IsInvalidArgument, "no configured subnet contains IP address 10.78.0.9"},
		{on("nowhere"), errdefs.IsNotFound, "network nowhere not found"},
	} {
		if _, err := h.tryOpen(network.SandboxRequest{Endpoints: tt.req}); err == nil || !tt.class(err) || !strings.Contains(err.Error(), tt.text) {
			t.Errorf("error %v, want %s", err, tt.text)
		}
	}
	if _, err := h.tryOpen(network.SandboxRequest{Endpoints: on("bridge"), Sysctls: map[string]string{"net.nonsense": "1"}}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("unknown sysctl: %v", err)
	}
}

func TestCreateRefusals(t *testing.T) {
	h := newHost(t, nil)
	h.network("have", func(r *apinetwork.CreateRequest) {
		r.IPAM = &apinetwork.IPAM{Config: []apinetwork.IPAMConfig{{Subnet: netip.MustParsePrefix("10.50.0.0/16")}}}
	})
	subnet := func(s, gw string) *apinetwork.IPAM {
		c := apinetwork.IPAMConfig{Subnet: netip.MustParsePrefix(s)}
		if gw != "" {
			c.Gateway = netip.MustParseAddr(gw)
		}
		return &apinetwork.IPAM{Config: []apinetwork.IPAMConfig{c}}
	}
	opt := func(k, v string) map[string]string { return map[string]string{k: v} }
	tests := []struct {
		name  string
		req   apinetwork.CreateRequest
		class func(error) bool
	}{
		{"name taken", apinetwork.CreateRequest{Name: "have"}, errdefs.IsAlreadyExists},
		{"predefined", apinetwork.CreateRequest{Name: "host"}, errdefs.IsPermissionDenied},
		{"no name", apinetwork.CreateRequest{}, errdefs.IsInvalidArgument},
		{"odd name", apinetwork.CreateRequest{Name: "a/b"}, errdefs.IsInvalidArgument},
		{"overlap", apinetwork.CreateRequest{Name: "x", IPAM: subnet("10.50.3.0/24", "")}, errdefs.IsFailedPrecondition},
		{"overlap with the default bridge", apinetwork.CreateRequest{Name: "x", IPAM: subnet("10.0.0.0/8", "")}, errdefs.IsFailedPrecondition},
		{"host bits", apinetwork.CreateRequest{Name: "x", IPAM: subnet("10.60.0.1/16", "")}, errdefs.IsInvalidArgument},
		{"gateway outside", apinetwork.CreateRequest{Name: "x", IPAM: subnet("10.60.0.0/16", "10.61.0.1")}, errdefs.IsInvalidArgument},
		{"overlay", apinetwork.CreateRequest{Name: "x", Driver: "overlay"}, errdefs.IsNotImplemented},
		{"macvlan", apinetwork.CreateRequest{Name: "x", Driver: "macvlan"}, errdefs.IsNotImplemented},
		{"unknown driver", apinetwork.CreateRequest{Name: "x", Driver: "weave"}, errdefs.IsNotFound},
		{"host driver", apinetwork.CreateRequest{Name: "x", Driver: "host"}, errdefs.IsPermissionDenied},
		{"swarm scope", apinetwork.CreateRequest{Name: "x", Scope: "swarm"}, errdefs.IsNotImplemented},
		{"config only", apinetwork.CreateRequest{Name: "x", ConfigOnly: true}, errdefs.IsNotImplemented},
		{"mode", apinetwork.CreateRequest{Name: "x", Options: opt(optMode4, "routed")}, errdefs.IsNotImplemented},
		{"unknown driver option", apinetwork.CreateRequest{Name: "x", Options: opt(optPrefix+"bridge.inhibit_ipv4", "true")}, errdefs.IsNotImplemented},
		{"bad boolean", apinetwork.CreateRequest{Name: "x", Options: opt(optICC, "maybe")}, errdefs.IsInvalidArgument},
		{"bad mtu", apinetwork.CreateRequest{Name: "x", Options: opt(optMTU, "9")}, errdefs.IsInvalidArgument},
		{"bad device", apinetwork.CreateRequest{Name: "x", Options: opt(optName, "a/b")}, errdefs.IsInvalidArgument},
		{"device in use", apinetwork.CreateRequest{Name: "x", Options: opt(optName, "wt0")}, errdefs.IsFailedPrecondition},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := h.m.Create(context.Background(), tt.req); err == nil || !tt.class(err) {
				t.Errorf("Create = %v", err)
			}
		})
	}
	list, err := h.m.List(context.Background())
	check(t, err)
	if len(list) != 4 {
		t.Errorf("%d networks are left, want 4", len(list))
	}
	n, err := h.m.Get(context.Background(), list[3].ID[:8])
	if err != nil || n.Name != "have" || n.IPAM.Config[0].Gateway.String() != "10.50.0.1" {
		t.Errorf("Get = %+v, %v", n, err)
	}
}

// TestRestart: a killed daemon leaves everything working, and its successor
// removes what ended meanwhile.
func TestRestart(t *testing.T) {
	h := newHost(t, nil)
	h.network("kept", nil)
	a := h.open(network.SandboxRequest{Endpoints: on("bridge"), Ports: publishPorts("", "8080", "80/tcp")})
	b := h.open(network.SandboxRequest{Endpoints: on("bridge", "kept"), Ports: publishPorts("", "8081", "80/tcp", "", "8053", "53/udp")})
	serve(t, a.ns, "0.0.0.0:80")
	serve(t, b.ns, "0.0.0.0:80")
	before, err := h.m.Get(context.Background(), "bridge")
	check(t, err)
	check(t, h.m.release()) // dead from here on
	h.reaches([]reach{{"while it is dead", nil, "127.0.0.1:8080", true}, {"over v6", nil, "[::1]:8080", true}})
	h.m.watch.Close(false)
	h.start()
	h.reaches([]reach{{"before restore", nil, "127.0.0.1:8080", true}})
	check(t, h.sb.Restore(context.Background(), map[network.SandboxID]*os.File{a.ID: a.ns}))
	h.reaches([]reach{
		{"the live one", nil, "127.0.0.1:8080", true},
		{"the live one over v6", nil, "[::1]:8080", true},
		{"the dead one", nil, "127.0.0.1:8081", false},
	})
	after, err := h.m.Get(context.Background(), "bridge")
	check(t, err)
	if before.ID != after.ID || len(after.Containers) != 1 {
		t.Errorf("network %s has %d containers, was %s", after.ID, len(after.Containers), before.ID)
	}
	if sb, err := h.sb.Get(context.Background(), a.ID); err != nil || sb.Endpoints[0].Settings.IPAddress != a.ip() || len(sb.Ports) != 1 {
		t.Errorf("Get = %+v, %v", sb, err)
	}
	if _, err := h.sb.Get(context.Background(), b.ID); !errdefs.IsNotFound(err) {
		t.Errorf("Get of the dead one: %v", err)
	}
	// The address of the live one is not given out again.
	if _, err := h.tryOpen(network.SandboxRequest{Endpoints: on("bridge"), Ports: publishPorts("", "8080", "80/tcp")}); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("its port: %v", err)
	}
	c := h.open(network.SandboxRequest{Endpoints: on("bridge"), Ports: publishPorts("", "8081", "80/tcp", "", "8053", "53/udp")})
	if c.ip() == a.ip() {
		t.Error("the address was given out twice")
	}
}

// TestUDPFlows: a peer that never stops sending reaches the new container on
// the port of the old one.
func TestUDPFlows(t *testing.T) {
	h := newHost(t, nil)
	var c net.Conn
	check(t, netns.Do(h.next, func() (err error) {
		c, err = net.Dial("udp", hostAddr+":8053")
		return err
	}))
	defer c.Close()
	answered := func() bool {
		_ = c.SetDeadline(time.Now().Add(100 * time.Millisecond))
		_, _ = c.Write([]byte("ping"))
		n, err := c.Read(make([]byte, 16))
		return err == nil && n == 4
	}
	if answered() { // before there is anything: a flow without translation
		t.Fatal("who answers?")
	}
	for range 3 {
		a := h.open(network.SandboxRequest{Endpoints: on("bridge"), Ports: publishPorts("", "8053", "53/udp")})
		serveUDP(t, a.ns, "0.0.0.0:53")
		waitFor(t, answered)
		check(t, h.sb.Close(context.Background(), a.ID))
		_ = answered()
	}
}

// TestFlushed: somebody flushes the ruleset.
func TestFlushed(t *testing.T) {
	h := newHost(t, nil)
	a := h.open(network.SandboxRequest{Endpoints: on("bridge"), Ports: publishPorts("", "8080", "80/tcp")})
	serve(t, a.ns, "0.0.0.0:80")
	serve(t, h.next, nextAddr+":9000")
	c, err := nftables.New()
	check(t, err)
	c.FlushRuleset()
	check(t, c.Flush())
	waitFor(t, func() bool { missing, err := h.m.table.Missing(); return err == nil && !missing })
	h.reaches([]reach{
		{"published", h.next, hostAddr + ":8080", true},
		{"world", a.ns, nextAddr + ":9000", true},
	})
}

// TestForeignFirewall: another firewall's FORWARD chain drops.
func TestForeignFirewall(t *testing.T) {
	for _, leave := range []bool{false, true} {
		testForeign(t, leave)
	}
}

func testForeign(t *testing.T, leave bool) {
	t.Run(strconv.FormatBool(leave), func(t *testing.T) {
		h := newHost(t, func(o *Options) { o.LeaveForeign = leave })
		a := h.open(network.SandboxRequest{Endpoints: on("bridge"), Ports: publishPorts("", "8080", "80/tcp")})
		serve(t, a.ns, "0.0.0.0:80")
		serve(t, h.next, nextAddr+":9000")
		c, err := nftables.New()
		check(t, err)
		drop := nftables.ChainPolicyDrop
		table := c.AddTable(&nftables.Table{Name: "filter", Family: nftables.TableFamilyIPv4})
		chain := c.AddChain(&nftables.Chain{
			Name: "FORWARD", Table: table, Type: nftables.ChainTypeFilter,
			Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter, Policy: &drop,
		})
		check(t, c.Flush())
		rules := func() int {
			list, err := c.GetRules(table, chain)
			check(t, err)
			return len(list)
		}
		if leave {
			check(t, h.m.watch.Check())
			if rules() != 0 {
				t.Error("rules were put into a chain that is to be left alone")
			}
		} else {
			waitFor(t, func() bool { return rules() == 2 })
			h.network("more", nil)
			if rules() != 4 {
				t.Errorf("%d rules for two networks", rules())
			}
			out, err := exec.Command("iptables-nft", "-S", "FORWARD").CombinedOutput()
			if err == nil && !strings.Contains(string(out), "-A FORWARD -i wt0 -m comment") {
				t.Errorf("iptables shows:\n%s", out)
			}
		}
		h.reaches([]reach{
			{"published", h.next, hostAddr + ":8080", !leave},
			{"world", a.ns, nextAddr + ":9000", !leave},
		})
		check(t, h.m.watch.Close(true))
		if rules() != 0 {
			t.Errorf("%d rules are left", rules())
		}
		c.DelTable(table)
		check(t, c.Flush())
	})
}

func waitFor(t *testing.T, cond func() bool) {
	t.Helper()
	deadline := time.After(time.Minute)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("it does not come about")
		}
	}
}
