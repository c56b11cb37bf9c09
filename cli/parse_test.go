package cli

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/api/types/container"
	"github.com/spf13/pflag"
)

func TestTimestamp(t *testing.T) {
	now := time.Unix(1_000_000, 500)
	for in, want := range map[string]string{
		"0": "0", "5": "5", "1.5": "1.5", "10s": "999990.000000500", "1h30m": "994600.000000500",
		"2020-01-01T00:00:00Z": "1577836800.000000000", "2020-01-01T02:00:00.5+02:00": "1577836800.500000000",
		"2020-01-01T00:00Z": "1577836800.000000000",
	} {
		if got, err := timestamp(in, now); err != nil || got != want {
			t.Errorf("%s: got %q %v, want %q", in, got, err, want)
		}
	}
	for _, bad := range []string{"", "x", "2020-13-01", "1.x", "-"} {
		if _, err := timestamp(bad, now); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}

// request parses arguments of create.
func request(t *testing.T, args ...string) (container.CreateRequest, error) {
	t.Helper()
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	f := pflag.NewFlagSet("create", pflag.ContinueOnError)
	f.SetInterspersed(false)
	c := newContainerFlags(f)
	if err := f.Parse(args); err != nil {
		return container.CreateRequest{}, err
	}
	return c.request(&app{name: "wherry"}, f.Args())
}

func TestContainerFlags(t *testing.T) {
	req, err := request(t, "-it", "--entrypoint", "", "--init=false", "--stop-timeout", "0", "--pids-limit", "0",
		"--network", "name=n,alias=a", "--ip", "10.0.0.5", "-p", "1:2", "img", "cmd", "-x")
	if err != nil {
		t.Fatal(err)
	}
	h := req.HostConfig
	switch {
	case !req.Tty || !req.OpenStdin || !req.StdinOnce || !req.AttachStdin || !req.AttachStdout:
		t.Error("streams are not attached")
	case len(req.Entrypoint) != 1 || req.Entrypoint[0] != "":
		t.Errorf("entrypoint %q does not take the image's away", req.Entrypoint)
	case h.Init == nil || *h.Init || req.StopTimeout == nil || *req.StopTimeout != 0 || h.PidsLimit == nil:
		t.Error("an explicit zero is lost")
	case h.NetworkMode != "n" || req.NetworkingConfig.EndpointsConfig["n"].IPAMConfig.IPv4Address.String() != "10.0.0.5":
		t.Errorf("network %+v", req.NetworkingConfig.EndpointsConfig["n"])
	}
	if diff := cmp.Diff([]string{"cmd", "-x"}, req.Cmd); diff != "" {
		t.Error(diff)
	}
	req, err = request(t, "img")
	if err != nil {
		t.Fatal(err)
	}
	h = req.HostConfig
	if h.Init != nil || h.PidsLimit != nil || h.MemorySwappiness != nil || h.OomKillDisable != nil || req.StopTimeout != nil ||
		req.Entrypoint != nil || len(req.NetworkingConfig.EndpointsConfig) != 0 || h.NetworkMode != "default" {
		t.Errorf("defaults are sent: %+v", h)
	}
}

func TestContainerFlagConflicts(t *testing.T) {
	for name, args := range map[string][]string{
		"--rm with --restart":          {"--rm", "--restart", "always"},
		"health flags":                 {"--no-healthcheck", "--health-cmd", "x"},
		"negative health time":         {"--health-interval", "-1s"},
		"alias on the default network": {"--network-alias", "a"},
		"ip twice":                     {"--network", "name=n,ip=10.0.0.1", "--ip", "10.0.0.2"},
		"network twice":                {"--network", "n", "--network", "n"},
		"host and another network":     {"--network", "host", "--network", "n"},
		"swappiness":                   {"--memory-swappiness", "101"},
		"pid mode":                     {"--pid", "foo"},
		"options of the driver none":   {"--log-driver", "none", "--log-opt", "a=b"},
		"bad MAC address":              {"--network", "n", "--mac-address", "x"},
		"what only Windows has":        {"--cpu-count", "1"},
		"what is not built":            {"--use-api-socket"},
	} {
		if _, err := request(t, append(args, "img")...); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// TestCommandsBuild builds every command, so that no two flags collide, and
// checks that none is described twice.
func TestCommandsBuild(t *testing.T) {
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	a := &app{name: "wherry"}
	seen := map[string]bool{}
	for _, c := range commands() {
		if c.short == "" || c.run == nil {
			t.Errorf("%s %s: not described", c.group, c.name)
		}
		cmd := c.build(a, c.name)
		if cmd.Flags().Lookup("help") == nil {
			t.Errorf("%s: no --help", c.name)
		}
		for _, n := range append(c.names("wherry"), c.group+"/"+c.name) {
			if seen[n] {
				t.Errorf("%s is described twice", n)
			}
			seen[n] = true
		}
		if c.group != "" && findGroup(c.group) == nil {
			t.Errorf("%s: no group %s", c.name, c.group)
		}
	}
}

func TestNaturalCompare(t *testing.T) {
	for _, c := range [][2]string{{"a", "b"}, {"net9", "net10"}, {"a", "a1"}, {"1", "a"}, {"x2y3", "x2y10"}, {"a01", "a2"}} {
		if naturalCompare(c[0], c[1]) >= 0 || naturalCompare(c[1], c[0]) <= 0 || naturalCompare(c[0], c[0]) != 0 {
			t.Errorf("%s is not before %s", c[0], c[1])
		}
	}
}

func TestFirstWord(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{nil, ""}, {[]string{"ps"}, "ps"}, {[]string{"-H", "unix:///x", "ps", "-a"}, "ps"}, {[]string{"--host=x", "ps"}, "ps"},
		{[]string{"-Hx", "ps"}, "ps"}, {[]string{"-DH", "x", "ps"}, "ps"}, {[]string{"-D"}, ""}, {[]string{"-c", "ctx", "run"}, "run"},
		{[]string{"--tlsverify", "--tlscacert", "f", "ps"}, "ps"}, {[]string{"-l", "debug", "-D", "info"}, "info"},
	} {
		a := &app{args: c.args}
		if got, _ := a.firstWord(); got != c.want {
			t.Errorf("%q: got %q, want %q", c.args, got, c.want)
		}
	}
}
