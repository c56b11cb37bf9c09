package supervisor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/logs"
	"github.com/wherry-engine/wherry/logs/driver"
	"github.com/wherry-engine/wherry/task"
	"github.com/wherry-engine/wherry/task/remote"
)

// patience is how long a test waits for something that has to happen.
const patience = time.Minute

// program builds wherry-runtime once, or copies $WHERRY_TEST_RUNTIME: there is not
// a compiler everywhere.
var program = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "wherry-supervisor-test-")
	if err != nil {
		return "", err
	}
	bin := filepath.Join(dir, "wherry-runtime")
	if built := os.Getenv("WHERRY_TEST_RUNTIME"); built != "" {
		b, err := os.ReadFile(built)
		if err != nil {
			return bin, err
		}
		return bin, os.WriteFile(bin, b, 0o755)
	}
	out, err := exec.Command("go", "build", "-o", bin, "github.com/wherry-engine/wherry/cmd/wherry-runtime").CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%w: %s", err, out)
	}
	return bin, err
})

func TestMain(m *testing.M) {
	code := m.Run()
	if bin, err := program(); err == nil {
		_ = os.RemoveAll(filepath.Dir(bin))
	}
	os.Exit(code)
}

// box is a running set of helpers.
type box struct {
	t      testing.TB
	opts   remote.Options
	ctx    context.Context
	root   string
	dir    string
	mu     sync.Mutex
	client *remote.Client
	inv    task.Inventory
	events []task.Event
	news   chan struct{}
	parent string
}

func newBox(t testing.TB) *box {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	bin, err := program()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("/tmp", "wsup")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
	b := &box{t: t, dir: dir, ctx: ctx, root: busyboxRoot(t, dir), news: make(chan struct{}), parent: "/wherry-test-" + filepath.Base(dir),
		opts: remote.Options{Runtime: bin, ExecRoot: filepath.Join(dir, "x"), DataRoot: dir}}
	t.Cleanup(cancel)
	b.connect()
	t.Cleanup(b.shutdown)
	return b
}

