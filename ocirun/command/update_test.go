package command

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

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
	b.want(1, "without intelRdt", "update", "--l3-cache-schema", "L3:0=1", "c1")
	b.want(1, "", "update", "--memory", "12q", "c1")
}

func TestExecCgroup(t *testing.T) {
	b := newBox(t, "sleep", "100")
	b.want(0, "", "run", "-d", "-b", b.bundle, "c1")
	t.Cleanup(func() { b.run("delete", "--force", "c1") })
	h, err := cgroup.Detect()
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for i := range h.All {
		dir := h.All[i].Dir(b.spec.Linux.CgroupsPath)
		if err := os.Mkdir(filepath.Join(dir, "sub"), 0o755); err != nil {
			t.Fatal(err)
		}
		if h.All[i].Has("cpuset") {
			for _, f := range []string{"cpuset.cpus", "cpuset.mems"} {
				text, _ := os.ReadFile(filepath.Join(dir, f))
				if err := os.WriteFile(filepath.Join(dir, "sub", f), text, 0); err != nil {
					t.Fatal(err)
				}
			}
		}
		want = append(want, b.spec.Linux.CgroupsPath+"/sub")
	}
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
	b.want(1, "leads out", "exec", "--cgroup", "../..", "c1", "true")
	b.want(1, "does not exist", "exec", "--cgroup", "nope", "c1", "true")
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
