package integration

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/wherry-engine/wherry/internal/testenv"
)

// systemdUnits are all that is started in a container whose init is systemd: a
// bus, and a daemon with the systemd cgroup driver. Nothing of a system's usual
// start, which would change the kernel's settings.
var systemdUnits = map[string]string{
	"test.target": `[Unit]
DefaultDependencies=no
Requires=dbus.socket wherry.service`,
	"dbus.socket": `[Unit]
DefaultDependencies=no
[Socket]
ListenStream=/run/dbus/system_bus_socket`,
	"dbus.service": `[Unit]
DefaultDependencies=no
[Service]
Type=notify
ExecStart=/usr/bin/dbus-daemon --system --address=systemd: --nofork --nopidfile --systemd-activation`,
	"wherry.service": `[Unit]
DefaultDependencies=no
Requires=dbus.socket
After=dbus.socket
[Service]
Type=notify
NotifyAccess=main
Environment=PATH=/wherry:/usr/sbin:/usr/bin
ExecStart=/wherry/wherryd --exec-opt native.cgroupdriver=systemd --data-root /data
KillMode=process
Delegate=yes
TimeoutStartSec=0
StandardOutput=append:/data/log
StandardError=append:/data/log`,
}

// systemdHost is a host that systemd runs: a container of the shared daemon with
// the programs of this machine.
type systemdHost struct {
	t     *testing.T
	outer testenv.CLI
	name  string
	// CLI of the daemon in there.
	testenv.CLI
}

func startSystemdHost(t *testing.T) *systemdHost {
	t.Helper()
	d := shared(t)
	for _, program := range []string{"/usr/lib/systemd/systemd", "/usr/bin/dbus-daemon", "/usr/bin/systemctl"} {
		if _, err := os.Stat(program); err != nil {
			testenv.Skip(t, "needs systemd and a bus daemon: "+err.Error())
		}
	}
	h := &systemdHost{t: t, outer: d.Wherry(t), name: name(t)}
	files := map[string]string{
		"bin": "-> usr/bin", "sbin": "-> usr/sbin", "lib": "-> usr/lib", "lib64": "-> usr/lib64",
		"etc/machine-id": strings.Repeat("1", 32) + "\n", // or it would be a first boot
		"etc/passwd":     "root:x:0:0:root:/root:/bin/sh\nmessagebus:x:100:100::/:/bin/false\n",
		"etc/group":      "root:x:0:\nmessagebus:x:100:\nwherry:x:101:\n",
	}
	for unit, text := range systemdUnits {
		files["etc/systemd/system/"+unit] = text + "\n"
	}
	image := h.name
	h.outer.OKInput(t, bytes.NewReader(archive(t, files)), "import", "-", image)
	t.Cleanup(func() { h.outer.Try(t, "rmi", image) })
	detached(t, h.outer, "--name", h.name, "--privileged", "--cgroupns", "private", "--stop-signal", "RTMIN+3", "-e", "container=wherry",
		"--tmpfs", "/run", "--tmpfs", "/tmp", "-v", "/data", "-v", "/usr:/usr:ro", "-v", filepath.Dir(testenv.Bin(t, "wherryd"))+":/wherry:ro",
		image, "/lib/systemd/systemd", "--unit=test.target", "--log-target=console", "--show-status=no")
	h.CLI = testenv.ForeignCLI(testenv.Bin(t, "wherry"), []string{"-H", "unix://" + d.Socket, "exec", "-i", h.name, "/wherry/wherry"}, nil)
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(h.outer.Try(t, "logs", h.name).All(), h.outer.Try(t, "exec", h.name, "tail", "-n", "30", "/data/log").All())
		}
	})
	testenv.Within(t, time.Minute, "the daemon in there answers", func() bool { return h.Try(t, "version").Code == 0 })
	h.OKInput(t, strings.NewReader(d.Docker(t).Try(t, "save", d.Image(t, "busybox")).Stdout), "load", "-q")
	return h
}

// run is a command line on that host.
func (h *systemdHost) run(line string) string {
	h.t.Helper()
	return h.outer.OK(h.t, "exec", h.name, "sh", "-c", line)
}

// scopes are the units of containers, and of what else has one, there.
func (h *systemdHost) scopes() []string {
	var out []string
	for line := range strings.Lines(h.run("systemctl list-units --all --plain --no-legend --type=scope")) {
		if unit := strings.Fields(line)[0]; unit != "init.scope" && !strings.HasPrefix(unit, "wherry-helpers-") {
			out = append(out, unit)
		}
	}
	return out
}

// memoryLimit prints the limit of the cgroup a process is in.
const memoryLimit = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max"