func busyboxRoot(t testing.TB, dir string) string {
	t.Helper()
	program, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Skip("needs busybox-static:", err)
	}
	root := filepath.Join(dir, "root")
	for _, d := range []string{"bin", "etc", "tmp", "proc", "sys", "dev", "root"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(root, "bin/busybox"), program, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, a := range strings.Fields("sh true false cat echo ls sleep seq yes head printf stty tty kill usleep wc dd tail") {
		if err := os.Symlink("busybox", filepath.Join(root, "bin", a)); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// connect finds or starts the helpers. As the daemon does, it tries again as
// long as the one that answered has been killed since.
func (b *box) connect() {
	b.t.Helper()
	err := b.tryConnect()
	for began := time.Now(); errdefs.IsUnavailable(err) && time.Since(began) < patience; {
		time.Sleep(time.Millisecond)
		err = b.tryConnect()
	}
	if err != nil {
		b.t.Fatal("connect: ", err)
	}
}

func (b *box) tryConnect() error {
	c, err := remote.Ensure(b.ctx, b.opts)
	if err != nil {
		return err
	}
	inv, err := c.Hello(b.ctx)
	if err != nil {
		return errors.Join(err, c.Close())
	}
	events, err := c.Events(b.ctx)
	if err != nil {
		return errors.Join(err, c.Close())
	}
	b.mu.Lock()
	b.client, b.inv = c, inv
	b.mu.Unlock()
	go func() {
		for e := range events {
			b.mu.Lock()
			b.events = append(b.events, e)
			close(b.news)
			b.news = make(chan struct{})
			b.mu.Unlock()
			_ = c.Ack(b.ctx, e.Seq)
		}
	}()
	return nil
}

func (b *box) reconnect() {
	b.t.Helper()
	_ = b.client.Close()
	b.connect()
}

func (b *box) shutdown() {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	inv, err := b.client.Hello(ctx)
	if err != nil {
		b.connect()
		inv = b.inv
	}
	for _, t := range inv.Tasks {
		if err := b.client.Delete(ctx, t.ID, true); err != nil {
			b.t.Errorf("delete %s: %v", t.ID, err)
		}
	}
	said, _ := os.ReadFile(filepath.Join(b.opts.ExecRoot, "helpers.log"))
	if err := b.client.Shutdown(ctx); err != nil {
		b.t.Errorf("shutdown: %v", err)
	}
	_ = b.client.Close()
	if b.t.Failed() {
		b.t.Logf("helpers said:\n%s", said)
	}
	// The keeper clears away what helpers leave when they have ended, which nobody waits for.
	left, err := os.ReadDir(b.opts.ExecRoot)
	for ctx.Err() == nil && err == nil && len(left) > 0 {
		time.Sleep(5 * time.Millisecond)
		left, err = os.ReadDir(b.opts.ExecRoot)
	}
	for _, d := range left {
		b.t.Errorf("left in the exec root: %s", d.Name())
	}
	for helpers := b.helpers(); len(helpers) > 0; helpers = b.helpers() {
		if ctx.Err() != nil {
			b.t.Errorf("helpers are left: %q", helpers)
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	b.removeCgroups()
}

// helpers lists the command lines of processes of the exec root.
func (b *box) helpers() (lines []string) {
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, f := range files {
		if line, err := os.ReadFile(f); err == nil && bytes.Contains(line, []byte(b.opts.ExecRoot+"\x00")) {
			lines = append(lines, strings.ReplaceAll(string(line), "\x00", " "))
		}
	}
	return lines
}

// removeCgroups removes the parents of the containers' cgroups, which must be empty.
func (b *box) removeCgroups() {
	dirs, _ := filepath.Glob("/sys/fs/cgroup/*" + b.parent)
	dirs = append(dirs, "/sys/fs/cgroup"+b.parent)
	for _, d := range dirs {
		deadline := time.Now().Add(5 * time.Second)
		err := unix.Rmdir(d)
		for err != nil && err != unix.ENOENT && time.Now().Before(deadline) {
			time.Sleep(10 * time.Millisecond)
			err = unix.Rmdir(d)
		}
		if err != nil && err != unix.ENOENT {
			b.t.Errorf("cgroup is left: %s: %v", d, err)
		}
	}
}

var serial int

// request makes a start request that runs a shell script.
func (b *box) request(script string) task.StartRequest {
	serial++
	id := fmt.Sprintf("t%d-%d", os.Getpid(), serial)
	return task.StartRequest{
		Version: 1, ID: id, Root: task.Root{Bind: b.root}, CgroupParent: b.parent,
		Log: task.Log{Driver: "json-file", Path: filepath.Join(b.dir, id+".log")},
		Spec: &specs.Spec{
			Version: specs.Version, Hostname: "box", Root: &specs.Root{Path: "rootfs"},
			Process: &specs.Process{Args: []string{"/bin/sh", "-c", script}, Cwd: "/", Env: []string{"PATH=/bin"}},
			Mounts: []specs.Mount{
				{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
				{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "mode=755", "size=65536k"}},
				{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"}},
			},
			Linux: &specs.Linux{
				Namespaces: []specs.LinuxNamespace{{Type: specs.PIDNamespace}, {Type: specs.MountNamespace}, {Type: specs.IPCNamespace}, {Type: specs.UTSNamespace}},
				Resources:  &specs.LinuxResources{},
			},
		},
	}
}

func (b *box) start(req task.StartRequest, files task.StartFiles) task.Status {
	b.t.Helper()
	st, err := b.client.Start(b.ctx, req, files)
	if err != nil {
		b.t.Fatalf("start: %v", err)
	}
	return st
}

// await returns the first event that matches, past or future.
func (b *box) await(what string, match func(task.Event) bool) task.Event {
	b.t.Helper()
	timeout := time.After(patience)
	for seen := 0; ; {
		b.mu.Lock()
		for ; seen < len(b.events); seen++ {
			if match(b.events[seen]) {
				defer b.mu.Unlock()
				return b.events[seen]
			}
		}
		news := b.news
		b.mu.Unlock()
		select {
		case <-news:
		case <-timeout:
			b.t.Fatalf("no event: %s", what)
		}
	}
}

func (b *box) awaitExit(id string) task.Status {
	b.t.Helper()
	return b.await("exit of "+id, func(e task.Event) bool {
		return e.Kind == task.EventExited && e.Status.ID == id && e.Status.State == task.Exited
	}).Status
}

// log returns what was logged, stderr in brackets.
func (b *box) log(req task.StartRequest) string {
	b.t.Helper()
	r, err := driver.NewReader(driver.Config{Driver: req.Log.Driver, Path: req.Log.Path})
	if err != nil {
		b.t.Fatal(err)
	}
	var out strings.Builder
	for m, err := range r.Read(b.ctx, logs.ReadOptions{Tail: -1, Stdout: true, Stderr: true}) {
		if err != nil {
			b.t.Fatal(err)
		}
		if m.Stream == logs.Stderr {
			fmt.Fprintf(&out, "[%s]", m.Line)
		} else {
			out.Write(m.Line)
		}
	}
	return out.String()
}

// socketPair returns a client's end and the end to hand over.
func socketPair(t testing.TB) (*net.UnixConn, *os.File) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fds[0]), "client")
	c, err := net.FileConn(f)
	if err != nil {
		t.Fatal(err)
	}
	_ = f.Close()
	t.Cleanup(func() { _ = c.Close() })
	return c.(*net.UnixConn), os.NewFile(uintptr(fds[1]), "server")
}

// readAll reads to the end of a connection, on which something has to come from
// time to time.
func readAll(t testing.TB, c net.Conn) []byte {
	t.Helper()
	var b bytes.Buffer
	buf := make([]byte, 64<<10)
	for {
		_ = c.SetReadDeadline(time.Now().Add(patience))
		n, err := c.Read(buf)
		b.Write(buf[:n])
		if errors.Is(err, io.EOF) {
			return b.Bytes()
		}
		if err != nil {
			t.Fatalf("read: %v after %d bytes that end in %q", err, b.Len(), b.Bytes()[max(0, b.Len()-200):])
		}
	}
}

// readUntil reads until the text has come.
func readUntil(t testing.TB, c net.Conn, text string) string {
	t.Helper()
	began := time.Now()
	_ = c.SetReadDeadline(began.Add(patience))
	var got []byte
	buf := make([]byte, 4096)
	for !bytes.Contains(got, []byte(text)) {
		n, err := c.Read(buf)
		got = append(got, buf[:n]...)
		if err != nil && time.Since(began) < 2*patience && errors.Is(err, os.ErrDeadlineExceeded) {
			began = began.Add(-patience) // once more: the machine may have been stopped meanwhile
			_ = c.SetReadDeadline(time.Now().Add(patience / 4))
			continue
		}
		if err != nil {
			t.Fatalf("waiting for %q: %v after %q", text, err, got)
		}
	}
	return string(got)
}

// kill ends a helper and waits until it is gone.
func kill(t testing.TB, pid int) {
	t.Helper()
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil {
		t.Fatal(err)
	}
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(patience.Milliseconds()))
		if n == 1 {
			return
		}
		if err != unix.EINTR {
			t.Fatal("it lives on: ", err)
		}
	}
}

// stopped suspends a helper.
func stopped(t testing.TB, pid int) {
	t.Helper()
	if err := unix.Kill(pid, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
}

// untilTold is the part of a script that waits for tell.
func (b *box) untilTold(name string) string {
	return "until [ -e /tmp/" + name + " ]; do usleep 5000; done; "
}

func (b *box) tell(name string) {
	b.t.Helper()
	if err := os.WriteFile(filepath.Join(b.root, "tmp", name), nil, 0o600); err != nil {
		b.t.Fatal(err)
	}
}

// memory limits memory (bytes), without swap.
func memory(limit int64) *specs.LinuxMemory { return &specs.LinuxMemory{Limit: &limit, Swap: &limit} }
