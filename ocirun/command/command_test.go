package command

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/internal/version"
	"github.com/wherry-engine/wherry/ocirun/initproc"
)

// The test binary is the runtime.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "init":
			os.Exit(initproc.Main(os.Args[2:]))
		case "as-runtime":
			os.Exit(Main(os.Args[2:]))
		}
	}
	os.Exit(m.Run())
}

// box is a bundle and a root for states.
type box struct {
	t            *testing.T
	bundle, root string
	spec         *specs.Spec
}

func newBox(t *testing.T, args ...string) *box {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	program, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Skip("needs busybox-static:", err)
	}
	dir := t.TempDir()
	b := &box{t: t, bundle: dir, root: filepath.Join(dir, "state"), spec: example()}
	for _, d := range []string{"bin", "proc", "dev", "sys", "tmp"} {
		if err := os.MkdirAll(filepath.Join(dir, "rootfs", d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "rootfs/bin/busybox"), program, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, a := range []string{"sh", "sleep", "cat", "echo", "tty", "id", "true"} {
		if err := os.Symlink("busybox", filepath.Join(dir, "rootfs/bin", a)); err != nil {
			t.Fatal(err)
		}
	}
	b.spec.Process.Args, b.spec.Process.Terminal = args, false
	b.spec.Linux.CgroupsPath = "/wherry-command-test-" + filepath.Base(filepath.Dir(dir)) + fmt.Sprint(os.Getpid())
	b.write()
	return b
}

func (b *box) write() {
	b.t.Helper()
	text, err := json.Marshal(b.spec)
	if err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(b.bundle, "config.json"), text, 0o644); err != nil {
		b.t.Fatal(err)
	}
}

func (b *box) cmd(args ...string) *exec.Cmd {
	return exec.Command("/proc/self/exe", append([]string{"as-runtime", "--root", b.root, "--log", filepath.Join(b.bundle, "log"), "--log-format", "json"}, args...)...)
}

func (b *box) run(args ...string) (string, int) {
	b.t.Helper()
	// A file, not a pipe: the container keeps it when the command is gone.
	out, err := os.Create(filepath.Join(b.bundle, "out"))
	if err != nil {
		b.t.Fatal(err)
	}
	defer out.Close()
	c := b.cmd(args...)
	c.Stdout, c.Stderr = out, out
	err = c.Run()
	text, _ := os.ReadFile(out.Name())
	if err != nil && c.ProcessState == nil {
		b.t.Fatal(err)
	}
	return string(text), c.ProcessState.ExitCode()
}

func (b *box) want(code int, text string, args ...string) {
	b.t.Helper()
	out, got := b.run(args...)
	if got != code || !strings.Contains(out, text) {
		b.t.Errorf("%v: code %d (want %d), output %q (want %q)", args, got, code, out, text)
	}
}

func (b *box) status(want string) {
	b.t.Helper()
	out, code := b.run("state", "c1")
	var s specs.State
	if err := json.Unmarshal([]byte(out), &s); err != nil || code != 0 || string(s.Status) != want || s.Version == "" || s.Bundle != b.bundle {
		b.t.Errorf("state %q (%d), want %s", out, code, want)
	}
}

