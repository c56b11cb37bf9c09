package command

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/wherry-engine/wherry/ocirun/cgroup"
)

func systemctl(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command("systemctl", args...).CombinedOutput()
	if err != nil {
		t.Errorf("systemctl %v: %v: %s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

func TestSystemdCgroup(t *testing.T) {
	if comm, err := os.ReadFile("/proc/1/comm"); err != nil || string(comm) != "systemd\n" {
		t.Skip("needs systemd as the service manager")
	}
	b := newBox(t, "sh", "-c", "head -c 1 /dev/zero >/dev/null && echo z; sleep 100")
	h, err := cgroup.Detect()
	if err != nil {
		t.Fatal(err)
	}
	limit, pids, quota, period := int64(64<<20), int64(40), int64(20000), uint64(100000)
	_, noTime := os.Stat("/sys/fs/cgroup/init.scope/cpu.max") // a kernel without such limits
	hasTime := !h.V2 || noTime == nil
	b.spec.Linux.Resources.Memory = &specs.LinuxMemory{Limit: &limit}
	b.spec.Linux.Resources.Pids = &specs.LinuxPids{Limit: &pids}
	if hasTime {
		b.spec.Linux.Resources.CPU = &specs.LinuxCPU{Quota: &quota, Period: &period}
	}
	b.spec.Linux.CgroupsPath = "wherrytest-sub.slice:pre:c1"
	b.write()
	const unit, path = "pre-c1.scope", "/wherrytest.slice/wherrytest-sub.slice/pre-c1.scope"
	pidFile := filepath.Join(b.bundle, "pid")
	b.want(0, "", "--systemd-cgroup", "run", "-d", "--pid-file", pidFile, "-b", b.bundle, "c1")
	t.Cleanup(func() { b.run("delete", "--force", "c1") })
	pid, _ := os.ReadFile(pidFile)
	groups, err := os.ReadFile("/proc/" + string(pid) + "/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(groups)) {
		// Hierarchies that systemd alone has mounted are its own affair.
		if !strings.HasSuffix(strings.TrimSpace(line), path) {
			t.Errorf("not in the scope: %s", line)
		}
	}
	read := func(controller, v1, v2 string) string {
		hi, file := h.Unified(), v2
		if !h.V2 {
			hi, file = h.V1(controller), v1
		}
		text, err := os.ReadFile(filepath.Join(hi.Dir(path), file))
		if err != nil {
			t.Error(err)
		}
		return strings.TrimSpace(string(text))
	}
	check := func(when, memory, tasks string) {
		t.Helper()
		if got := read("memory", "memory.limit_in_bytes", "memory.max"); got != memory {
			t.Errorf("%s: memory %s", when, got)
		}
		if got := read("pids", "pids.max", "pids.max"); got != tasks {
			t.Errorf("%s: processes %s", when, got)
		}
		if hasTime {
			if got := read("cpu", "cpu.cfs_quota_us", "cpu.max"); !strings.HasPrefix(got, "20000") {
				t.Errorf("%s: processor time %s", when, got)
			}
		}
		// Denied by the rules of devices, and those allowed still are.
		b.want(0, "ok", "exec", "c1", "sh", "-c", "echo x > /dev/null && echo ok")
		if !h.V2 {
			if list := read("devices", "devices.list", ""); strings.Contains(list, "a *:*") || !strings.Contains(list, "c 1:3 rwm") {
				t.Errorf("%s: devices %q", when, list)
			}
		}
	}
	check("started", "67108864", "40")
	if got := systemctl(t, "show", "-P", "Delegate", unit); got != "yes" {
		t.Error("Delegate:", got)
	}
	systemctl(t, "daemon-reload")
	check("reloaded", "67108864", "40")
	b.want(0, "", "update", "--memory", "32M", "--pids-limit", "30", "c1")
	systemctl(t, "daemon-reload")
	check("updated and reloaded", "33554432", "30")
	b.want(0, "", "kill", "c1", "KILL")
	b.waitStopped()
	b.want(0, "", "delete", "c1")
	if got, _ := exec.Command("systemctl", "is-active", unit).Output(); strings.TrimSpace(string(got)) == "active" {
		t.Error("the unit is there still")
	}
	for i := range h.All {
		if _, err := os.Stat(h.All[i].Dir(path)); err == nil {
			t.Error("left behind:", h.All[i].Dir(path))
		}
	}
	// A container that cannot be made leaves no unit.
	b.spec.Process.Args = []string{"/nope"}
	b.write()
	b.want(1, "no such file", "--systemd-cgroup", "run", "-b", b.bundle, "c1")
	if got, _ := exec.Command("systemctl", "is-active", unit).Output(); strings.TrimSpace(string(got)) == "active" {
		t.Error("the unit is there still")
	}
}

func TestSystemdAbsent(t *testing.T) {
	if _, err := os.Stat("/run/systemd/system"); err == nil {
		t.Skip("systemd is here")
	}
	b := newBox(t, "true")
	b.spec.Linux.CgroupsPath = "x.slice:pre:c1"
	b.write()
	b.want(1, "systemd is not the service manager", "--systemd-cgroup", "run", "-b", b.bundle, "c1")
	if left, _ := os.ReadDir(b.root); len(left) > 0 {
		t.Error(left)
	}
}
