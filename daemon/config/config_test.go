package config

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func load(t *testing.T, file string, args ...string) (*Loaded, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "daemon.json")
	if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
		t.Fatal(err)
	}
	return Load(append([]string{"--config-file", path}, args...))
}

// The texts are those of dockerd, as far as they begin alike.
func TestRefusals(t *testing.T) {
	for name, tc := range map[string]struct {
		file string
		args []string
		want string
	}{
		"unknown keys":         {file: `{"foo":1,"bar":{"x":2}}`, want: "the following directives don't match any configuration option: bar, foo"},
		"case matters":         {file: `{"Debug":true}`, want: "the following directives don't match any configuration option: Debug"},
		"struct field only":    {file: `{"default-init":"x"}`, want: "don't match any configuration option: default-init"},
		"unknown proxy key":    {file: `{"proxies":{"x":1}}`, want: "don't match any configuration option: x"},
		"flag and file":        {file: `{"debug":true}`, args: []string{"--debug"}, want: "the following directives are specified both as a flag and in the configuration file: debug: (from flag: true, from file: true)"},
		"lists too":            {file: `{"dns":["1.1.1.1"],"hosts":["unix:///tmp/a"]}`, args: []string{"--dns", "8.8.8.8", "-H", "unix:///tmp/b"}, want: "dns: (from flag: [8.8.8.8], from file: [1.1.1.1]), hosts: (from flag: [unix:///tmp/b], from file: [unix:///tmp/a])"},
		"not JSON":             {file: `{`, want: "unexpected EOF"},
		"cut short":            {file: `{"mtu":`, want: "EOF"},
		"two objects":          {file: `{}{}`, want: "unexpected content"},
		"wrong type":           {file: `{"mtu":"x"}`, want: "mtu: json: cannot unmarshal string"},
		"bad address":          {file: `{"dns":["nope"]}`, want: "nope is not an ip address"},
		"bad flag address":     {file: `{}`, args: []string{"--dns", "a"}, want: `invalid argument "a" for "--dns" flag: a is not an ip address`},
		"log level":            {file: `{"log-level":"loud"}`, want: "unable to parse logging level: loud"},
		"log driver":           {file: `{"log-driver":"syslog"}`, want: `"syslog" is not supported by this engine yet`},
		"log option":           {file: `{"log-opts":{"nope":"x"}}`, want: "unknown log opt 'nope' for json-file log driver"},
		"log size":             {file: `{"log-opts":{"max-size":"x"}}`, want: "invalid value for max-size"},
		"downloads":            {file: `{"max-concurrent-downloads":-1}`, want: "invalid max concurrent downloads: -1"},
		"label conflict":       {file: `{"labels":["a=b","a=c"]}`, want: "conflict labels for a=c and a=b"},
		"label format":         {file: `{"labels":["a"]}`, want: "configuration validation from file failed: bad attribute format: a"},
		"default runtime":      {file: `{"default-runtime":"zz"}`, want: "specified default runtime 'zz' does not exist"},
		"reserved runtime":     {file: `{"runtimes":{"runc":{"path":"/x"}}}`, want: "runtime name 'runc' is reserved"},
		"runtime of nothing":   {file: `{"runtimes":{"x":{}}}`, want: "runtime x: either a runtimeType or a path must be configured"},
		"runtime twice":        {file: `{"runtimes":{"x":{"path":"/x","runtimeType":"io.containerd.runc.v2"}}}`, want: "cannot configure both path and runtimeType"},
		"runtime's options":    {file: `{"runtimes":{"x":{"path":"/x","options":{"BinaryName":"/y"}}}}`, want: "options cannot be used with a path runtime"},
		"shim's arguments":     {file: `{"runtimes":{"x":{"runtimeType":"io.containerd.runc.v2","runtimeArgs":["-x"]}}}`, want: "args cannot be used with a runtimeType runtime"},
		"another shim":         {file: `{"runtimes":{"x":{"runtimeType":"io.containerd.kata.v2"}}}`, want: `runtimeType "io.containerd.kata.v2" is not supported`},
		"shim's option":        {file: `{"runtimes":{"x":{"runtimeType":"io.containerd.runc.v2","options":{"ShimCgroup":"/x"}}}}`, want: "option ShimCgroup is not supported"},
		"runtime's key":        {file: `{"runtimes":{"x":{"path":"/x","foo":1}}}`, want: "foo"},
		"runtime's args":       {file: `{"runtimes":{"x":{"path":"/x","args":["-x"]}}}`, want: "use runtimeArgs"},
		"ipc mode":             {file: `{"default-ipc-mode":"zz"}`, want: `default IPC mode setting (zz) is invalid; use "shareable" or "private"`},
		"cgroupns mode":        {file: `{"default-cgroupns-mode":"z"}`, want: `default cgroup namespace mode (z) is invalid; use "host" or "private"`},
		"size":                 {file: `{"default-shm-size":"zz"}`, want: "invalid size: 'zz'"},
		"unknown flag":         {file: `{}`, args: []string{"--foo"}, want: "unknown flag: --foo"},
		"argument":             {file: `{}`, args: []string{"extra"}, want: "accepts no arguments"},
		"ulimit":               {file: `{}`, args: []string{"--default-ulimit", "foo=1"}, want: "invalid ulimit type: foo"},
		"host":                 {file: `{}`, args: []string{"-H", "zz://"}, want: "bind address format: zz://"},
		"runtime flag":         {file: `{}`, args: []string{"--add-runtime", "x"}, want: "invalid runtime argument: x"},
		"refused flag":         {file: `{}`, args: []string{"--selinux-enabled"}, want: "--selinux-enabled is not supported by this engine yet"},
		"refused key":          {file: `{"metrics-addr":"127.0.0.1:1"}`, want: "metrics-addr is not supported by this engine yet"},
		"storage driver":       {file: `{"storage-driver":"zfs"}`, want: `"zfs" is not supported`},
		"storage options":      {file: `{"storage-opts":["size=1G"]}`, want: "storage-opts is not supported"},
		"exec option":          {file: `{"exec-opts":["foo=bar"]}`, want: `"foo=bar" is not supported`},
		"parent no slice":      {file: `{"exec-opts":["native.cgroupdriver=systemd"],"cgroup-parent":"/foo"}`, want: `"/foo": with the systemd cgroup driver`},
		"pool size":            {file: `{"default-address-pools":[{"base":"10.0.0.0/8","size":33}]}`, want: "size 33"},
		"buildkit off":         {file: `{"features":{"buildkit":false}}`, want: "buildkit cannot be disabled"},
		"seccomp profile":      {file: `{"seccomp-profile":"/nonexistent"}`, want: "opening seccomp profile failed"},
		"mirror":               {file: `{"registry-mirrors":["x"]}`, want: "invalid mirror"},
		"firewall backend":     {file: `{"firewall-backend":"iptables"}`, want: `"iptables" is not supported`},
		"build cache limits":   {file: `{"builder":{"gc":{"enabled":true}}}`, want: "builder is not supported"},
		"nri":                  {file: `{"nri-opts":{"enable":true}}`, want: "nri-opts is not supported"},
		"authorization plugin": {file: `{"authorization-plugins":["x"]}`, want: "authorization-plugins is not supported"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := load(t, tc.file, tc.args...)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("err = %v, want …%s…", err, tc.want)
			}
		})
	}
}

