package ociexec

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/ocirun"
)

func TestStartCode(t *testing.T) {
	for _, c := range []struct {
		msg  string
		code int
	}{
		{`runc create failed: unable to start container process: exec: "x": executable file not found in $PATH`, 127},
		{`runc create failed: unable to start container process: exec: "/x": stat /x: no such file or directory`, 127},
		{`runc create failed: unable to start container process: exec: "/etc": permission denied`, 126},
		{`runc create failed: unable to start container process: exec: "/x": exec format error`, 126},
		{"executable file `x` not found in $PATH: No such file or directory", 127},
		{"open executable: Operation not permitted", 126},
		{`exec: "/etc": is a directory`, 126},
		{`error during container init: error mounting "/x" to rootfs at "/y": no such file or directory`, 0},
		{"cgroups in hybrid mode not supported, drop all controllers from cgroupv1 unified hierarchy", 0},
		{"unknown version specified", 0},
		{"", 0},
	} {
		if code, why := startCode(c.msg); code != c.code || (why == "") != (code == 0) {
			t.Errorf("%q: %d, %q, want %d", c.msg, code, why, c.code)
		}
	}
}

func TestExplain(t *testing.T) {
	log := filepath.Join(t.TempDir(), "log")
	lines := `{"level":"warning","msg":"first"}` + "\n" + `{"level":"error","msg":"second"}` + "\nno JSON\n"
	if err := os.WriteFile(log, []byte(lines), 0o600); err != nil {
		t.Fatal(err)
	}
	c, failed := &Container{Program: "/usr/bin/some-runtime"}, errors.New("exit status 1")
	for want, got := range map[string]error{
		"runtime some-runtime: second":        c.explain(failed, log, []byte("third"), "x"),
		"runtime some-runtime: third":         c.explain(failed, "/nonexistent", []byte("third\n"), "x"),
		"runtime some-runtime: exit status 1": c.explain(failed, "/nonexistent", nil, "x"),
	} {
		if got == nil || got.Error() != want {
			t.Errorf("got %v, want %s", got, want)
		}
	}
	if err := c.explain(nil, log, []byte("third"), "x"); err != nil {
		t.Errorf("no error became %v", err)
	}
	var se *ocirun.StartError
	if err := c.explain(failed, "/nonexistent", []byte("executable file `x` not found"), "x"); !errors.As(err, &se) || se.Code != 127 ||
		!strings.Contains(se.Msg, `exec: "x": executable file not found in $PATH`) {
		t.Errorf("a program that is not there is %v", err)
	}
}

func TestBundle(t *testing.T) {
	root, err := os.Open(imageRoot(t))
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	spec := &specs.Spec{
		Version: "1.3.0", Root: &specs.Root{Path: "/ignored", Readonly: true},
		Process: &specs.Process{
			Args: []string{"true"}, Env: []string{"HOME=", "A=B"}, Terminal: true,
			Capabilities: &specs.LinuxCapabilities{Bounding: []string{"CAP_CHOWN", "CAP_SYS_BOOT"}},
		},
		Linux: &specs.Linux{Namespaces: []specs.LinuxNamespace{{Type: specs.NetworkNamespace}, {Type: specs.PIDNamespace}}},
	}
	before := fmt.Sprintf("%+v %+v %+v", *spec.Process, *spec.Linux, *spec.Root)
	got, err := (&Container{}).bundle(&ocirun.CreateRequest{
		Spec: spec, Root: root, NetNS: root, ResolveUser: true, User: "sailor", Groups: []string{"crew"}, Width: 80, Height: 24,
	}, Host{Capabilities: []string{"CAP_CHOWN"}})
	if err != nil {
		t.Fatal(err)
	}
	want := &specs.Spec{
		Version: specVersion, Root: &specs.Root{Path: "rootfs", Readonly: true},
		Process: &specs.Process{
			Args: []string{"true"}, Env: []string{"A=B", "HOME=/ship"}, Cwd: "/", Terminal: true, ConsoleSize: &specs.Box{Width: 80, Height: 24},
			User:         specs.User{UID: 7, GID: 8, AdditionalGids: []uint32{8, 9}},
			Capabilities: &specs.LinuxCapabilities{Bounding: []string{"CAP_CHOWN"}},
		},
		Linux: &specs.Linux{Namespaces: []specs.LinuxNamespace{
			{Type: specs.PIDNamespace}, {Type: specs.NetworkNamespace, Path: fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), root.Fd())},
		}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if after := fmt.Sprintf("%+v %+v %+v", *spec.Process, *spec.Linux, *spec.Root); after != before {
		t.Errorf("the request was changed:\n%s\n%s", before, after)
	}
}

// TestHostilePasswd: what an image has in place of its user files is not read.
func TestHostilePasswd(t *testing.T) {
	dir := imageRoot(t)
	passwd := filepath.Join(dir, "etc/passwd")
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("sailor:x:0:0::/:/bin/sh\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, replace := range map[string]func() error{
		"link to the host": func() error { return os.Symlink(secret, passwd) },
		"link upwards":     func() error { return os.Symlink("../../../../../../.."+secret, passwd) },
		"loop":             func() error { return os.Symlink("passwd", passwd) },
		"pipe":             func() error { return unix.Mkfifo(passwd, 0o644) },
		"directory":        func() error { return os.Mkdir(passwd, 0o755) },
	} {
		if err := errors.Join(os.RemoveAll(passwd), replace()); err != nil {
			t.Fatal(err)
		}
		root, err := os.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		p := &specs.Process{}
		if err := complete(p, root, true, "sailor", nil); err == nil {
			t.Errorf("%s: user %d", name, p.User.UID)
		}
		root.Close()
	}
}

