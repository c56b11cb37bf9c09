package ocirun

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	"github.com/moby/profiles/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// start makes a container that runs until the test ends.
func start(t testing.TB, r *Runtime, req *CreateRequest) *Container {
	t.Helper()
	if req.ID == "" {
		req.ID = testID(t)
	}
	c, err := r.Create(context.Background(), req)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = unix.PidfdSendSignal(int(c.PidFD.Fd()), unix.SIGKILL, nil, 0)
		wait(t, c.PidFD)
		c.PidFD.Close()
		if c.Console != nil {
			c.Console.Close()
		}
		remove(t, r, c)
	})
	return c
}

func execIn(t testing.TB, r *Runtime, c *Container, spec *specs.Spec, change func(*ExecRequest), args ...string) (result, error) {
	t.Helper()
	pr, pw, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer pr.Close()
	p := *spec.Process
	p.Args = args
	req := &ExecRequest{Pid: c.Pid, PidFD: c.PidFD, Spec: spec, Process: &p, Cgroup: c.Cgroup, Stdout: pw, Stderr: pw}
	if change != nil {
		change(req)
	}
	proc, err := r.Exec(context.Background(), req)
	pw.Close()
	if err != nil {
		return result{}, err
	}
	defer proc.PidFD.Close()
	out, _ := io.ReadAll(pr)
	return result{string(out), wait(t, proc.PidFD)}, nil
}

func TestExec(t *testing.T) {
	t.Run("by an init standing by", func(t *testing.T) {
		r := newRuntime(t)
		testExec(t, r, func() { standBy(r) })
		if r.standby.used < 20 {
			t.Errorf("used %d times only", r.standby.used)
		}
	})
	t.Run("by a fresh init", func(t *testing.T) {
		r := newRuntime(t)
		r.noStandby = true
		testExec(t, r, func() {})
	})
}

func testExec(t *testing.T, r *Runtime, prepare func()) {
	root := busyboxRoot(t)
	req := sh(root, "")
	req.Spec.Process.Args = []string{"/bin/sleep", "60"}
	mem := int64(64 << 20)
	req.Spec.Linux.Resources.Memory = &specs.LinuxMemory{Limit: &mem}
	req.Spec.Linux.Namespaces = append(req.Spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.CgroupNamespace})
	var err error
	if req.Spec.Linux.Seccomp, err = seccomp.GetDefaultProfile(req.Spec); err != nil {
		t.Fatal(err)
	}
	c := start(t, r, req)
	for _, tt := range []struct {
		name   string
		change func(*ExecRequest)
		script string
		want   string
		code   int
	}{
		{"basics", nil, "hostname; pwd; id; readlink /proc/1/exe; exit 5", "box\n/\nuid=0(root) gid=0(root)\n/bin/busybox\n", 5},
		{"namespaces", nil, "for n in pid mnt uts ipc net cgroup; do [ $(readlink /proc/1/ns/$n) = $(readlink /proc/self/ns/$n) ] || echo $n; done", "", 0},
		{"cgroups", nil, "grep -v ':/$' /proc/self/cgroup", "", 1},
		{"security", nil, "grep -E 'CapEff|CapBnd|Seccomp:' /proc/self/status", "CapEff:\t00000000a80425fb\nCapBnd:\t00000000a80425fb\nSeccomp:\t2\n", 0},
		{"descriptors", nil, "ls /proc/self/fd", "0\n1\n2\n3\n", 0},
		{"user", func(q *ExecRequest) { q.ResolveUser, q.User = true, "1000" }, "id; echo $HOME", "uid=1000(app) gid=1001(appgrp) groups=44(video),50(staff),1001(appgrp)\n/home/app\n", 0},
		{"working directory", func(q *ExecRequest) { q.Process.Cwd = "/home/app" }, "pwd", "/home/app\n", 0},
		{"no new privileges", func(q *ExecRequest) { q.Process.NoNewPrivileges = true }, "grep -E 'NoNewPrivs|Seccomp:' /proc/self/status", "NoNewPrivs:\t1\nSeccomp:\t2\n", 0},
		{"ambient capabilities", func(q *ExecRequest) {
			q.ResolveUser, q.User = true, "app"
			c := *q.Process.Capabilities
			c.Inheritable, c.Ambient = []string{"CAP_NET_RAW"}, []string{"CAP_NET_RAW"}
			q.Process.Capabilities = &c
		}, "grep -E 'Cap(Prm|Eff|Amb)' /proc/self/status", "CapPrm:\t0000000000002000\nCapEff:\t0000000000002000\nCapAmb:\t0000000000002000\n", 0},
		{"limits", func(q *ExecRequest) {
			adj := 77
			q.Process.OOMScoreAdj = &adj
			q.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 50, Hard: 60}}
		}, "ulimit -n; cat /proc/self/oom_score_adj", "50\n77\n", 0},
		{"session", nil, "[ $(cut -d' ' -f6 /proc/$$/stat) = $$ ] && echo leader; grep -E 'SigBlk' /proc/self/status", "leader\nSigBlk:\t0000000000000000\n", 0},
		{"orphan's parent", nil, "grep PPid /proc/self/status", "PPid:\t0\n", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			script := tt.script
			if tt.name == "orphan's parent" {
				script = "exec " + script
			}
			prepare()
			res, err := execIn(t, r, c, req.Spec, tt.change, "sh", "-c", script)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(result{tt.want, tt.code}, res, cmp.AllowUnexported(result{})); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
	t.Run("not found", func(t *testing.T) {
		for range 20 {
			prepare()
			_, err := execIn(t, r, c, req.Spec, nil, "foo")
			var se *StartError
			if !errors.As(err, &se) || se.Code != 127 || se.Msg != `exec: "foo": executable file not found in $PATH` {
				t.Fatalf("got %v", err)
			}
		}
	})
	t.Run("working directory that is not there", func(t *testing.T) {
		prepare()
		_, err := execIn(t, r, c, req.Spec, func(q *ExecRequest) { q.Process.Cwd = "/srv/new" }, "pwd")
		var se *StartError
		if !errors.As(err, &se) || se.Code != 126 || !strings.Contains(se.Msg, `chdir to cwd ("/srv/new") set in config.json failed: no such file`) {
			t.Errorf("got %v", err)
		}
		if _, err := os.Lstat(filepath.Join(root, "srv")); err == nil {
			t.Error("it was made")
		}
	})
	t.Run("working directory of the host", func(t *testing.T) {
		for _, dir := range []string{"/proc/self/fd/3", "/proc/self/fd/4", "/proc/self/fd/5", "/proc/self/fd/6", "/proc/self/fd/7", "/proc/self/fd/8", "/proc/self/fd/9"} {
			prepare()
			res, err := execIn(t, r, c, req.Spec, func(q *ExecRequest) { q.Process.Cwd = dir }, "ls")
			if err == nil {
				t.Errorf("%s: no error, %+v", dir, res)
			}
		}
	})
}

