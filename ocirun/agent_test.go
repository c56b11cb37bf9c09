package ocirun

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unsafe"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// notification is struct seccomp_notif, response struct seccomp_notif_resp.
type notification struct {
	id         uint64
	pid, flags uint32
	nr, arch   uint32
	ip         uint64
	args       [6]uint64
}

type response struct {
	id         uint64
	val        int64
	err, flags uint32
}

const (
	notifRecv = 0xc0502100
	notifSend = 0xc0182101
)

// testAgent takes listeners one after the other and answers: mkdir fails in a
// way of its own, everything else goes on.
type testAgent struct {
	path   string
	states chan specs.ContainerProcessState
}

func newAgent(t *testing.T) *testAgent {
	t.Helper()
	a := &testAgent{path: filepath.Join(t.TempDir(), strings.Repeat("long", 30), "agent.sock"), states: make(chan specs.ContainerProcessState, 9)}
	if err := os.Mkdir(filepath.Dir(a.path), 0o755); err != nil {
		t.Fatal(err)
	}
	dir, err := os.Open(filepath.Dir(a.path))
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: fmt.Sprintf("/proc/self/fd/%d/agent.sock", dir.Fd())})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.AcceptUnix()
			if err != nil {
				return
			}
			if err := a.serve(c); err != nil {
				t.Error(err)
			}
			c.Close()
		}
	}()
	t.Cleanup(func() {
		l.Close()
		<-done
	})
	return a
}

func (a *testAgent) serve(c *net.UnixConn) error {
	oob := make([]byte, 64)
	buf := make([]byte, 1<<16)
	n, oobn, _, _, err := c.ReadMsgUnix(buf, oob)
	if err != nil {
		return err
	}
	rest, err := io.ReadAll(c)
	if err != nil {
		return err
	}
	var state specs.ContainerProcessState
	if err := json.Unmarshal(append(buf[:n], rest...), &state); err != nil {
		return err
	}
	scm, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil || len(scm) != 1 {
		return fmt.Errorf("control messages %v: %w", scm, err)
	}
	fds, err := unix.ParseUnixRights(&scm[0])
	if err != nil || len(fds) != 1 {
		return fmt.Errorf("descriptors %v: %w", fds, err)
	}
	a.states <- state
	return answer(fds[0])
}

// answer until every process with the filter is gone.
func answer(fd int) error {
	defer unix.Close(fd)
	for {
		poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		if _, err := unix.Poll(poll, -1); errors.Is(err, unix.EINTR) {
			continue
		}
		if poll[0].Revents&unix.POLLIN == 0 {
			return nil
		}
		var n notification
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), notifRecv, uintptr(unsafe.Pointer(&n))); errno != 0 {
			continue // it died meanwhile
		}
		r := response{id: n.id, flags: unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE}
		if n.nr == unix.SYS_MKDIRAT || n.nr == sysMkdir {
			noMedium := -int32(unix.ENOMEDIUM)
			r.flags, r.err = 0, uint32(noMedium)
		}
		_, _, _ = unix.Syscall(unix.SYS_IOCTL, uintptr(fd), notifSend, uintptr(unsafe.Pointer(&r)))
	}
}

const sysMkdir = 83 // of x86_64; other machines have mkdirat alone

// TestSeccompAgent asks the agent for what a container does right after its
// filter is loaded, too: nothing of that may wait for ever.
func TestSeccompAgent(t *testing.T) {
	r := newRuntime(t)
	root := busyboxRoot(t)
	agent := newAgent(t)
	for _, tt := range []struct {
		name   string
		change func(*CreateRequest)
	}{
		{"plain", func(*CreateRequest) {}},
		{"no new privileges", func(q *CreateRequest) { q.Spec.Process.NoNewPrivileges = true }},
		{"as a user", func(q *CreateRequest) { q.ResolveUser, q.User = true, "app" }},
		{"with the reaper", func(q *CreateRequest) { q.Init = true }},
		{"killable", func(q *CreateRequest) {
			q.Spec.Linux.Seccomp.Flags = []specs.LinuxSeccompFlag{specs.LinuxSeccompFlagWaitKillableRecv}
		}},
		{"everything", func(q *CreateRequest) {
			q.Spec.Linux.Seccomp.DefaultAction, q.Spec.Linux.Seccomp.Syscalls = specs.ActNotify, nil
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			req := sh(root, "mkdir /tmp/x; echo $?")
			req.ID, req.Bundle = testID(t), "/the/bundle"
			req.Spec.Annotations = map[string]string{"a": "b"}
			req.Spec.Linux.Seccomp = &specs.LinuxSeccomp{
				DefaultAction: specs.ActAllow, ListenerPath: agent.path, ListenerMetadata: "meta",
				Syscalls: []specs.LinuxSyscall{{Names: []string{"mkdir", "mkdirat", "execve", "execveat", "sendmsg", "futex", "capset", "close"}, Action: specs.ActNotify}},
			}
			tt.change(req)
			res := mustRun(t, r, req)
			if res.out != "mkdir: can't create directory '/tmp/x': No medium found\n1\n" {
				t.Errorf("%+v", res)
			}
			s := <-agent.states
			if len(s.Fds) != 1 || s.Fds[0] != "seccompFd" || s.Pid <= 0 || s.Metadata != "meta" || s.Version == "" || s.State.ID != req.ID ||
				s.State.Bundle != req.Bundle || s.State.Annotations["a"] != "b" || s.State.Status != specs.StateCreated || s.State.Pid != s.Pid {
				t.Errorf("%+v", s)
			}
		})
	}
}

func TestSeccompAgentOfExec(t *testing.T) {
	r := newRuntime(t)
	root := busyboxRoot(t)
	agent := newAgent(t)
	req := sh(root, "exec sleep 60")
	c := start(t, r, req)
	spec := *req.Spec
	linux := *spec.Linux
	spec.Linux = &linux
	linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, ListenerPath: agent.path,
		Syscalls: []specs.LinuxSyscall{{Names: []string{"mkdir", "mkdirat"}, Action: specs.ActNotify}}}
	res, err := execIn(t, r, c, &spec, func(q *ExecRequest) { q.ID = "the-id" }, "mkdir", "/tmp/x")
	if err != nil || !strings.Contains(res.out, "No medium found") {
		t.Errorf("%+v %v", res, err)
	}
	if s := <-agent.states; s.State.ID != "the-id" || s.State.Status != specs.StateRunning || s.Pid == c.Pid {
		t.Errorf("%+v", s)
	}
}

func TestSeccompAgentAbsent(t *testing.T) {
	r := newRuntime(t)
	root := busyboxRoot(t)
	req := sh(root, "echo ran")
	req.Spec.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, ListenerPath: filepath.Join(t.TempDir(), "none"),
		Syscalls: []specs.LinuxSyscall{{Names: []string{"execve"}, Action: specs.ActNotify}}}
	res, err := run(t, r, req)
	if !errors.Is(err, unix.ENOENT) || res.out != "" {
		t.Errorf("%+v %v", res, err)
	}
}
