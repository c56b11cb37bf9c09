package ocirun

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// nullDevice makes one that a test may spoil, and a look at whether it has been.
func nullDevice(t *testing.T) (*os.File, func()) {
	t.Helper()
	name := filepath.Join(t.TempDir(), "null")
	if err := unix.Mknod(name, unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))); err != nil {
		t.Skip("mknod:", err)
	}
	return watchNull(t, name)
}

func watchNull(t *testing.T, name string) (*os.File, func()) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	before, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	return f, func() {
		t.Helper()
		after, err := f.Stat()
		if err != nil {
			t.Fatal(err)
		}
		if after.Mode() != before.Mode() || after.ModTime().Before(before.ModTime()) {
			t.Errorf("%s was %v of %v, is %v of %v", name, before.Mode(), before.ModTime(), after.Mode(), after.ModTime())
			_ = os.Chtimes(name, time.Time{}, before.ModTime())
		}
	}
}

// TestNullDevices has the root of containers change null devices, which must
// not be those of others.
func TestNullDevices(t *testing.T) {
	needsRoot(t)
	r := newRuntime(t)
	root := busyboxRoot(t)
	const spoil = "for f in 0 1 2; do f=/proc/self/fd/$f; [ -c $f ] && touch -d 2001-01-01 $f; done; readlink /proc/self/fd/0"

	t.Run("masks", func(t *testing.T) {
		_, check := watchNull(t, "/dev/null")
		res := mustRun(t, r, sh(root, "touch -d 2001-01-01 /proc/keys 2>&1; echo written > /proc/keys; cat /proc/keys"))
		if want := "touch: /proc/keys: Read-only file system\n"; res.out != want {
			t.Errorf("got %q, want %q", res.out, want)
		}
		check()
	})
	t.Run("nodes of a user namespace", func(t *testing.T) {
		_, check := watchNull(t, "/dev/null")
		req := sh(root, "touch -d 2001-01-01 /dev/null 2>&1; echo written > /dev/null; cat /dev/null")
		req.Spec.Linux.Namespaces = append(req.Spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
		same := []specs.LinuxIDMapping{{Size: 65536}}
		req.Spec.Linux.UIDMappings, req.Spec.Linux.GIDMappings = same, same
		if res := mustRun(t, r, req); res.out != "touch: /dev/null: Read-only file system\n" {
			t.Errorf("got %q", res.out)
		}
		check()
	})
	t.Run("standard streams", func(t *testing.T) {
		null, check := nullDevice(t)
		req := sh(root, spoil)
		req.Stdin = null
		if res := mustRun(t, r, req); res.out != "/dev/null\n" {
			t.Errorf("got %q", res.out)
		}
		check()
	})
	t.Run("none given", func(t *testing.T) {
		_, check := watchNull(t, "/dev/null")
		if res := mustRun(t, r, sh(root, spoil)); res.out != "/dev/null\n" {
			t.Errorf("got %q", res.out)
		}
		check()
	})

	req := sh(root, "")
	req.Spec.Process.Args = []string{"/bin/sleep", "60"}
	c := start(t, r, req)
	in := func(t *testing.T, stdin *os.File, script string) (result, error) {
		t.Helper()
		return execIn(t, r, c, req.Spec, func(q *ExecRequest) { q.Stdin = stdin }, "/bin/sh", "-c", script)
	}
	t.Run("exec", func(t *testing.T) {
		null, check := nullDevice(t)
		if res, err := in(t, null, spoil); err != nil || res.out != "/dev/null\n" {
			t.Errorf("got %q, %v", res.out, err)
		}
		check()
	})
	t.Run("exec without the container's own", func(t *testing.T) {
		if res, err := in(t, nil, "rm /dev/null; mknod /dev/null p"); err != nil || res.out != "" {
			t.Fatalf("got %q, %v", res.out, err)
		}
		null, check := nullDevice(t)
		if res, err := in(t, null, spoil); err == nil || !strings.Contains(err.Error(), "/dev/null is not the null device") {
			t.Errorf("got %q, %v", res.out, err)
		}
		check()
		_, check = watchNull(t, "/dev/null")
		if res, err := in(t, nil, spoil+"; cat"); err != nil || !strings.Contains(res.out, "Read-only") {
			t.Errorf("got %q, %v", res.out, err)
		}
		check()
	})
}