// TestExecWithFiles takes the way of an init inside of the container.
func TestExecWithFiles(t *testing.T) {
	r := newRuntime(t)
	root := busyboxRoot(t)
	req := sh(root, "exec sleep 60")
	c := start(t, r, req)
	pr, pw, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer pr.Close()
	_, _ = pw.WriteString("three\n")
	pw.Close()
	res, err := execIn(t, r, c, req.Spec, func(q *ExecRequest) { q.ExtraFiles = []*os.File{pr} }, "sh", "-c",
		"ls /proc/self/fd; cat <&3; hostname; grep -c ocirun-test /proc/self/cgroup; for n in pid mnt uts ipc net cgroup; do [ $(readlink /proc/1/ns/$n) = $(readlink /proc/self/ns/$n) ] || echo $n; done; exit 6")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(res.out, "0\n1\n2\n3\n4\nthree\nbox\n") || res.code != 6 || strings.Contains(res.out, "pid") {
		t.Errorf("%+v", res)
	}
}

// TestExecIntoBusyCgroup: a container that uses up all of its little processor
// time slows down its own execs, and nothing else of this process.
func TestExecIntoBusyCgroup(t *testing.T) {
	r := newRuntime(t)
	root := busyboxRoot(t)
	needsCPULimits(t, r)
	quota, period := int64(10000), uint64(100000)
	req := sh(root, "while :; do :; done")
	req.Spec.Linux.Resources.CPU = &specs.LinuxCPU{Quota: &quota, Period: &period}
	c := start(t, r, req)
	stop, worst := make(chan struct{}), make(chan time.Duration)
	go func() {
		var most time.Duration
		for {
			begin := time.Now()
			runtime.GC() // stops the world
			pr, pw, err := os.Pipe()
			if err == nil {
				pr.Close()
				pw.Close()
			}
			most = max(most, time.Since(begin))
			select {
			case <-stop:
				worst <- most
				return
			default:
			}
		}
	}()
	for range 2 {
		if res, err := execIn(t, r, c, req.Spec, nil, "true"); err != nil || res.code != 0 {
			t.Error(res, err)
		}
	}
	close(stop)
	t.Log("longest pause:", <-worst)
}