// TestSystemdDriver: with native.cgroupdriver=systemd containers and the steps
// of builds live in scopes, which end with them.
func TestSystemdDriver(t *testing.T) {
	t.Parallel()
	h := startSystemdHost(t)
	equal(t, "info", h.OK(t, "info", "-f", "{{.CgroupDriver}}"), "systemd")
	id := h.OK(t, "run", "-d", "--name", "main", "-m", "64m", "--pids-limit", "50", "busybox", "sleep", "1000")

	t.Run("scope", func(t *testing.T) {
		in := "/system.slice/wherry-" + id + ".scope"
		pid := h.OK(t, "inspect", "-f", "{{.State.Pid}}", "main")
		for line := range strings.Lines(h.run("cat /proc/" + pid + "/cgroup")) {
			if !strings.HasSuffix(strings.TrimSpace(line), in) {
				t.Errorf("not in %s: %s", in, line)
			}
		}
		contains(t, "slice", h.OK(t, "run", "--rm", "--cgroup-parent", "foo-bar.slice", "--cgroupns", "host", "busybox", "cat", "/proc/self/cgroup"),
			"/foo.slice/foo-bar.slice/wherry-")
		for _, parent := range []string{"/foo", "foo", "/foo.slice"} {
			contains(t, parent, h.Try(t, "run", "--rm", "--cgroup-parent", parent, "busybox", "true").Stderr, "invalid cgroup parent")
		}
	})
	t.Run("life", func(t *testing.T) {
		equal(t, "exec", h.OK(t, "exec", "main", "sh", "-c", memoryLimit), "67108864")
		contains(t, "top", h.OK(t, "top", "main"), "sleep 1000")
		contains(t, "stats", h.OK(t, "stats", "--no-stream", "main"), "/ 64MiB")
		h.OK(t, "pause", "main")
		contains(t, "ps", h.OK(t, "ps"), "(Paused)")
		h.OK(t, "unpause", "main")
		for range 3 { // each run needs the scope of the last to be gone
			h.OK(t, "restart", "-t", "0", "main")
		}
		h.OK(t, "run", "-d", "--name", "again", "--restart", "on-failure:3", "busybox", "false")
		testenv.Eventually(t, "restarted by the supervisor", func() bool {
			return h.OK(t, "inspect", "-f", "{{.RestartCount}} {{.State.Status}} {{.State.Error}}", "again") == "3 exited"
		})
		h.OK(t, "rm", "again")
	})
	t.Run("update", func(t *testing.T) {
		limits := func(when, want string) {
			t.Helper()
			equal(t, when, h.OK(t, "exec", "main", "sh", "-c", memoryLimit), want)
			h.run("systemctl daemon-reload") // it writes anew what it knows
			equal(t, when+", reloaded", h.OK(t, "exec", "main", "sh", "-c", memoryLimit+"; echo x >/dev/null"), want)
		}
		h.OK(t, "update", "-m", "48m", "--memory-swap", "48m", "main")
		limits("updated", "50331648")
		h.run("kill -9 $(pgrep -f '[w]herry-runtime supervisor')")
		testenv.Eventually(t, "another supervisor", func() bool {
			return h.Try(t, "update", "-m", "40m", "--memory-swap", "40m", "main").Code == 0
		})
		limits("by another supervisor", "41943040")
		h.run("systemctl restart wherry.service")
		h.OK(t, "update", "-m", "32m", "--memory-swap", "32m", "main")
		limits("by another daemon", "33554432")
	})
	t.Run("properties", func(t *testing.T) { h.testProperties(t, id) })
	t.Run("runtime", h.testRuntime)
	t.Run("build", func(t *testing.T) {
		// A step sees no more than "/" of its cgroup on v2: one that lasts is looked for from outside.
		h.run("mkdir /data/context; printf 'FROM busybox\nRUN sleep 1000\n' >/data/context/Dockerfile")
		groups := regexp.MustCompile(`/bar\.slice/wherry-build-\w+\.scope`)
		out := h.run(`/wherry/wherry build --cgroup-parent bar.slice /data/context >/data/build.log 2>&1 & build=$!
			for i in $(seq 300); do find /sys/fs/cgroup -path '*/bar.slice/wherry-build-*.scope' | grep . && break; sleep 0.1; done
			kill $build; wait $build; cat /data/build.log`)
		if !groups.MatchString(out) {
			t.Error(out)
		}
		contains(t, "no slice", h.Try(t, "build", "--no-cache", "--cgroup-parent", "bar", "/data/context").All(), "not the name of a slice")
	})
	h.OK(t, "rm", "-f", "main")
	testenv.Eventually(t, "their scopes are gone", func() bool { return len(h.scopes()) == 0 })
	equal(t, "cgroups left", h.run("find /sys/fs/cgroup -name 'wherry-*.scope' -not -name 'wherry-helpers-*'"), "")
}