// imageRoot is a directory like an image's root, with busybox.
func imageRoot(t *testing.T) string {
	dir := t.TempDir()
	for name, data := range map[string]string{
		"etc/passwd": "root:x:0:0::/root:/bin/sh\nsailor:x:7:8::/ship:/bin/sh\n", "etc/group": "root:x:0:\ncrew:x:9:\n",
	} {
		name = filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, []byte(data), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// container makes one for a runtime that is a shell script.
func container(t *testing.T, script string) *Container {
	t.Helper()
	dir := t.TempDir()
	program := filepath.Join(dir, "runtime")
	if err := os.WriteFile(program, []byte("#!/bin/sh\n"+script), 0o755); err != nil {
		t.Fatal(err)
	}
	return &Container{ID: "one", Program: program, Dir: filepath.Join(dir, "all", "one"), SocketDir: dir}
}

// detachedRoot is what ocirun's OpenRoot gives.
func detachedRoot(t *testing.T) *os.File {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	fd, err := unix.OpenTree(unix.AT_FDCWD, imageRoot(t), unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "root")
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func request(root *os.File) *ocirun.CreateRequest {
	return &ocirun.CreateRequest{Root: root, Spec: &specs.Spec{Process: &specs.Process{Args: []string{"true"}}, Linux: &specs.Linux{}}}
}

// TestCreateFails: whatever a runtime does instead of its work, an error comes
// of it, and nothing stays behind.
func TestCreateFails(t *testing.T) {
	for name, c := range map[string]struct{ script, want string }{
		"fails":         {"echo no >&2; exit 1", "exit status 1"},
		"says why":      {`while [ "$1" != --log ]; do shift; done; echo '{"level":"error","msg":"out of rope"}' >"$2"; exit 1`, "out of rope"},
		"no pid":        {"exit 0", "told no process id"},
		"bad pid":       {`while [ "$1" != --pid-file ]; do shift; done; echo 1 >"$2"`, "process id"},
		"dead":          {`while [ "$1" != --pid-file ]; do shift; done; true & echo $! >"$2"; wait`, "no such process"},
		"not there":     {"", "no such file"},
		"half a create": {`case "$*" in *delete*) exit;; esac; mkdir -p "$(dirname "$0")/all/one/state/one"; exit 1`, "exit status 1"},
	} {
		t.Run(name, func(t *testing.T) {
			root := detachedRoot(t)
			k := container(t, c.script)
			if c.script == "" {
				k.Program = "/nonexistent"
			}
			_, err := k.Create(t.Context(), request(root), Host{})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %s", err, c.want)
			}
			if _, err := os.Lstat(k.Dir); !os.IsNotExist(err) {
				t.Errorf("the directory is left: %v", err)
			}
		})
	}
}

func TestCreateEndsWithItsContext(t *testing.T) {
	root := detachedRoot(t)
	k := container(t, `case "$*" in *create*) exec sleep 600;; esac`)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := k.Create(ctx, request(root), Host{}); err == nil {
		t.Error("no error")
	}
}

// TestRootIsSeenByTheRuntimeOnly, and only while it runs.
func TestRootIsSeenByTheRuntimeOnly(t *testing.T) {
	root := detachedRoot(t)
	k := container(t, `cat "$(dirname "$0")/all/one/rootfs/etc/passwd" >"$(dirname "$0")/seen"; ls "$(dirname "$0")/all/one/rootfs"; exit 1`)
	in, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	req := request(root)
	req.Stdout = out
	_, err = k.Create(t.Context(), req, Host{})
	out.Close()
	if err == nil {
		t.Error("no error")
	}
	seen, _ := os.ReadFile(filepath.Join(filepath.Dir(k.Program), "seen"))
	if !strings.Contains(string(seen), "sailor") {
		t.Errorf("the runtime saw %q", seen)
	}
	if data, _ := io.ReadAll(in); strings.TrimSpace(string(data)) != "etc" {
		t.Errorf("the container's output was %q", data)
	}
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	if strings.Contains(string(mounts), k.Dir) {
		t.Error("the root is mounted for all to see")
	}
}

func TestRefused(t *testing.T) {
	root := detachedRoot(t)
	for name, change := range map[string]func(*ocirun.CreateRequest){
		"systemd":     func(r *ocirun.CreateRequest) { r.SystemdCgroup = true },
		"descriptors": func(r *ocirun.CreateRequest) { r.ExtraFiles = []*os.File{root} },
		"init":        func(r *ocirun.CreateRequest) { r.Init = true },
	} {
		req := request(root)
		change(req)
		if _, err := container(t, "exit 1").Create(t.Context(), req, Host{}); !errdefs.IsNotImplemented(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestDeleteOfNothing(t *testing.T) {
	if err := container(t, "exit 1").Delete(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestNoEnvironment: the runtime gets nothing of ours but PATH.
func TestNoEnvironment(t *testing.T) {
	t.Setenv("SECRET", "1")
	if _, err := exec.LookPath("env"); err != nil {
		t.Skip(err)
	}
	k := container(t, `env >"$(dirname "$0")/env"`)
	if err := os.MkdirAll(k.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := k.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	env, _ := os.ReadFile(filepath.Join(filepath.Dir(k.Program), "env"))
	if strings.Contains(string(env), "SECRET") || !strings.Contains(string(env), "PATH=") {
		t.Errorf("the environment was:\n%s", env)
	}
}
