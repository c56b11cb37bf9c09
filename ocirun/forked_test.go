package ocirun

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/ocirun/cgroup"
	"github.com/wherry-engine/wherry/ocirun/wire"
)

// standing returns the one init that stands by.
func standing(t *testing.T, r *Runtime) *spawned {
	t.Helper()
	r.standby.mu.Lock()
	defer r.standby.mu.Unlock()
	if len(r.standby.ready) != 1 {
		t.Fatal(len(r.standby.ready), "inits stand by")
	}
	return r.standby.ready[0]
}

// TestForkedDiesAfterExecve: an init that its own filter kills while it tells that
// the program could not be executed has left the memory it borrowed in disorder.
// The init that it is of must not go on.
func TestForkedDiesAfterExecve(t *testing.T) {
	r := newRuntime(t)
	root := busyboxRoot(t)
	if err := os.WriteFile(filepath.Join(root, "bin/broken"), []byte("#!/missing\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	f := standing(t, r)
	req := sh(root, "")
	req.Spec.Process.Args = []string{"/bin/broken"}
	req.Spec.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: []string{"sendmsg"}, Action: specs.ActKillProcess}}}
	if res, err := run(t, r, req); err != nil || res.code != 128+int(unix.SIGSYS) {
		t.Error(res, err)
	}
	if code := wait(t, f.pidfd); code != 1 { // which is not that of a panic
		t.Error("the init that stood by ended with", code)
	}
	mustRun(t, r, sh(root, "true"))
}

// TestForkedSignalMask: no signal is blocked, even if the filter forbids to change that.
func TestForkedSignalMask(t *testing.T) {
	r := newRuntime(t)
	req := sh(busyboxRoot(t), "grep SigBlk /proc/self/status")
	req.Spec.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: []string{"rt_sigprocmask"}, Action: specs.ActErrno}}}
	if res := mustRun(t, r, req); !strings.HasSuffix(res.out, "\t0000000000000000\n") {
		t.Error(res)
	}
	if r.standby.used != 1 {
		t.Error("not forked")
	}
}

// TestForkedCopyUp: directories as deep as they may be need no more stack than there is.
func TestForkedCopyUp(t *testing.T) {
	r := newRuntime(t)
	root := busyboxRoot(t)
	deep := "/tmp" + strings.Repeat("/d", 60)
	if err := os.MkdirAll(root+deep, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(root+deep+"/file", []byte("below\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	f := standing(t, r)
	req := sh(root, "cat "+deep+"/file")
	req.Spec.Mounts = append(req.Spec.Mounts, specs.Mount{Destination: "/tmp", Type: "tmpfs", Source: "tmpfs", Options: []string{"tmpcopyup"}})
	if res := mustRun(t, r, req); res.out != "below\n" {
		t.Error(res)
	}
	if standing(t, r) != f {
		t.Error("the init that stood by is gone")
	}
}

// TestForkedLargeConfig: an exec whose configuration nobody reads can be given up.
func TestForkedLargeConfig(t *testing.T) {
	r := newRuntime(t)
	req := sh(busyboxRoot(t), "exec sleep 600")
	c := start(t, r, req)
	unready(r)
	standBy(r)
	f := standing(t, r)
	if err := unix.PidfdSendSignal(int(f.pidfd.Fd()), unix.SIGSTOP, nil, 0); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	p := *req.Spec.Process
	p.Args = []string{"true"}
	p.Env = append(p.Env, "X="+strings.Repeat("x", 1<<20))
	if _, err := r.Exec(ctx, &ExecRequest{Pid: c.Pid, PidFD: c.PidFD, Spec: req.Spec, Process: &p, Cgroup: c.Cgroup}); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}

// TestBornIntoSmallMemory: an init may not be born where what a Go program takes to start is
// more than there is, for none may stand by.
func TestBornIntoSmallMemory(t *testing.T) {
	limit := int64(1 << 20)
	r, b, p := &Runtime{cgroups: &cgroup.Host{V2: true}}, &birth{fork: true}, &plan{}
	if err := r.cgroupsAtBirth(b, p, "/none", &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit}}); err != nil || b.cgroup != "" || !p.enterLater {
		t.Error(b.cgroup, p.enterLater, err)
	}
}

// TestNotForked: what must not share memory with others does not.
func TestNotForked(t *testing.T) {
	plain := func() *specs.Spec { return testSpec("/", "true") }
	own := &plan{clone: unix.CLONE_NEWPID}
	for name, tt := range map[string]struct {
		want   bool
		plan   *plan
		change func(*specs.Process)
	}{
		"plain":            {true, own, func(*specs.Process) {}},
		"address space":    {false, own, func(p *specs.Process) { p.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_AS"}} }},
		"data":             {false, own, func(p *specs.Process) { p.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_DATA"}} }},
		"another's limits": {true, own, func(p *specs.Process) { p.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE"}} }},
		"others' PIDs":     {false, &plan{}, func(*specs.Process) {}},
	} {
		spec := plain()
		tt.change(spec.Process)
		if got := forkable(&CreateRequest{Spec: spec}, tt.plan); got != tt.want {
			t.Errorf("%s: forkable is %v", name, got)
		}
	}
	tracing := &specs.Process{Capabilities: &specs.LinuxCapabilities{Bounding: []string{"CAP_SYS_PTRACE"}}}
	for name, tt := range map[string]struct {
		want            bool
		container, exec *specs.Process
	}{
		"plain":     {true, plain().Process, plain().Process},
		"container": {false, tracing, plain().Process},
		"exec":      {false, plain().Process, tracing},
	} {
		req := &ExecRequest{Spec: &specs.Spec{Process: tt.container}, Process: tt.exec}
		if got := execForkable(req, &wire.Config{}); got != tt.want {
			t.Errorf("exec, %s: forkable is %v", name, got)
		}
	}
}