// reloaded checks files of a cgroup on that host, before and after systemd has
// written anew what it knows, which it has before it answers another question.
func (h *systemdHost) reloaded(t *testing.T, when, dir string, want ...string) {
	t.Helper()
	var names []string
	for _, line := range want {
		file, _, _ := strings.Cut(line, ":")
		names = append(names, file)
	}
	read := "cd /sys/fs/cgroup/" + dir + " && grep -H . " + strings.Join(names, " ")
	lines := strings.Join(want, "\n")
	equal(t, when+", before and after", h.run(read+"; systemctl daemon-reload; systemctl show -P Version >/dev/null; "+read), lines+"\n"+lines)
}

// testProperties: an update changes the unit's properties and its files, and
// both stay so.
func (h *systemdHost) testProperties(t *testing.T, id string) {
	needsUnified(t)
	unit := "wherry-" + id + ".scope"
	h.OK(t, "update", "-m", "48m", "--memory-swap", "60m", "--memory-reservation", "20m", "--cpus", "1.5", "-c", "512", "--cpuset-cpus", "0",
		"--pids-limit", "30", "main")
	h.reloaded(t, "updated", "system.slice/"+unit, "memory.max:50331648", "memory.swap.max:12582912", "memory.low:20971520",
		"cpu.max:150000 100000", "cpu.weight:59", "cpuset.cpus:0", "pids.max:30")
	properties := []string{
		"MemoryMax=50331648", "MemorySwapMax=12582912", "MemoryLow=20971520", "CPUQuotaPerSecUSec=1.500000s", "CPUWeight=59", "AllowedCPUs=0",
		"TasksMax=30", "Delegate=yes",
	}
	if file, weights := ioWeight(); file != "" {
		h.OK(t, "update", "--blkio-weight", "300", "main")
		h.reloaded(t, "weight", "system.slice/"+unit, file+":"+weights[0])
		if file == "io.weight" {
			properties = append(properties, "IOWeight=2930")
		}
	}
	shown := h.run("systemctl show " + unit)
	for _, property := range properties {
		contains(t, "properties", "\n"+shown+"\n", "\n"+property+"\n")
	}
}

// testRuntime: what is changed alone of two limits that depend on each other
// leaves the other, and systemd does not undo it.
func (h *systemdHost) testRuntime(t *testing.T) {
	needsUnified(t)
	var spec specs.Spec
	h.run("mkdir -p /data/oci/rootfs/proc /data/oci/rootfs/dev /data/oci/rootfs/sys && cp /bin/busybox /data/oci/rootfs/")
	if err := json.Unmarshal([]byte(h.run("cd /data/oci && /wherry/wherry-runtime spec && cat config.json")), &spec); err != nil {
		t.Fatal(err)
	}
	spec.Process.Terminal, spec.Process.Args = false, []string{"/busybox", "sleep", "1000"}
	spec.Linux.CgroupsPath = "foo.slice:oci:c1"
	spec.Linux.Resources.Unified = map[string]string{"cpu.max": "30000 60000", "memory.high": "50331648", "memory.max": "67108864"}
	disk, _, _ := strings.Cut(h.run("cat /sys/block/*/dev"), "\n")
	spec.Linux.Resources.Unified["io.max"] = disk + " rbps=1048576"
	text, err := json.Marshal(&spec)
	if err != nil {
		t.Fatal(err)
	}
	h.outer.OKInput(t, bytes.NewReader(text), "exec", "-i", h.name, "sh", "-c", "cat >/data/oci/config.json")
	runtime := func(args string) {
		h.run("/wherry/wherry-runtime --systemd-cgroup --root /run/oci " + args + " </dev/null >/data/oci/log 2>&1 || cat /data/oci/log >&2")
	}
	const dir = "foo.slice/oci-c1.scope"
	runtime("run -d -b /data/oci c1")
	defer runtime("delete --force c1")
	h.reloaded(t, "started", dir, "cpu.max:30000 60000", "memory.high:50331648", "memory.max:67108864",
		"io.max:"+disk+" rbps=1048576 wbps=max riops=max wiops=max")
	runtime("update --cpu-period 20000 c1")
	h.reloaded(t, "period", dir, "cpu.max:30000 20000")
	runtime("update --cpu-quota 10000 c1")
	h.reloaded(t, "quota", dir, "cpu.max:10000 20000")
	runtime("update --memory 64M --memory-swap 96M c1")
	runtime("update --memory-swap 80M c1")
	h.reloaded(t, "swap", dir, "memory.max:67108864", "memory.swap.max:16777216")
	runtime("update --cpu-idle 1 c1")
	h.reloaded(t, "idle", dir, "cpu.idle:1")
	runtime("update --cpu-idle 0 c1")
	h.reloaded(t, "not idle", dir, "cpu.idle:0", "cpu.weight:100")
}
