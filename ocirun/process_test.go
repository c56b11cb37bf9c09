package ocirun

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// attributesOf reads what the kernel says of a container's process from outside.
func attributesOf(t *testing.T, pid int) string {
	t.Helper()
	const whoProcess = 1
	prio, _, errno := unix.Syscall(unix.SYS_IOPRIO_GET, whoProcess, uintptr(pid), 0)
	if errno != 0 {
		t.Fatal(errno)
	}
	attr, err := unix.SchedGetAttr(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, cpus, _ := strings.Cut(string(status), "Cpus_allowed_list:\t")
	cpus, _, _ = strings.Cut(cpus, "\n")
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/numa_maps", pid))
	if err != nil {
		t.Fatal(err)
	}
	policy := "none"
	if f := strings.Fields(string(maps)); len(f) > 1 {
		policy = f[1]
	}
	return fmt.Sprintf("ioprio %d:%d sched %d nice %d flags %d cpus %s numa %s", prio>>13, prio&7, attr.Policy, attr.Nice, attr.Flags, cpus, policy)
}

func TestScheduling(t *testing.T) {
	r := newRuntime(t)
	root := busyboxRoot(t)
	req := sh(root, "exec sleep 60")
	p := req.Spec.Process
	p.IOPriority = &specs.LinuxIOPriority{Class: specs.IOPRIO_CLASS_BE, Priority: 6}
	p.Scheduler = &specs.Scheduler{Policy: specs.SchedBatch, Nice: 5, Flags: []specs.LinuxSchedulerFlag{specs.SchedFlagResetOnFork}}
	p.ExecCPUAffinity = &specs.CPUAffinity{Final: "0"} // not for the first process
	req.Spec.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{Mode: specs.MpolBind, Nodes: "0", Flags: []specs.MemoryPolicyFlagType{specs.MpolFStaticNodes}}
	c := start(t, r, req)
	cpus := ownCPUs(t)
	want := "ioprio 2:6 sched 3 nice 5 flags 1 cpus " + cpus + " numa bind=static:0"
	if got := attributesOf(t, c.Pid); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	ours, err := unix.SchedGetAttr(0, 0)
	if err != nil {
		t.Fatal(err)
	}
	plain := fmt.Sprintf("ioprio 2:6 sched 0 nice %d flags 0 cpus 0 numa bind=static:0", ours.Nice)
	for _, tt := range []struct {
		name, initial, final, want string
		scheduler                  bool
	}{
		{"forked", "", "0", plain, false},
		{"both", cpus, "0", plain, false},
		{"scheduler", "", "", want, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := *req.Spec.Process
			p.Args = []string{"sleep", "60"}
			p.ExecCPUAffinity = &specs.CPUAffinity{Initial: tt.initial, Final: tt.final}
			if !tt.scheduler {
				p.Scheduler = nil
			}
			proc, err := r.Exec(t.Context(), &ExecRequest{Pid: c.Pid, PidFD: c.PidFD, Spec: req.Spec, Process: &p, Cgroup: c.Cgroup})
			if err != nil {
				t.Fatal(err)
			}
			defer proc.PidFD.Close()
			if got := attributesOf(t, proc.Pid); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
			_ = unix.PidfdSendSignal(int(proc.PidFD.Fd()), unix.SIGKILL, nil, 0)
			wait(t, proc.PidFD)
		})
	}
}

// TestAffinityToNothing: the error names what there is none of.
func TestAffinityToNothing(t *testing.T) {
	r := newRuntime(t)
	req := sh(busyboxRoot(t), "exec sleep 60")
	c := start(t, r, req)
	for _, a := range []specs.CPUAffinity{{Initial: "8000-8190"}, {Final: "8000"}} {
		p := *req.Spec.Process
		p.Args, p.ExecCPUAffinity = []string{"true"}, &a
		_, err := r.Exec(t.Context(), &ExecRequest{Pid: c.Pid, PidFD: c.PidFD, Spec: req.Spec, Process: &p, Cgroup: c.Cgroup})
		if err == nil || !strings.Contains(err.Error(), "processor 8000") {
			t.Errorf("%+v: %v", a, err)
		}
	}
}

// ownCPUs are the processors that this process may use, and its children.
func ownCPUs(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, cpus, _ := strings.Cut(string(b), "Cpus_allowed_list:\t")
	cpus, _, _ = strings.Cut(cpus, "\n")
	return cpus
}

func TestLabelsTheKernelLacks(t *testing.T) {
	r := newRuntime(t)
	root := busyboxRoot(t)
	for _, tt := range []struct {
		name   string
		has    bool
		change func(*specs.Spec)
	}{
		{"SELinux label", selinux(), func(s *specs.Spec) { s.Process.SelinuxLabel = "system_u:system_r:container_t:s0" }},
		{"mountLabel", selinux(), func(s *specs.Spec) { s.Linux.MountLabel = "system_u:object_r:container_file_t:s0" }},
		{"AppArmor profile", appArmor(), func(s *specs.Spec) { s.Process.ApparmorProfile = "wherry-test" }},
	} {
		req := sh(root, "true")
		tt.change(req.Spec)
		if tt.has {
			continue // tested where they can be set
		}
		if _, err := run(t, r, req); !errdefs.IsNotImplemented(err) || !strings.Contains(err.Error(), tt.name) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}
