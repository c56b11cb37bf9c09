package opts

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
)

func TestParseMount(t *testing.T) {
	cwd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for spec, want := range map[string]mount.Mount{
		"dst=/d":                              {Type: mount.TypeVolume, Target: "/d"},
		"type=bind,src=/s,target=/d,ro":       {Type: mount.TypeBind, Source: "/s", Target: "/d", ReadOnly: true},
		"type=bind,source=./s,destination=/d": {Type: mount.TypeBind, Source: filepath.Join(cwd, "s"), Target: "/d"},
		"type=bind,src=/s,dst=/d,readonly=0":  {Type: mount.TypeBind, Source: "/s", Target: "/d"},
		"type=tmpfs,dst=/d,tmpfs-size=1m":     {Type: mount.TypeTmpfs, Target: "/d", TmpfsOptions: &mount.TmpfsOptions{SizeBytes: 1 << 20}},
		"type=tmpfs,dst=/d,tmpfs-mode=1777":   {Type: mount.TypeTmpfs, Target: "/d", TmpfsOptions: &mount.TmpfsOptions{Mode: 0o1777}},
		"type=image,src=i,dst=/d":             {Type: mount.TypeImage, Source: "i", Target: "/d"},
		"type=bind,src=/s,dst=/d,bind-propagation=rshared": {
			Type: mount.TypeBind, Source: "/s", Target: "/d", BindOptions: &mount.BindOptions{Propagation: mount.PropagationRShared},
		},
		`"volume-opt=o=a,b",dst=/d,volume-driver=x`: {
			Type: mount.TypeVolume, Target: "/d",
			VolumeOptions: &mount.VolumeOptions{DriverConfig: &mount.Driver{Name: "x", Options: map[string]string{"o": "a,b"}}},
		},
	} {
		got, err := ParseMount(spec)
		if err != nil {
			t.Errorf("%s: %v", spec, err)
			continue
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", spec, diff)
		}
	}
}

func TestParseMountRefuses(t *testing.T) {
	for spec, want := range map[string]string{
		"":                                   "value is empty",
		"type=bind,src=/s":                   "target is required",
		"foo":                                "invalid field 'foo' must be a key=value pair",
		"dst=/d,foo=1":                       "unexpected key 'foo' in 'foo=1'",
		"type=npipe,dst=/d":                  `mount type "npipe" is not supported on this platform`,
		"type=foo,dst=/d":                    `invalid mount type "foo"`,
		"type=tmpfs,dst=/d,bind-recursive=x": `invalid value for bind-recursive: x (must be "enabled", "disabled", "writable", or "readonly")`,
		"dst=/d,tmpfs-size=1m":               "cannot mix 'tmpfs-*' options with mount type 'volume'",
		"dst=/d,ro=maybe":                    "invalid value for ro: maybe",
		"type=tmpfs,dst=/d,tmpfs-size=x":     "invalid value for tmpfs-size: x",
	} {
		if _, err := ParseMount(spec); err == nil || err.Error() != want {
			t.Errorf("%q: got %v, want %s", spec, err, want)
		}
	}
}

