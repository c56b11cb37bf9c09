package command

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/wherry-engine/wherry/internal/testenv"
	"github.com/wherry-engine/wherry/ocirun/cgroup"
)

func TestParseSize(t *testing.T) {
	for s, want := range map[string]int64{"0": 0, "-1": -1, "5": 5, "64M": 64 << 20, "1k": 1024, "2GiB": 2 << 30, "3 mb": 3 << 20, "7b": 7, "1t": 1 << 40} {
		if got, err := parseSize(s); err != nil || got != want {
			t.Errorf("%s: %d %v", s, got, err)
		}
	}
	for _, s := range []string{"", "M", "1x", "1mm", "99999999p", "1.5g"} {
		if got, err := parseSize(s); err == nil {
			t.Errorf("%s: %d", s, got)
		}
	}
}

func TestUpdate(t *testing.T) {
	b := newBox(t, "sleep", "100")
	b.want(0, "", "run", "-d", "-b", b.bundle, "c1")
	t.Cleanup(func() { b.run("delete", "--force", "c1") })
	h, err := cgroup.Detect()
	if err != nil {
		t.Fatal(err)
	}
	read := func(controller, v1, v2 string) string {
		hi, file := h.Unified(), v2
		if !h.V2 {
			hi, file = h.V1(controller), v1
		}
		text, err := os.ReadFile(filepath.Join(hi.Dir(b.spec.Linux.CgroupsPath), file))
		if err != nil {
			t.Error(err)
		}
		return strings.TrimSpace(string(text))
	}
	b.want(0, "", "update", "--memory", "64M", "--memory-reservation", "32m", "--memory-swap", "128M", "--pids-limit", "44", "--cpu-period", "50000",
		"--cpu-quota", "20000", "--cpu-share", "512", "--cpuset-cpus", "0", "c1")
	if got := read("memory", "memory.limit_in_bytes", "memory.max"); got != "67108864" {
		t.Error("memory", got)
	}
	if got := read("memory", "memory.memsw.limit_in_bytes", "memory.swap.max"); got != "134217728" && got != "67108864" {
		t.Error("swap", got)
	}
	if got := read("pids", "pids.max", "pids.max"); got != "44" {
		t.Error("pids", got)
	}
	if got := read("cpu", "cpu.cfs_quota_us", "cpu.max"); !strings.HasPrefix(got, "20000") {
		t.Error("quota", got)
	}
	// A quota that is below the old period's minimum at first.
	b.want(0, "", "update", "--cpu-period", "1000000", "--cpu-quota", "2000000", "c1")
	b.want(0, "", "update", "--cpu-period", "2000", "--cpu-quota", "1500", "c1")
	if got := read("cpu", "cpu.cfs_period_us", "cpu.max"); !strings.HasSuffix(got, "2000") {
		t.Error("period", got)
	}
	file := filepath.Join(b.bundle, "resources")
	if err := os.WriteFile(file, []byte(`{"pids":{"limit":-1}}`), 0o644); err != nil {
		t.Fatal(err)
	}
	b.want(0, "", "update", "-r", file, "c1")
	if got := read("pids", "pids.max", "pids.max"); got != "max" {
		t.Error("pids", got)
	}
	// A period alone leaves the quota.
	b.want(0, "", "update", "--cpu-period", "4000", "c1")
	if got := read("cpu", "cpu.cfs_quota_us", "cpu.max"); !strings.HasPrefix(got, "1500") {
		t.Error("quota after the period", got)
	}
	b.want(1, "without intelRdt", "update", "--l3-cache-schema", "L3:0=1", "c1")
	b.want(1, "", "update", "--memory", "12q", "c1")
}