func TestExecStopped(t *testing.T) {
	r := newRuntime(t)
	root := busyboxRoot(t)
	spec := testSpec(root, "true")
	c, err := r.Create(context.Background(), &CreateRequest{ID: testID(t), Spec: spec})
	if err != nil {
		t.Fatal(err)
	}
	defer c.PidFD.Close()
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	wait(t, c.PidFD)
	for range 3 { // by a fresh init, and then by one standing by
		_, err = execIn(t, r, c, spec, nil, "true")
		if !errors.Is(err, errdefs.ErrFailedPrecondition) {
			t.Errorf("got %v", err)
		}
		r.standby.work.Wait()
	}
	remove(t, r, c)
}

func TestTerminal(t *testing.T) {
	r := newRuntime(t)
	root := busyboxRoot(t)
	req := sh(root, "tty; stty size; ls -l /dev/console | grep -c 'c.*136'; stat -c %u $(tty); exec sleep 60")
	req.Spec.Process.Terminal = true
	req.Width, req.Height = 91, 33
	req.ResolveUser, req.User = true, "app"
	c := start(t, r, req)
	want := "/dev/pts/0\r\n33 91\r\n1\r\n1000\r\n"
	if got := readConsole(t, c.Console, len(want)); got != want {
		t.Errorf("got %q", got)
	}
	spec := *req.Spec
	p := *spec.Process
	p.Args = []string{"sh", "-c", "tty; stty size; read x; echo got $x"}
	proc, err := r.Exec(context.Background(), &ExecRequest{Pid: c.Pid, PidFD: c.PidFD, Spec: &spec, Process: &p, Cgroup: c.Cgroup, Width: 50, Height: 20})
	if err != nil {
		t.Fatal(err)
	}
	defer proc.PidFD.Close()
	defer proc.Console.Close()
	want = "/dev/pts/1\r\n20 50\r\n"
	if got := readConsole(t, proc.Console, len(want)); got != want {
		t.Errorf("got %q", got)
	}
	if _, err := proc.Console.WriteString("word\n"); err != nil {
		t.Fatal(err)
	}
	want = "word\r\ngot word\r\n"
	if got := readConsole(t, proc.Console, len(want)); got != want {
		t.Errorf("got %q", got)
	}
	if code := wait(t, proc.PidFD); code != 0 {
		t.Error("exit code", code)
	}
}

// TestTerminalAfterMounts: a descriptor that was passed for a mount is closed once,
// whatever gets its number next.
func TestTerminalAfterMounts(t *testing.T) {
	r := newRuntime(t)
	req := sh(busyboxRoot(t), "tty")
	req.Spec.Process.Terminal = true
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	for i := range 4 {
		req.Spec.Mounts = append(req.Spec.Mounts, specs.Mount{
			Destination: fmt.Sprintf("/mnt%d", i), Type: "bind", Source: dir, Options: []string{"bind", subpathOption + "sub"},
		})
	}
	c := start(t, r, req)
	want := "/dev/pts/0\r\n"
	if got := readConsole(t, c.Console, len(want)); got != want {
		t.Errorf("got %q", got)
	}
}

func TestTerminalWithInit(t *testing.T) {
	r := newRuntime(t)
	root := busyboxRoot(t)
	req := sh(root, "tty; exec cat")
	req.Spec.Process.Terminal = true
	req.Init = true
	c := start(t, r, req)
	want := "/dev/pts/0\r\n"
	if got := readConsole(t, c.Console, len(want)); got != want {
		t.Errorf("got %q", got)
	}
	// ^C reaches the program, which is in the foreground, and not only init.
	if _, err := c.Console.WriteString("\x03"); err != nil {
		t.Fatal(err)
	}
	if code := wait0(t, c.PidFD); code != 130 {
		t.Error("exit code", code)
	}
}

// wait0 waits without reaping.
func wait0(t *testing.T, pidfd *os.File) int {
	t.Helper()
	var si siginfo
	for {
		_, _ = unix.Poll([]unix.PollFd{{Fd: int32(pidfd.Fd()), Events: unix.POLLIN}}, 5000)
		_, _, errno := unix.Syscall6(unix.SYS_WAITID, unix.P_PIDFD, pidfd.Fd(), uintptrOf(&si), unix.WEXITED|unix.WNOWAIT, 0, 0)
		if errno == unix.EINTR {
			continue
		}
		if si.code == 1 {
			return int(si.status)
		}
		return 128 + int(si.status)
	}
}

func readConsole(t *testing.T, console *os.File, n int) string {
	t.Helper()
	if err := console.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, n)
	got, _ := io.ReadFull(console, buf)
	return string(buf[:got])
}

