package integration

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	apicontainer "github.com/moby/moby/api/types/container"

	"github.com/wherry-engine/wherry/internal/testenv"
)

const unified = "/sys/fs/cgroup"

// needsUnified skips where the controllers are not on the unified hierarchy:
// `make test-v2` runs these tests on a machine where they are.
func needsUnified(t *testing.T) {
	t.Helper()
	testenv.NeedsRoot(t)
	if _, err := os.Stat(unified + "/cgroup.controllers"); err != nil {
		t.Skip("this host has cgroup v1")
	}
}

// groupOf is the directory of a running container's cgroup on the host.
func groupOf(t *testing.T, cli testenv.CLI, container string) string {
	t.Helper()
	pid := cli.OK(t, "inspect", "-f", "{{.State.Pid}}", container)
	line, err := os.ReadFile("/proc/" + pid + "/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(unified, strings.TrimSpace(strings.TrimPrefix(string(line), "0::")))
}

// value reads a file of a cgroup.
func value(t *testing.T, dir, file string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

// TestUnifiedLimits: every limit of the command line is in the file of cgroup
// v2 that means the same (cgroup-v2.rst), and update changes it there.
func TestUnifiedLimits(t *testing.T) {
	needsUnified(t)
	d := shared(t)
	image, cli := d.Image(t, "busybox"), d.Docker(t)
	disk := backingDisk(t)
	n := name(t)
	detached(t, cli, "--name", n, "-m", "64m", "--memory-swap", "96m", "--memory-reservation", "32m", "--cpus", "0.5", "-c", "2048",
		"--cpuset-cpus", "0", "--cpuset-mems", "0", "--pids-limit", "50", "--device-write-bps", disk+":1mb", "--device-read-iops", disk+":100", image, "sleep", "1000")
	dir := groupOf(t, cli, n)
	for file, want := range map[string]string{
		"memory.max": "67108864", "memory.swap.max": "33554432", "memory.low": "33554432",
		"cpu.max": "50000 100000", "cpu.weight": "174", "cpuset.cpus": "0", "cpuset.mems": "0", "pids.max": "50",
	} {
		equal(t, file, value(t, dir, file), want)
	}
	contains(t, "io.max", value(t, dir, "io.max"), "rbps=max wbps=1048576 riops=100 wiops=max")
	cli.OK(t, "update", "-m", "80m", "--memory-swap", "80m", "--memory-reservation", "16m", "--cpus", "1.5", "-c", "1024", "--cpuset-cpus", "0-1", "--pids-limit", "60", n)
	for file, want := range map[string]string{
		"memory.max": "83886080", "memory.swap.max": "0", "memory.low": "16777216",
		"cpu.max": "150000 100000", "cpu.weight": "100", "cpuset.cpus": "0-1", "pids.max": "60",
	} {
		equal(t, file+" after update", value(t, dir, file), want)
	}
}

// TestUnifiedWeight: the weight of block I/O is that of bfq where the kernel has
// it, or else the general one, and refused where there is none; that of one
// device is refused where nothing weighs it.
func TestUnifiedWeight(t *testing.T) {
	needsUnified(t)
	d := shared(t)
	image, cli := d.Image(t, "busybox"), d.Docker(t)
	disk := backingDisk(t)
	file, weights := ioWeight()
	if file == "" {
		contains(t, "a kernel without", cli.Try(t, "run", "--rm", "--blkio-weight", "300", image, "true").Stderr, "this kernel has no such limit")
		return
	}
	n := name(t)
	detached(t, cli, "--name", n, "--blkio-weight", "300", image, "sleep", "1000")
	dir := groupOf(t, cli, n)
	equal(t, file, value(t, dir, file), weights[0])
	cli.OK(t, "update", "--blkio-weight", "500", n)
	equal(t, file+" after update", value(t, dir, file), weights[1])
	if res := cli.Try(t, "run", "--rm", "--blkio-weight-device", disk+":200", image, "cat", "/sys/fs/cgroup/"+file); res.Code != 0 {
		contains(t, "a device", res.Stderr, "the device has not the scheduler bfq or io.cost, which a weight of its own needs")
	} else {
		contains(t, "a device", res.Stdout, ":")
	}
	contains(t, "no block device", cli.Try(t, "run", "--rm", "--device-read-bps", "/dev/null:1mb", image, "true").Stderr, "is not a block device")
}

// ioWeight is the file of the weight of block I/O in cgroups here, "" if there is
// none, with what it has for the weights 300 and 500.
func ioWeight() (file string, weights [2]string) {
	if bfq, _ := filepath.Glob(unified + "/*/io.bfq.weight"); len(bfq) > 0 {
		return "io.bfq.weight", [2]string{"default 300", "default 500"}
	}
	if general, _ := filepath.Glob(unified + "/*/io.weight"); len(general) > 0 {
		return "io.weight", [2]string{"default 2930", "default 4950"}
	}
	return "", weights
}

// backingDisk is the block device below /tmp, or a skip.
func backingDisk(t *testing.T) string {
	t.Helper()
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(table)) {
		f := strings.Fields(line)
		if _, after, ok := strings.Cut(line, " - "); ok && f[4] == "/tmp" {
			if source := strings.Fields(after)[1]; strings.HasPrefix(source, "/dev/") {
				return source
			}
		}
	}
	t.Skip("no disk of its own is mounted at /tmp")
	return ""
}

// TestUnifiedStats: the figures are those of the container's cgroup.
func TestUnifiedStats(t *testing.T) {
	needsUnified(t)
	d := shared(t)
	image, cli := d.Image(t, "busybox"), d.Docker(t)
	n := name(t)
	detached(t, cli, "--name", n, "-m", "64m", image, "sh", "-c", "dd if=/dev/zero of=/dev/shm/x bs=1M count=20 2>/dev/null; dd if=/dev/zero of=/file bs=1M count=4 conv=fsync 2>/dev/null; echo ready; sleep 1000")
	testenv.Eventually(t, "it wrote", func() bool { return cli.OK(t, "logs", n) == "ready" })
	var s apicontainer.StatsResponse
	if err := json.Unmarshal([]byte(d.API(t, 200, "GET", "/containers/"+n+"/stats?stream=false", "")), &s); err != nil {
		t.Fatal(err)
	}
	if m := s.MemoryStats; m.Limit != 64<<20 || m.Usage < 20<<20 || m.Usage > 64<<20 || m.Stats["shmem"] < 20<<20 || m.Stats["file"] == 0 {
		t.Errorf("memory: limit %d, usage %d, %v", m.Limit, m.Usage, m.Stats)
	}
	if c := s.CPUStats; c.CPUUsage.TotalUsage == 0 || c.SystemUsage == 0 || c.OnlineCPUs == 0 {
		t.Errorf("processors: %+v", c)
	}
	if s.PidsStats.Current != 1 {
		t.Errorf("processes: %+v", s.PidsStats)
	}
	var written uint64
	for _, e := range s.BlkioStats.IoServiceBytesRecursive {
		if strings.EqualFold(e.Op, "write") {
			written += e.Value
		}
	}
	if written < 4<<20 {
		t.Errorf("block I/O: %+v", s.BlkioStats)
	}
}

// TestUnifiedDevices: rules are a program of the kernel's here, no file.
func TestUnifiedDevices(t *testing.T) {
	needsUnified(t)
	d := shared(t)
	image := d.Image(t, "busybox")
	d.Both(t, func(t *testing.T, cli testenv.CLI) {
		const open = "mknod /x c 1 11 && : >>/x && echo opened" // the messages of the kernel
		res := cli.Try(t, "run", "--rm", image, "sh", "-c", open)
		contains(t, "by default", res.Stderr, "Operation not permitted")
		equal(t, "with a rule", cli.OK(t, "run", "--rm", "--device-cgroup-rule", "c 1:11 wm", image, "sh", "-c", open), "opened")
		equal(t, "what all may", cli.OK(t, "run", "--rm", image, "sh", "-c", "head -c 1 /dev/zero | wc -c; echo x >/dev/null && echo yes"), "1\nyes")
	})
}

// TestUnifiedDelegation: a container sees its own cgroup as the root, and one
// that may write there cannot lift its limits.
func TestUnifiedDelegation(t *testing.T) {
	needsUnified(t)
	d := shared(t)
	image := d.Image(t, "busybox")
	d.Both(t, func(t *testing.T, cli testenv.CLI) {
		equal(t, "namespace", cli.OK(t, "run", "--rm", image, "cat", "/proc/self/cgroup"), "0::/")
		const script = `cd /sys/fs/cgroup; mkdir a && echo 0 >a/cgroup.procs && echo +pids >cgroup.subtree_control && echo 5 >a/pids.max && cat a/pids.max
			echo max >memory.max && echo lifted; cat memory.max`
		const root = `cd /sys/fs/cgroup; mkdir a && echo 0 >a/cgroup.procs; for c in $(cat cgroup.controllers); do echo +$c >cgroup.subtree_control || echo no $c; done
			echo 5 >a/pids.max && cat a/pids.max; echo max >pids.max && echo lifted; cat pids.max
			cd /; mkdir /m && mount -t cgroup2 x /m && echo max >/m/pids.max && echo out; ls -d /m/a; cat /proc/self/cgroup`
		equal(t, "privileged", cli.OK(t, "run", "--rm", "--privileged", "--cgroupns", "private", "--pids-limit", "50", image, "sh", "-c", "("+root+") 2>/dev/null"),
			"5\n50\n/m/a\n0::/a")
		equal(t, "inside", cli.OK(t, "run", "--rm", "-m", "64m", "--security-opt", "writable-cgroups=true", image, "sh", "-c", script+" 2>/dev/null"), "5\n67108864")
	})
}

// TestUnifiedFreezeAndKill: pause is in cgroup.events, and a paused container
// with many processes is killed whole.
func TestUnifiedFreezeAndKill(t *testing.T) {
	needsUnified(t)
	d := shared(t)
	image := d.Image(t, "busybox")
	d.Both(t, func(t *testing.T, cli testenv.CLI) {
		n := name(t)
		detached(t, cli, "--name", n, "--pid", "host", image, "sh", "-c", "trap '' TERM; for i in 1 2 3 4 5; do (trap '' TERM; sleep 1000) & done; wait")
		dir := groupOf(t, cli, n)
		testenv.Eventually(t, "its processes run", func() bool { return len(strings.Fields(value(t, dir, "cgroup.procs"))) == 6 })
		cli.OK(t, "pause", n)
		contains(t, "events", value(t, dir, "cgroup.events"), "frozen 1")
		cli.OK(t, "unpause", n)
		contains(t, "events", value(t, dir, "cgroup.events"), "frozen 0")
		cli.OK(t, "pause", n)
		cli.OK(t, "rm", "-f", n)
		testenv.Eventually(t, "the cgroup is gone", func() bool { _, err := os.Stat(dir); return os.IsNotExist(err) })
	})
}

// TestUnifiedKillBelow: processes in a cgroup that the container made are killed
// with it, though they fork.
func TestUnifiedKillBelow(t *testing.T) {
	needsUnified(t)
	d := shared(t)
	image, cli := d.Image(t, "busybox"), d.Docker(t)
	n := name(t)
	detached(t, cli, "--name", n, "--pid", "host", "--security-opt", "writable-cgroups=true", image, "sh", "-c",
		`trap '' TERM; mkdir /sys/fs/cgroup/sub; (echo 0 >/sys/fs/cgroup/sub/cgroup.procs; for i in 1 2 3 4 5; do while :; do sleep 0.01; done & done; wait) & wait`)
	dir := groupOf(t, cli, n)
	testenv.Eventually(t, "its processes fork", func() bool {
		procs, err := os.ReadFile(dir + "/sub/cgroup.procs")
		return err == nil && len(strings.Fields(string(procs))) > 6
	})
	cli.OK(t, "rm", "-f", n)
	testenv.Eventually(t, "the cgroups are gone", func() bool { _, err := os.Stat(dir); return os.IsNotExist(err) })
}

// TestAppArmor: containers are confined by docker-default where the kernel and
// the parser of profiles are there, their execs too, and info tells.
func TestAppArmor(t *testing.T) {
	testenv.NeedsRoot(t)
	if b, _ := os.ReadFile("/sys/module/apparmor/parameters/enabled"); !strings.HasPrefix(string(b), "Y") {
		t.Skip("this kernel has no AppArmor")
	}
	d := shared(t)
	image := d.Image(t, "busybox")
	contains(t, "info", d.Docker(t).OK(t, "info", "-f", "{{.SecurityOptions}}"), "name=apparmor")
	d.Both(t, func(t *testing.T, cli testenv.CLI) {
		const profile = "cat /proc/self/attr/current"
		equal(t, "run", cli.OK(t, "run", "--rm", image, "sh", "-c", profile), "docker-default (enforce)")
		equal(t, "init", cli.OK(t, "run", "--rm", "--init", image, "sh", "-c", profile), "docker-default (enforce)")
		equal(t, "privileged", cli.OK(t, "run", "--rm", "--privileged", image, "sh", "-c", profile), "unconfined")
		equal(t, "unconfined", cli.OK(t, "run", "--rm", "--security-opt", "apparmor=unconfined", image, "sh", "-c", profile), "unconfined")
		contains(t, "mount", cli.Try(t, "run", "--rm", "--cap-add", "SYS_ADMIN", image, "mount", "-t", "tmpfs", "x", "/tmp").Stderr, "ermission denied")
		n := name(t)
		detached(t, cli, "--name", n, image, "sleep", "1000")
		equal(t, "exec", cli.OK(t, "exec", n, "sh", "-c", profile), "docker-default (enforce)")
		equal(t, "privileged exec", cli.OK(t, "exec", "--privileged", n, "sh", "-c", profile), "docker-default (enforce)")
		equal(t, "inspect", cli.OK(t, "inspect", "-f", "{{.AppArmorProfile}}", n), "docker-default")
		cli.OK(t, "kill", n)
	})
}

// TestSELinuxLabels: the engine confines by no label of its own. Where the
// kernel has SELinux it refuses what asks for one; elsewhere it says that it is
// discarded.
func TestSELinuxLabels(t *testing.T) {
	t.Parallel()
	d := shared(t)
	image := d.Image(t, "busybox")
	own, err := os.ReadFile("/proc/self/attr/current")
	known, _ := os.ReadFile("/proc/filesystems")
	enabled := err == nil && strings.Contains(string(known), "\tselinuxfs\n") && strings.Contains(string(own), ":")
	d.Both(t, func(t *testing.T, cli testenv.CLI) {
		res := cli.Try(t, "run", "--rm", "--security-opt", "label=type:spc_t", image, "true")
		if enabled {
			contains(t, "type", res.Stderr, "label=type:spc_t (an SELinux label other than the engine's own) is not supported")
		} else {
			contains(t, "type", res.Stderr, "SELinux is not enabled on this host. The label is discarded.")
		}
		contains(t, "unknown", cli.Try(t, "run", "--rm", "--security-opt", "label=colour:red", image, "true").Stderr, "bad label option")
		// Nothing to disable, and nothing to relabel volumes for.
		dir := t.TempDir()
		got := cli.OK(t, "run", "--rm", "--security-opt", "label=disable", "-v", dir+":/data:Z", image, "sh", "-c", "touch /data/file; cat /proc/self/attr/current 2>/dev/null; true")
		if enabled {
			equal(t, "label", strings.Trim(got, "\x00\n"), strings.Trim(string(own), "\x00\n"))
		}
		if _, err := os.Stat(filepath.Join(dir, "file")); err != nil {
			t.Error(err)
		}
	})
}