// TestUnified: limits of cgroup v2 are in the files that the specification
// names or means, at the start and after an update.
func TestUnified(t *testing.T) {
	b := newBox(t, "sleep", "100")
	h, err := cgroup.Detect()
	if err != nil {
		t.Fatal(err)
	}
	if !h.V2 {
		t.Skip("this host has cgroup v1")
	}
	has := func(file string) bool {
		found, _ := filepath.Glob(h.Unified().Dir("*/" + file))
		return len(found) > 0
	}
	disk := anyDisk(t)
	major, minor, _ := strings.Cut(disk, ":")
	weight, weights := "io.weight", [2]string{"default 2930", "default 4950"}
	if has("io.bfq.weight") {
		weight, weights = "io.bfq.weight", [2]string{"default 300", "default 500"}
	}
	resources := func(high, rate, weigh, huge string) string {
		text := `{"unified": {"memory.high": "` + high + `", "io.max": "` + disk + ` wbps=` + rate + `"}, "cpu": {"burst": 5000, "quota": 20000, "mems": "0"},
			"blockIO": {"throttleReadIOPSDevice": [{"major": ` + major + `, "minor": ` + minor + `, "rate": 100}]`
		if has(weight) {
			text += `, "weight": ` + weigh
		}
		text += "}"
		if has("hugetlb.2MB.max") {
			text += `, "hugepageLimits": [{"pageSize": "2MB", "limit": ` + huge + `}]`
		}
		return text + "}"
	}
	if err := json.Unmarshal([]byte(resources("50331648", "1048576", "300", "4194304")), b.spec.Linux.Resources); err != nil {
		t.Fatal(err)
	}
	b.write()
	b.want(0, "", "run", "-d", "-b", b.bundle, "c1")
	t.Cleanup(func() { b.run("delete", "--force", "c1") })
	check := func(when string, want map[string]string) {
		t.Helper()
		for file, value := range want {
			if optional := file == weight || strings.HasPrefix(file, "hugetlb."); optional && !has(file) {
				continue // a kernel without
			}
			text, err := os.ReadFile(filepath.Join(h.Unified().Dir(b.spec.Linux.CgroupsPath), file))
			if got := strings.TrimSpace(string(text)); err != nil || got != value {
				t.Errorf("%s: %s has %q (%v), want %q", when, file, got, err, value)
			}
		}
	}
	check("started", map[string]string{
		"memory.high": "50331648", "io.max": disk + " rbps=max wbps=1048576 riops=100 wiops=max", weight: weights[0],
		"hugetlb.2MB.max": "4194304", "hugetlb.2MB.rsvd.max": "4194304", "cpu.max": "20000 100000", "cpu.max.burst": "5000", "cpuset.mems": "0",
	})
	file := filepath.Join(b.bundle, "resources")
	update := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	update(resources("33554432", "max", "500", "2097152"))
	b.want(0, "", "update", "-r", file, "c1")
	check("updated", map[string]string{
		"memory.high": "33554432", "io.max": disk + " rbps=max wbps=max riops=100 wiops=max", weight: weights[1],
		"hugetlb.2MB.max": "2097152",
	})
	update(`{"unified": {"memory.nope": "1"}}`)
	b.want(1, "set memory.nope: this kernel has no such limit", "update", "-r", file, "c1")
	update(`{"blockIO": {"weightDevice": [{"major": ` + major + `, "minor": ` + minor + `, "weight": 200}]}}`)
	if out, code := b.run("update", "-r", file, "c1"); code == 0 {
		text, _ := os.ReadFile(filepath.Join(h.Unified().Dir(b.spec.Linux.CgroupsPath), weight))
		if !strings.Contains(string(text), disk+" ") {
			t.Errorf("weight of a device: %s", text)
		}
	} else if !strings.Contains(out, "the device has not the scheduler bfq or io.cost") && !strings.Contains(out, "this kernel has no such limit") {
		t.Error("weight of a device:", out)
	}
	b.want(0, "", "update", "--cpu-idle", "1", "c1")
	check("idle", map[string]string{"cpu.idle": "1"})
	b.want(0, "", "update", "--cpu-idle", "0", "c1")
	check("idle no more", map[string]string{"cpu.idle": "0", "cpu.weight": "100"})
	b.want(0, "", "update", "--cpu-idle", "1", "c1")
	b.want(0, "", "update", "--cpu-idle", "0", "--cpu-share", "2048", "c1")
	check("with a weight again", map[string]string{"cpu.idle": "0", "cpu.weight": "174"})
}

// anyDisk is the number of a disk of this machine.
func anyDisk(t *testing.T) string {
	t.Helper()
	disks, err := filepath.Glob("/sys/block/*/dev")
	if err != nil || len(disks) == 0 {
		t.Skip("this machine has no disk")
	}
	text, err := os.ReadFile(disks[0])
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(text))
}

// below makes a cgroup "sub" in each of the container's and returns their paths.
func (b *box) below(h *cgroup.Host) (paths []string) {
	b.t.Helper()
	for i := range h.All {
		dir := h.All[i].Dir(b.spec.Linux.CgroupsPath)
		if err := os.Mkdir(filepath.Join(dir, "sub"), 0o755); err != nil {
			b.t.Fatal(err)
		}
		if h.All[i].Has("cpuset") {
			for _, f := range []string{"cpuset.cpus", "cpuset.mems"} {
				text, _ := os.ReadFile(filepath.Join(dir, f))
				if err := os.WriteFile(filepath.Join(dir, "sub", f), text, 0); err != nil {
					b.t.Fatal(err)
				}
			}
		}
		paths = append(paths, b.spec.Linux.CgroupsPath+"/sub")
	}
	return paths
}