func TestNetworks(t *testing.T) {
	var n Networks
	for _, s := range []string{"n1", "name=n2,alias=a,alias=b,ip=10.0.0.1,gw-priority=-3,driver-opt=K=V"} {
		if err := n.Set(s); err != nil {
			t.Fatal(err)
		}
	}
	want := Networks{
		{Target: "n1"},
		{Target: "n2", Aliases: []string{"a", "b"}, IPv4: netip.MustParseAddr("10.0.0.1"), GwPriority: -3, DriverOpts: map[string]string{"k": "v"}},
	}
	if diff := cmp.Diff(want, n, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Error(diff)
	}
	for _, bad := range []string{"alias=a", "name=n,ip=x", "name=n,foo=1", "name=", "name=n,gw-priority=x"} {
		if err := n.Set(bad); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}

func TestEnv(t *testing.T) {
	t.Setenv("FROM_ENV", "here")
	file := filepath.Join(t.TempDir(), "env")
	if err := os.WriteFile(file, []byte("\xef\xbb\xbf# comment\nA=1\n\n  B=x y \nFROM_ENV\nUNSET_NAME\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := Env([]string{file}, []string{"C=", "FROM_ENV", "UNSET_NAME"})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"A=1", "B=x y ", "FROM_ENV=here", "C=", "FROM_ENV=here", "UNSET_NAME"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if err := os.WriteFile(file, []byte("A B=1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Env([]string{file}, nil); err == nil || !strings.Contains(err.Error(), "contains whitespaces") {
		t.Errorf("got %v", err)
	}
	if _, err := Env(nil, []string{"=x"}); err == nil {
		t.Error("an empty name is accepted")
	}
}

func TestExtraHost(t *testing.T) {
	for in, want := range map[string]string{
		"a:1.2.3.4": "a:1.2.3.4", "a=1.2.3.4": "a:1.2.3.4", "a:::1": "a:::1", "a=[::1]": "a:::1", "a:host-gateway": "a:host-gateway",
	} {
		if got, err := ExtraHost(in); err != nil || got != want {
			t.Errorf("%s: got %q %v, want %q", in, got, err, want)
		}
	}
	for _, bad := range []string{"", "a", "a:", ":1.2.3.4", "a:b", "a=gateway"} {
		if _, err := ExtraHost(bad); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}

func TestDevices(t *testing.T) {
	maps, reqs, err := Devices([]string{"/dev/a", "/dev/a:/dev/b", "/dev/a:/dev/b:r", "/dev/a:rw", "vendor.com/class=name"})
	if err != nil {
		t.Fatal(err)
	}
	want := []container.DeviceMapping{
		{PathOnHost: "/dev/a", PathInContainer: "/dev/a", CgroupPermissions: "rwm"},
		{PathOnHost: "/dev/a", PathInContainer: "/dev/b", CgroupPermissions: "rwm"},
		{PathOnHost: "/dev/a", PathInContainer: "/dev/b", CgroupPermissions: "r"},
		{PathOnHost: "/dev/a", PathInContainer: "/dev/a", CgroupPermissions: "rw"},
	}
	if diff := cmp.Diff(want, maps); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]container.DeviceRequest{{Driver: "cdi", DeviceIDs: []string{"vendor.com/class=name"}}}, reqs); diff != "" {
		t.Error(diff)
	}
	for _, bad := range []string{"", "a:b:c:d", "/dev/a:/dev/b:x"} {
		if _, _, err := Devices([]string{bad}); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}

func TestGPUs(t *testing.T) {
	var g GPUs
	for _, s := range []string{"all", "2", `"device=0,1",capabilities=utility,driver=nvidia`} {
		if err := g.Set(s); err != nil {
			t.Fatal(err)
		}
	}
	want := GPUs{
		{Count: -1, Capabilities: [][]string{{"gpu"}}},
		{Count: 2, Capabilities: [][]string{{"gpu"}}},
		{Driver: "nvidia", DeviceIDs: []string{"0", "1"}, Capabilities: [][]string{{"utility", "gpu"}}},
	}
	if diff := cmp.Diff(want, g); diff != "" {
		t.Error(diff)
	}
	for _, bad := range []string{"", "x", "count=1,count=2", "foo=1"} {
		if err := g.Set(bad); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}

func TestSecurity(t *testing.T) {
	file := filepath.Join(t.TempDir(), "p.json")
	if err := os.WriteFile(file, []byte("{ \"defaultAction\" : \"X\" }\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	got, open, err := Security([]string{"no-new-privileges", "seccomp=" + file, "apparmor:foo", "seccomp=unconfined", "systempaths=unconfined"})
	if err != nil || !open {
		t.Fatalf("got %v, open %v", err, open)
	}
	want := []string{"no-new-privileges", `seccomp={"defaultAction":"X"}`, "apparmor:foo", "seccomp=unconfined"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if _, _, err := Security([]string{"foo"}); err == nil {
		t.Error("foo is accepted")
	}
}

func TestSmallValues(t *testing.T) {
	var c CPUs
	if err := c.Set("1.5"); err != nil || c != 1500000000 || c.String() != "1.500" {
		t.Errorf("got %d %q %v", c, c.String(), err)
	}
	for _, bad := range []string{"", "x", "0.0000000001", "99999999999999"} {
		if err := c.Set(bad); err == nil {
			t.Errorf("--cpus %q is accepted", bad)
		}
	}
	b := Bytes{MinusOne: true}
	if err := b.Set("-1"); err != nil || b.N != -1 {
		t.Errorf("got %d %v", b.N, err)
	}
	if p, err := Restart("on-failure:5"); err != nil || p.MaximumRetryCount != 5 || p.Name != "on-failure" {
		t.Errorf("got %v %v", p, err)
	}
	if diff := cmp.Diff([]string{"ALL", "CAP_CHOWN", "CAP_NET_ADMIN"}, Capabilities([]string{"net_admin", "CAP_chown", "all", "chown"})); diff != "" {
		t.Error(diff)
	}
	var f Filters
	for _, s := range []string{"Label=a=b", "label = c ", "status=x"} {
		if err := f.Set(s); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(Filters{"label": {"a=b": true, "c": true}, "status": {"x": true}}, f); diff != "" {
		t.Error(diff)
	}
}

func FuzzParseMount(f *testing.F) {
	f.Add("type=bind,src=/a,dst=/b,ro")
	f.Add(`"volume-opt=a=b,c",dst=/x`)
	f.Fuzz(func(t *testing.T, s string) {
		if m, err := ParseMount(s); err == nil && m.Target == "" {
			t.Errorf("%q: accepted without a target", s)
		}
	})
}