func TestPauseUpdateKill(t *testing.T) {
	r := newRuntime(t)
	root := busyboxRoot(t)
	ctx := context.Background()
	req := sh(root, "sleep 60 & sleep 60 & wait")
	c := start(t, r, req)
	if err := r.Pause(ctx, c.Cgroup); err != nil {
		t.Fatal(err)
	}
	if frozen, err := r.Paused(c.Cgroup); !frozen || err != nil {
		t.Error("not frozen:", err)
	}
	if err := r.Resume(ctx, c.Cgroup); err != nil {
		t.Fatal(err)
	}
	mem, pids := int64(16<<20), int64(33)
	err := r.Update(ctx, c.Cgroup, &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &mem}, Pids: &specs.LinuxPids{Limit: &pids}})
	if err != nil {
		t.Fatal(err)
	}
	if hi := r.cgroups.V1("pids"); hi != nil {
		b, _ := os.ReadFile(hi.Dir(c.Cgroup) + "/pids.max")
		if strings.TrimSpace(string(b)) != "33" {
			t.Errorf("pids.max is %q", b)
		}
	}
	all, err := r.Pids(c.Cgroup)
	if err != nil || len(all) == 0 {
		t.Error("pids", all, err)
	}
	if err := r.KillAll(c.Cgroup, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if code := wait0(t, c.PidFD); code != 137 {
		t.Error("exit code", code)
	}
}

func TestOOM(t *testing.T) {
	r := newRuntime(t)
	root := busyboxRoot(t)
	mem := int64(8 << 20)
	req := sh(root, "head -c 200m /dev/zero | tail; :")
	req.Spec.Process.Args = []string{"sh", "-c", "dd if=/dev/zero of=/dev/null bs=100M count=1"}
	req.Spec.Linux.Resources.Memory = &specs.LinuxMemory{Limit: &mem, Swap: &mem}
	c := start(t, r, req)
	wait0(t, c.PidFD)
	n, err := r.OOMKills(c.Cgroup)
	if err != nil || n == 0 {
		t.Error("OOM kills:", n, err)
	}
}

// TestMountOfAnotherContainer shares /dev/shm of one container with another.
func TestMountOfAnotherContainer(t *testing.T) {
	r := newRuntime(t)
	root := busyboxRoot(t)
	first := sh(root, "echo shared > /dev/shm/file; exec sleep 60")
	c := start(t, r, first)
	for range 500 {
		if _, err := os.Stat(fmt.Sprintf("/proc/%d/root/dev/shm/file", c.Pid)); err == nil {
			break
		}
		time.Sleep(2 * time.Millisecond)
	}
	second := sh(root, "cat /dev/shm/file; echo back > /dev/shm/answer")
	for i := range second.Spec.Mounts {
		if m := &second.Spec.Mounts[i]; m.Destination == "/dev/shm" {
			*m = specs.Mount{Destination: "/dev/shm", Type: "bind", Source: fmt.Sprintf("/proc/%d/root/dev/shm", c.Pid), Options: []string{"rbind", "rprivate", "nosuid", "noexec", "nodev"}}
		}
	}
	if res := mustRun(t, r, second); res.out != "shared\n" || res.code != 0 {
		t.Errorf("%+v", res)
	}
	if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/root/dev/shm/answer", c.Pid)); string(b) != "back\n" {
		t.Error(string(b), err)
	}
}

func BenchmarkExec(b *testing.B) {
	r := newRuntime(b)
	root := busyboxRoot(b)
	req := sh(root, "exec sleep 60")
	c := start(b, r, req)
	for b.Loop() {
		if res, err := execIn(b, r, c, req.Spec, nil, "/bin/true"); err != nil || res.code != 0 {
			b.Fatal(res, err)
		}
	}
}

// TestExecPaused: an exec in a paused container would wait for it half-way.
func TestExecPaused(t *testing.T) {
	r := newRuntime(t)
	root := busyboxRoot(t)
	req := sh(root, "exec sleep 60")
	c := start(t, r, req)
	if err := r.Pause(context.Background(), c.Cgroup); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	p := *req.Spec.Process
	p.Args = []string{"true"}
	_, err := r.Exec(ctx, &ExecRequest{Pid: c.Pid, PidFD: c.PidFD, Spec: req.Spec, Process: &p, Cgroup: c.Cgroup})
	if !errors.Is(err, errdefs.ErrFailedPrecondition) {
		t.Errorf("got %v", err)
	}
	if err := r.Resume(context.Background(), c.Cgroup); err != nil {
		t.Fatal(err)
	}
	if res, err := execIn(t, r, c, req.Spec, nil, "true"); err != nil || res.code != 0 {
		t.Error(res, err)
	}
}