// TestKillAll: what a container without a PID namespace has in its cgroup and
// below is killed whole while it forks.
func TestKillAll(t *testing.T) {
	b := newBox(t, "sleep", "100")
	b.spec.Linux.Namespaces = slices.DeleteFunc(b.spec.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.PIDNamespace })
	b.write()
	h, err := cgroup.Detect()
	if err != nil {
		t.Fatal(err)
	}
	path := b.spec.Linux.CgroupsPath
	t.Cleanup(func() { b.run("delete", "--force", "c1") })
	for _, command := range [][]string{{"kill", "--all", "c1", "KILL"}, {"delete", "--force", "c1"}} {
		b.want(0, "", "run", "-d", "-b", b.bundle, "c1")
		b.below(h)
		const forks = `trap "" TERM; for i in 1 2 3 4 5; do while :; do sleep 0.01; done & done; sleep 100`
		b.want(0, "", "exec", "-d", "c1", "sh", "-c", forks)
		b.want(0, "", "exec", "-d", "--cgroup", "sub", "c1", "sh", "-c", forks)
		count := func() int {
			pids, _ := h.Pids(path)
			return len(pids)
		}
		testenv.Eventually(t, "they fork", func() bool { return count() > 12 })
		b.want(0, "", command...)
		testenv.Eventually(t, "all are dead", func() bool { return count() == 0 })
		b.want(0, "", "delete", "--force", "c1")
		if h.Exists(path) {
			t.Errorf("%v: the cgroup is left", command)
		}
	}
}

func TestExecCgroup(t *testing.T) {
	b := newBox(t, "sleep", "100")
	b.want(0, "", "run", "-d", "-b", b.bundle, "c1")
	t.Cleanup(func() { b.run("delete", "--force", "c1") })
	h, err := cgroup.Detect()
	if err != nil {
		t.Fatal(err)
	}
	want := b.below(h)
	// The host's view, by the process number.
	of := func(args ...string) []string {
		pidFile := filepath.Join(b.bundle, "exec-pid")
		b.want(0, "", append(append([]string{"exec", "-d", "--pid-file", pidFile}, args...), "c1", "sleep", "50")...)
		pid, _ := os.ReadFile(pidFile)
		text, err := os.ReadFile("/proc/" + string(pid) + "/cgroup")
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for line := range strings.Lines(string(text)) {
			f := strings.SplitN(strings.TrimSpace(line), ":", 3)
			if strings.HasPrefix(f[2], b.spec.Linux.CgroupsPath) {
				got = append(got, f[2])
			}
		}
		return got
	}
	if got := of("--cgroup", "sub"); !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	if !h.V2 {
		n := 0
		for _, p := range of("--cgroup", "pids,memory:sub") {
			if strings.HasSuffix(p, "/sub") {
				n++
			}
		}
		if n != 2 {
			t.Errorf("%d groups instead of 2", n)
		}
	}
	b.want(255, "leads out", "exec", "--cgroup", "../..", "c1", "true")
	b.want(255, "does not exist", "exec", "--cgroup", "nope", "c1", "true")
}

func TestSpecRootless(t *testing.T) {
	b := newBox(t, "true")
	dir := t.TempDir()
	b.want(0, "", "spec", "--rootless", "--bundle", dir)
	text, err := os.ReadFile(filepath.Join(dir, "config.json"))
	if err != nil {
		t.Fatal(err)
	}
	var s specs.Spec
	if err := json.Unmarshal(text, &s); err != nil {
		t.Fatal(err)
	}
	has := func(typ specs.LinuxNamespaceType) bool {
		return slices.ContainsFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == typ })
	}
	if has(specs.NetworkNamespace) || !has(specs.UserNamespace) || len(s.Linux.UIDMappings) != 1 || s.Linux.Resources != nil || strings.Contains(string(text), "gid=") {
		t.Errorf("%s", text)
	}
}

func TestRefusedCommands(t *testing.T) {
	b := newBox(t, "true")
	b.want(1, "checkpoint: checkpoints are not built", "checkpoint", "c1")
	b.want(1, "restore: checkpoints are not built", "restore", "c1")
	b.want(1, "want true, false or auto", "--rootless", "maybe", "list")
	b.want(1, "unknown log format", "--log-format", "xml", "list")
	b.spec.Version = "2.0.0"
	b.write()
	b.want(1, "version", "create", "-b", b.bundle, "c1")
}

func TestUmaskIsTheCallers(t *testing.T) {
	b := newBox(t, "sh", "-c", "umask")
	c := b.cmd("run", "-b", b.bundle, "c1")
	c.Path, c.Args = "/bin/sh", append([]string{"sh", "-c", `umask 027; exec "$@"`, "sh", "/proc/self/exe"}, c.Args[1:]...)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c.Args[4] = self
	out, err := c.CombinedOutput()
	if string(out) != "0027\n" {
		t.Errorf("%q %v", out, err)
	}
}