func TestAccepted(t *testing.T) {
	l, err := load(t, `{
		"data-root": "/a/../b", "debug": true, "dns": ["1.1.1.1", "2001:db8::1"], "default-shm-size": "128M",
		"default-ulimits": {"nofile": {"Name": "nofile", "Hard": 64000, "Soft": 64000}},
		"default-address-pools": [{"base": "10.10.0.0/16", "size": 24}],
		"log-opts": {"max-size": "10m"}, "proxies": {"http-proxy": "http://p:1"},
		"builder": {"gc": {"enabled": false, "defaultKeepStorage": "20GB"}},
		"insecure-registries": ["http://R:5000", "10.0.0.0/8"], "registry-mirrors": ["https://m"],
		"live-restore": false, "containerd": "/run/containerd.sock", "userland-proxy": false, "selinux-enabled": false,
		"features": {"containerd-snapshotter": true}, "host-gateway-ip": "10.0.0.1"
	}`, "-H", "tcp://:1", "-H", "unix:///s", "--add-runtime", "x=/bin/x", "--label", "k=v")
	if err != nil {
		t.Fatal(err)
	}
	type view struct {
		Root, Shm, DNS, HTTP, KeepStorage, Max string
		Hosts, Insecure, Mirrors               []string
		Live, Debug                            bool
		Gateways, Ulimit                       int
	}
	got := view{
		l.DataRoot, bytesValue{&l.Containers.ShmSize}.String(), addrValue{many: &l.Network.DNS}.String(), l.Proxies.HTTP,
		l.Builder.GC.DefaultKeepStorage, l.Containers.LogOpts["max-size"],
		l.Hosts, l.Registry.Insecure, l.Registry.Mirrors, *l.LiveRestore, l.Debug,
		len(l.Containers.HostGatewayIPs), int(l.Containers.Ulimits["nofile"].Hard),
	}
	want := view{
		"/b", "128MiB", "[1.1.1.1 2001:db8::1]", "http://p:1", "20GB", "10m",
		[]string{"tcp://:1", "unix:///s"}, []string{"r:5000", "10.0.0.0/8"}, []string{"https://m/"}, false, true, 1, 64000,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if len(l.Warnings) != 2 {
		t.Errorf("warnings: %q", l.Warnings)
	}
}

func TestRuntimes(t *testing.T) {
	l, err := load(t, `{"default-runtime":"shim","runtimes":{
		"path": {"path":"/x","runtimeArgs":["-a","-b"],"args":[]},
		"shim": {"runtimeType":"io.containerd.runc.v2","options":{"BinaryName":"/y"}},
		"same": {"runtimeType":"io.containerd.runc.v2"}}}`)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"path": "/x [-a -b]", "shim": "/y []", "same": " []"} {
		if path, args := l.Runtimes[name].Command(); fmt.Sprint(path, " ", args) != want {
			t.Errorf("%s is %s %q, want %s", name, path, args, want)
		}
	}
}

