package ocirun

import (
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// ip runs the host's tool; the container's view is checked with it, too.
func ip(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command("ip", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("ip %v: %v: %s", args, err, out)
	}
	return string(out)
}

func TestNetDevices(t *testing.T) {
	r := newRuntime(t)
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("needs iproute2:", err)
	}
	root := busyboxRoot(t)
	// A pair on the host: both ends move, under another name each.
	ip(t, "link", "add", "wyocia", "type", "veth", "peer", "name", "wyocib")
	t.Cleanup(func() { _ = exec.Command("ip", "link", "del", "wyocia").Run() })
	ip(t, "addr", "add", "10.213.7.1/24", "dev", "wyocia")
	ip(t, "addr", "add", "10.213.8.1", "peer", "10.213.8.2/32", "dev", "wyocia")
	ip(t, "addr", "add", "10.213.9.1/24", "dev", "wyocia", "valid_lft", "100", "preferred_lft", "50") // not permanent
	ip(t, "addr", "add", "fd00:213::1/64", "dev", "wyocia", "nodad")
	ip(t, "link", "set", "wyocia", "up", "mtu", "1400")

	taken := sh(root, "true")
	taken.Spec.Linux.NetDevices = map[string]specs.LinuxNetDevice{"wyocib": {Name: "lo"}}
	if _, err := run(t, r, taken); !errdefs.IsAlreadyExists(err) {
		t.Error("lo is there:", err)
	}
	ip(t, "link", "show", "wyocib")

	req := sh(root, "exec sleep 60")
	req.Spec.Linux.NetDevices = map[string]specs.LinuxNetDevice{"wyocia": {Name: "eth%d"}, "wyocib": {Name: "second"}}
	c := start(t, r, req)
	in := func(args ...string) string {
		return ip(t, append([]string{"-n", attach(t, c.Pid)}, args...)...)
	}
	got := in("-o", "addr", "show", "dev", "eth0")
	for _, want := range []string{"10.213.7.1/24", "10.213.8.1 peer 10.213.8.2/32", "fd00:213::1/64"} {
		if !strings.Contains(got, want) {
			t.Errorf("%s is missing of %s", want, got)
		}
	}
	if strings.Contains(got, "10.213.9.1") {
		t.Errorf("a temporary address came along: %s", got)
	}
	if got := in("-o", "link"); !strings.Contains(got, "mtu 1400") || strings.Count(got, ",UP") != 2 || !strings.Contains(got, "second") {
		t.Errorf("%s", got)
	}
}

// attach names the network namespace of a process for ip.
func attach(t *testing.T, pid int) string {
	t.Helper()
	name := testID(t)
	ip(t, "netns", "attach", name, strconv.Itoa(pid))
	t.Cleanup(func() { ip(t, "netns", "del", name) })
	return name
}
