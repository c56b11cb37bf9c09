package ocirun

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/ocirun/initproc"
)

// The test binary is the program of its containers' inits.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "init" {
		os.Exit(initproc.Main(os.Args[2:]))
	}
	os.Exit(m.Run())
}

func needsRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
}

// newRuntime has an init that stands by, as a supervisor in use has.
func newRuntime(t testing.TB) *Runtime {
	t.Helper()
	needsRoot(t)
	r, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	standBy(r)
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// standBy waits for an init that stands by.
func standBy(r *Runtime) {
	r.refill()
	r.standby.work.Wait()
}

// busyboxRoot is a root file system with busybox in it.
func busyboxRoot(t testing.TB) string {
	t.Helper()
	program, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Skip("needs busybox-static:", err)
	}
	root := filepath.Join(t.TempDir(), "root")
	for _, d := range []string{"bin", "etc", "tmp", "proc", "sys", "dev", "home/app"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(root, "root"), 0o700); err != nil {
		t.Fatal(err)
	}
	write := func(name, text string, mode os.FileMode) {
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	write("bin/busybox", string(program), 0o755)
	for _, applet := range []string{"sh", "true", "false", "cat", "echo", "ls", "id", "sleep", "ps", "stty", "hostname", "mount", "mkdir",
		"mknod", "rm", "chmod", "unshare", "readlink", "grep", "env", "pwd", "kill", "touch", "stat", "ulimit", "dd", "head", "wc", "tty", "umask", "find", "umount", "chroot", "cut", "tr", "sed"} {
		if err := os.Symlink("busybox", filepath.Join(root, "bin", applet)); err != nil {
			t.Fatal(err)
		}
	}
	write("etc/passwd", "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001:App:/home/app:/bin/sh\n", 0o644)
	write("etc/group", "root:x:0:\nappgrp:x:1001:\nstaff:x:50:app\nvideo:x:44:root,app\n", 0o644)
	return root
}

// defaultCaps as Docker grants them.
var defaultCaps = strings.Fields("CAP_CHOWN CAP_DAC_OVERRIDE CAP_FSETID CAP_FOWNER CAP_MKNOD CAP_NET_RAW CAP_SETGID CAP_SETUID " +
	"CAP_SETFCAP CAP_SETPCAP CAP_NET_BIND_SERVICE CAP_SYS_CHROOT CAP_KILL CAP_AUDIT_WRITE")

func testSpec(root string, args ...string) *specs.Spec {
	return &specs.Spec{
		Version:  specs.Version,
		Hostname: "box",
		Root:     &specs.Root{Path: root},
		Process: &specs.Process{
			Args: args, Cwd: "/",
			Env: []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"},
			Capabilities: &specs.LinuxCapabilities{
				Bounding: defaultCaps, Effective: defaultCaps, Permitted: defaultCaps,
			},
		},
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
			{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
			{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
			{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"ro", "nosuid", "noexec", "nodev"}},
			{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
			{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=67108864"}},
		},
		Linux: &specs.Linux{
			Namespaces: []specs.LinuxNamespace{
				{Type: specs.PIDNamespace}, {Type: specs.MountNamespace}, {Type: specs.IPCNamespace}, {Type: specs.UTSNamespace}, {Type: specs.NetworkNamespace},
			},
			MaskedPaths: []string{"/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
				"/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap"},
			ReadonlyPaths: []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"},
			Resources:     &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}},
		},
	}
}

var serial int

// testID names a container and its cgroup.
func testID(t testing.TB) string {
	t.Helper()
	serial++
	return fmt.Sprintf("wherry-ocirun-test-%d-%d", os.Getpid(), serial)
}

// result of a container or exec.
type result struct {
	out  string
	code int
}

// wait reaps a child of this process by its pidfd and returns the exit code.
func wait(t testing.TB, pidfd *os.File) int {
	t.Helper()
	poll := []unix.PollFd{{Fd: int32(pidfd.Fd()), Events: unix.POLLIN}}
	deadline := time.Now().Add(60 * time.Second)
	for {
		n, err := unix.Poll(poll, int(time.Until(deadline).Milliseconds()))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if n == 0 {
			_ = unix.PidfdSendSignal(int(pidfd.Fd()), unix.SIGKILL, nil, 0)
			t.Error("the process did not end within 60 s")
		}
		break
	}
	return reapFD(t, pidfd)
}

func reapFD(t testing.TB, pidfd *os.File) int {
	t.Helper()
	var si siginfo
	if err := waitid(int(pidfd.Fd()), &si); err != nil {
		t.Fatal("waitid:", err)
	}
	if si.code == 1 {
		return int(si.status)
	}
	return 128 + int(si.status)
}

// run creates, starts and waits for a container.
func run(t testing.TB, r *Runtime, req *CreateRequest) (result, error) {
	t.Helper()
	pr, pw, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer pr.Close()
	if req.ID == "" {
		req.ID = testID(t)
	}
	req.Stdout, req.Stderr = pw, pw
	c, err := r.Create(context.Background(), req)
	pw.Close()
	if err != nil {
		checkGone(t, r, req.ID)
		return result{}, err
	}
	defer c.PidFD.Close()
	if err := c.Start(); err != nil {
		wait(t, c.PidFD)
		remove(t, r, c)
		return result{}, err
	}
	out, err := io.ReadAll(pr)
	if err != nil {
		t.Fatal(err)
	}
	code := wait(t, c.PidFD)
	remove(t, r, c)
	return result{string(out), code}, nil
}

func remove(t testing.TB, r *Runtime, c *Container) {
	t.Helper()
	if err := r.DeleteCgroup(context.Background(), c.Cgroup); err != nil {
		t.Error("delete cgroup:", err)
	}
	checkGone(t, r, strings.TrimPrefix(c.Cgroup, "/"))
}

func checkGone(t testing.TB, r *Runtime, id string) {
	t.Helper()
	for i := range r.cgroups.All {
		if _, err := os.Stat(r.cgroups.All[i].Dir("/" + id)); err == nil {
			t.Error("left behind:", r.cgroups.All[i].Dir("/"+id))
		}
	}
}

// mustRun fails the test unless the container could be run.
func mustRun(t testing.TB, r *Runtime, req *CreateRequest) result {
	t.Helper()
	res, err := run(t, r, req)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

func sh(root, script string) *CreateRequest {
	return &CreateRequest{Spec: testSpec(root, "sh", "-c", script)}
}