func (b *box) waitStopped() {
	b.t.Helper()
	for range 500 {
		if out, _ := b.run("state", "c1"); strings.Contains(out, `"stopped"`) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	b.t.Error("the container does not stop")
}

func TestLifecycle(t *testing.T) {
	b := newBox(t, "sleep", "100")
	pidFile := filepath.Join(b.bundle, "pid")
	b.want(0, "", "create", "--bundle", b.bundle, "--pid-file", pidFile, "c1")
	t.Cleanup(func() { b.run("delete", "--force", "c1") })
	if _, err := os.Stat(pidFile); err != nil {
		t.Error(err)
	}
	b.status("created")
	b.want(1, "exists", "create", "--bundle", b.bundle, "c1")
	b.want(0, "", "start", "c1")
	b.status("running")
	b.want(1, "cannot start a container that is running", "start", "c1")
	b.want(0, "hello", "exec", "c1", "echo", "hello")
	b.want(7, "", "exec", "c1", "sh", "-c", "exit 7")
	b.want(127, "executable file not found", "exec", "c1", "nope")
	b.want(0, "uid=3 gid=4", "exec", "--user", "3:4", "c1", "id")
	b.want(0, "/tmp", "exec", "--cwd", "/tmp", "--env", "A=b", "c1", "sh", "-c", "pwd; [ $A = b ]")
	b.want(0, "running", "list")
	for name, text := range map[string]string{"file": "", "broken/state.json": "{"} { // what others left there
		name = filepath.Join(b.root, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o700), os.WriteFile(name, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	b.want(0, "c1", "list", "-q")
	if err := errors.Join(os.Remove(filepath.Join(b.root, "file")), os.RemoveAll(filepath.Join(b.root, "broken"))); err != nil {
		t.Fatal(err)
	}
	b.want(0, "sleep 100", "ps", "c1")
	b.want(0, "", "pause", "c1")
	b.status("paused")
	b.want(255, "paused", "exec", "c1", "true")
	b.want(0, "", "resume", "c1")
	b.want(0, "", "update", "--pids-limit", "55", "c1")
	b.want(1, "not stopped", "delete", "c1")
	b.want(0, "", "kill", "c1", "KILL")
	b.waitStopped()
	b.want(1, "not running", "kill", "c1", "TERM")
	b.want(0, "", "delete", "c1")
	b.want(1, "does not exist", "state", "c1")
	b.want(0, "", "delete", "--force", "c1")
	if left, err := os.ReadDir(b.root); err != nil || len(left) > 0 {
		t.Error(left, err)
	}
	log, _ := os.ReadFile(filepath.Join(b.bundle, "log"))
	var line struct{ Level, Msg string }
	if err := json.NewDecoder(bytes.NewReader(log)).Decode(&line); err != nil || line.Level != "error" || line.Msg == "" {
		t.Errorf("%s %v", log, err)
	}
}

func TestRun(t *testing.T) {
	b := newBox(t, "sh", "-c", "echo out; exit 5")
	b.want(5, "out", "run", "--bundle", b.bundle, "c1")
	b.spec.Process.Args = []string{"/bin/nope"}
	b.write()
	b.want(1, "no such file or directory", "run", "-b", b.bundle, "c1")
	b.spec.Process.Args = []string{"sleep", "100"}
	b.write()
	b.want(0, "", "run", "-d", "-b", b.bundle, "c1")
	b.status("running")
	b.want(0, "", "delete", "-f", "c1")
	if left, _ := os.ReadDir(b.root); len(left) > 0 {
		t.Error(left)
	}
}

// TestPreservedFDs: what the caller left open is passed, and nothing else.
func TestPreservedFDs(t *testing.T) {
	b := newBox(t, "sh", "-c", "read a <&3; echo $a $LISTEN_FDS $LISTEN_PID; ! [ -e /proc/self/fd/4 ] || echo more")
	file := filepath.Join(b.bundle, "three")
	if err := os.WriteFile(file, []byte("third\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	try := func(code int, want, env string, args ...string) {
		t.Helper()
		f, err := os.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		c := b.cmd(args...)
		c.Env, c.ExtraFiles = append(os.Environ(), env), []*os.File{f}
		out, err := c.CombinedOutput()
		if c.ProcessState == nil {
			t.Fatal(err)
		}
		if got := c.ProcessState.ExitCode(); got != code || !strings.Contains(string(out), want) || strings.Contains(string(out), "more") {
			t.Errorf("%s %v: code %d, want %d, output %q, want %q", env, args, got, code, out, want)
		}
	}
	try(0, "third\n", "", "run", "-b", b.bundle, "--preserve-fds", "1", "c1")
	try(0, "third 1 1\n", "LISTEN_FDS=1", "run", "-b", b.bundle, "c1")
	try(1, "descriptor 4 is not open", "", "run", "-b", b.bundle, "--preserve-fds", "5", "c1")
	try(1, "descriptor 4 is not open", "LISTEN_FDS=1", "run", "-b", b.bundle, "--preserve-fds", "1", "c1")
	b.spec.Process.Args = []string{"sleep", "100"}
	b.write()
	b.want(0, "", "run", "-d", "-b", b.bundle, "c1")
	t.Cleanup(func() { b.run("delete", "--force", "c1") })
	try(0, "third\n", "", "exec", "--preserve-fds", "1", "c1", "sh", "-c", "cat <&3; ! [ -e /proc/self/fd/4 ] || echo more")
	try(255, "descriptor 4 is not open", "", "exec", "--preserve-fds", "2", "c1", "true")
}

func TestConsoleSocket(t *testing.T) {
	b := newBox(t, "sh", "-c", "tty; read x; echo got $x")
	b.spec.Process.Terminal = true
	b.write()
	b.want(1, "--console-socket", "create", "-b", b.bundle, "c1")
	name := filepath.Join(b.bundle, "console.sock")
	listener, err := streamSocket(name)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	if err := listen(listener, name); err != nil {
		t.Fatal(err)
	}
	b.want(0, "", "create", "-b", b.bundle, "--console-socket", name, "c1")
	t.Cleanup(func() { b.run("delete", "--force", "c1") })
	conn, _, err := unix.Accept(int(listener.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(conn)
	buf, oob := make([]byte, 64), make([]byte, 64)
	_, n, _, _, err := unix.Recvmsg(conn, buf, oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	scm, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(scm) != 1 {
		t.Fatal(scm, err)
	}
	fds, err := unix.ParseUnixRights(&scm[0])
	if err != nil || len(fds) != 1 {
		t.Fatal(fds, err)
	}
	master := os.NewFile(uintptr(fds[0]), "master")
	defer master.Close()
	b.want(0, "", "start", "c1")
	first := make([]byte, len("/dev/pts/0\r\n"))
	if _, err := io.ReadFull(master, first); err != nil {
		t.Fatal(err)
	}
	if _, err := master.WriteString("word\n"); err != nil {
		t.Fatal(err)
	}
	out, _ := io.ReadAll(master) // ends with EIO
	if want := "/dev/pts/0\r\nword\r\ngot word\r\n"; string(first)+string(out) != want {
		t.Errorf("got %q, %q", first, out)
	}
	b.waitStopped()
}

func TestBadInput(t *testing.T) {
	b := newBox(t, "true")
	b.want(1, "unknown command", "frobnicate")
	b.want(1, "invalid container name", "state", "../x")
	b.want(1, "missing", "start")
	b.want(1, "unknown signal", "kill", "c1", "FOO")
	b.want(1, "SLICE:PREFIX:NAME", "--systemd-cgroup", "create", "-b", b.bundle, "c1")
	b.want(1, "config.json", "create", "-b", "/", "c1")
	b.spec.Process.Cwd = ""
	b.write()
	b.want(1, "lacks the working directory", "create", "-b", b.bundle, "c1")
	b.want(0, "ociVersionMin", "features")
	b.want(0, version.Version, "--version")
	if err := os.WriteFile(filepath.Join(b.bundle, "config.json"), []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	b.want(1, "parse config.json", "create", "-b", b.bundle, "c1")
	if left, _ := os.ReadDir(b.root); len(left) > 0 {
		t.Error(left)
	}
}
