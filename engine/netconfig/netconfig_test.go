package netconfig

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	apicontainer "github.com/moby/moby/api/types/container"
	apinetwork "github.com/moby/moby/api/types/network"

	"github.com/wherry-engine/wherry/container"
	"github.com/wherry-engine/wherry/engine/defaults"
	"github.com/wherry-engine/wherry/network"
)

func linked() []Link {
	db := &container.Spec{ID: "0123456789abcdef", Name: "db", Config: &apicontainer.Config{
		Env: []string{"PATH=/bin", "MODE=fast"},
		ExposedPorts: apinetwork.PortSet{
			apinetwork.MustParsePort("9000/tcp"): {}, apinetwork.MustParsePort("80/udp"): {}, apinetwork.MustParsePort("80/tcp"): {},
		},
	}}
	return []Link{{Alias: "my-db", To: db, IP: netip.MustParseAddr("10.0.0.3")}}
}

func TestLinkEnv(t *testing.T) {
	want := []string{
		"MY_DB_NAME=/web/my-db",
		"MY_DB_PORT=tcp://10.0.0.3:80",
		"MY_DB_PORT_80_TCP=tcp://10.0.0.3:80", "MY_DB_PORT_80_TCP_ADDR=10.0.0.3", "MY_DB_PORT_80_TCP_PORT=80", "MY_DB_PORT_80_TCP_PROTO=tcp",
		"MY_DB_PORT_80_UDP=udp://10.0.0.3:80", "MY_DB_PORT_80_UDP_ADDR=10.0.0.3", "MY_DB_PORT_80_UDP_PORT=80", "MY_DB_PORT_80_UDP_PROTO=udp",
		"MY_DB_PORT_9000_TCP=tcp://10.0.0.3:9000", "MY_DB_PORT_9000_TCP_ADDR=10.0.0.3", "MY_DB_PORT_9000_TCP_PORT=9000", "MY_DB_PORT_9000_TCP_PROTO=tcp",
		"MY_DB_ENV_MODE=fast",
	}
	for range 20 { // a map's order must not show
		if diff := cmp.Diff(want, LinkEnv(&container.Spec{Name: "web"}, linked())); diff != "" {
			t.Fatalf("(-want +got):\n%s", diff)
		}
	}
}

func TestFiles(t *testing.T) {
	spec := func(mode apicontainer.NetworkMode, extra ...string) *container.Spec {
		return &container.Spec{
			Name: "web", Config: &apicontainer.Config{Hostname: "web"},
			HostConfig: &apicontainer.HostConfig{NetworkMode: mode, ExtraHosts: extra},
		}
	}
	dir := t.TempDir()
	f := Files{
		Container: spec("bridge", "one:10.9.9.9", "two=host-gateway"),
		Sandbox: network.Sandbox{
			Hosts: []string{"10.0.0.2\tweb\n"}, ResolvConf: []byte("nameserver 127.0.0.11\n"),
			HostGateway: []netip.Addr{netip.MustParseAddr("10.0.0.1")},
		},
		Links: linked(),
	}
	if err := f.Write(dir); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"hosts": loopbackHosts + "10.9.9.9\tone\n10.0.0.1\ttwo\n10.0.0.2\tweb\n" +
			"10.0.0.3\tmy-db 0123456789ab db\n",
		"resolv.conf": "nameserver 127.0.0.11\n",
		"hostname":    "web\n",
	}
	for name, text := range want {
		got, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(text, string(got)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	f.HostGateway = []netip.Addr{netip.MustParseAddr("192.0.2.1")}
	if hosts, _, err := f.contents(); err != nil || !strings.Contains(string(hosts), "192.0.2.1\ttwo\n") {
		t.Errorf("gateway of the configuration: %v\n%s", err, hosts)
	}
	if _, _, err := (Files{Container: spec("none", "two:host-gateway")}).contents(); !errdefs.IsInvalidArgument(err) {
		t.Errorf("no gateway: %v", err)
	}
}

func TestSandbox(t *testing.T) {
	s := &container.Spec{
		ID: "abc", Name: "web", Sandbox: "abc", Config: &apicontainer.Config{Hostname: "h"},
		HostConfig: &apicontainer.HostConfig{
			NetworkMode: "front", DNSSearch: []string{"own"},
			Sysctls: map[string]string{"net.ipv4.ip_forward": "1", "kernel.shmmax": "1"},
		},
		Networking: &apinetwork.NetworkingConfig{EndpointsConfig: map[string]*apinetwork.EndpointSettings{
			"back": {}, "front": {Aliases: []string{"a"}},
		}},
	}
	d := &defaults.Containers{DNS: []netip.Addr{netip.MustParseAddr("9.9.9.9")}, DNSSearch: []string{"theirs"}}
	got := Sandbox(s, d)
	want := network.SandboxRequest{
		ID: "abc", ContainerID: "abc", ContainerName: "web", Hostname: "h",
		Endpoints: []network.EndpointRequest{
			{Network: "front", Settings: &apinetwork.EndpointSettings{Aliases: []string{"a"}}},
			{Network: "back", Settings: &apinetwork.EndpointSettings{}},
		},
		DNS: network.DNS{Servers: d.DNS, Search: []string{"own"}},
		Sysctls: map[string]string{
			"net.ipv4.ip_forward": "1", "net.ipv4.ip_unprivileged_port_start": "0", "net.ipv4.ping_group_range": "0 2147483647",
		},
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