func TestMissingFile(t *testing.T) {
	if _, err := Load([]string{"--config-file", "/nonexistent/daemon.json"}); err == nil {
		t.Error("a file that was asked for may be missing")
	}
}

func TestMerge(t *testing.T) {
	old, err := load(t, `{"labels":["a=b"],"mtu":1400}`)
	if err != nil {
		t.Fatal(err)
	}
	fresh, err := load(t, `{"labels":["a=c"],"mtu":1300,"userns-remap":"default","debug":true,"shutdown-timeout":3,"max-concurrent-downloads":7}`)
	if err != nil {
		t.Fatal(err)
	}
	next, changed, fixed := Merge(old.Config, fresh)
	if diff := cmp.Diff([]string{"debug", "labels", "shutdown-timeout", "max-concurrent-downloads"}, changed); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"userns-remap", "mtu"}, fixed); diff != "" {
		t.Error(diff)
	}
	if !next.Debug || next.Labels[0] != "a=c" || next.Network.MTU != 1400 || next.Containers.UsernsRemap != "" || next.ShutdownTimeout != 3 || next.Registry.ConcurrentDownloads != 7 {
		t.Errorf("merged: %+v", next)
	}
	if old.Debug || old.Labels[0] != "a=b" {
		t.Error("the old configuration was changed")
	}
}

// Every flag and key that dockerd has is known here, if only to be refused.
func TestSurface(t *testing.T) {
	data, err := os.ReadFile("testdata/surface.txt")
	if err != nil {
		t.Fatal(err)
	}
	flags, keys := map[string]bool{"config-file": true}, map[string]bool{}
	for _, o := range options(defaults()) {
		flags[o.flag], keys[o.key] = true, true
		keys[strings.TrimPrefix(o.key, "proxies.")] = true
	}
	for line := range strings.Lines(string(data)) {
		kind, name, _ := strings.Cut(strings.TrimSpace(line), " ")
		if kind == "flag" && !flags[name] || kind == "key" && !keys[name] {
			t.Errorf("%s %s is unknown", kind, name)
		}
	}
}
