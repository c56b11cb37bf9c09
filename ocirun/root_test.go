package ocirun

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// layers splits a root into an overlay of busybox and something on top.
func layers(t *testing.T) Root {
	t.Helper()
	base := busyboxRoot(t)
	dir := t.TempDir()
	root := Root{Upper: filepath.Join(dir, "upper"), Work: filepath.Join(dir, "work")}
	for i := range 3 {
		// Longer than fsconfig's strings.
		l := filepath.Join(dir, strings.Repeat("x", 130), strings.Repeat("y", 130), string(rune('a'+i)))
		if err := os.MkdirAll(l, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(l, "layer"), []byte{byte('a' + i), '\n'}, 0o644); err != nil {
			t.Fatal(err)
		}
		root.Layers = append(root.Layers, l)
	}
	root.Layers = append(root.Layers, base)
	for _, d := range []string{root.Upper, root.Work} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// mountTable is what of the host's mounts has to do with this test.
func mountTable(t *testing.T) string {
	t.Helper()
	var out strings.Builder
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if strings.Contains(line, strings.Split(t.Name(), "/")[0]) {
			out.WriteString(line)
		}
	}
	return out.String()
}

func TestOpenRoot(t *testing.T) {
	for _, old := range []bool{false, true} {
		name := "this kernel's way"
		if old {
			name = "the old kernels' way"
		}
		t.Run(name, func(t *testing.T) {
			r := newRuntime(t)
			r.forceHolder = old
			root := layers(t)
			before := mountTable(t)
			f, err := r.OpenRoot(context.Background(), root)
			if err != nil {
				t.Fatal(err)
			}
			for i, want := range []string{"a\n", "a\nagain\n"} {
				spec := testSpec("/ignored", "sh", "-c", "cat /layer; cat /again 2>/dev/null; echo again > /again")
				res := mustRun(t, r, &CreateRequest{Spec: spec, Root: f})
				if res.out != want || res.code != 0 {
					t.Errorf("run %d: %+v", i, res)
				}
			}
			// The daemon reads and writes through the descriptor.
			b, err := os.ReadFile("/proc/self/fd/" + strconv.Itoa(int(f.Fd())) + "/again")
			if string(b) != "again\n" {
				t.Error(string(b), err)
			}
			if err := r.CloseRoot(f); err != nil {
				t.Error(err)
			}
			if b, err := os.ReadFile(filepath.Join(root.Upper, "again")); string(b) != "again\n" {
				t.Error(string(b), err)
			}
			if after := mountTable(t); after != before {
				t.Errorf("mount table changed:\n%s", after)
			}

			root.Upper, root.Work = "", ""
			ro, err := r.OpenRoot(context.Background(), root)
			if err != nil {
				t.Fatal(err)
			}
			res := mustRun(t, r, &CreateRequest{Spec: testSpec("/ignored", "touch", "/x"), Root: ro})
			if res.out != "touch: /x: Read-only file system\n" {
				t.Errorf("%+v", res)
			}
			if err := r.CloseRoot(ro); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestOpenMappedRoot is an image that several user namespaces have as their own,
// without a change of a file's owner.
func TestOpenMappedRoot(t *testing.T) {
	for name, old := range map[string]bool{"this kernel's way": false, "the old kernels' way": true} {
		t.Run(name, func(t *testing.T) {
			r := newRuntime(t)
			r.forceHolder = old
			root := layers(t)
			for dir := root.Upper; dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
				if err := os.Chmod(dir, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.Chown(filepath.Join(root.Layers[1], "layer"), 1000, 1000); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(filepath.Join(root.Layers[1], "layer"), filepath.Join(root.Layers[1], "theirs")); err != nil {
				t.Fatal(err)
			}
			for i, host := range []uint32{100000, 300000} {
				m := []specs.LinuxIDMapping{{ContainerID: 0, HostID: host, Size: 65536}}
				root.UIDMappings, root.GIDMappings = m, m
				f, err := r.OpenRoot(context.Background(), root)
				if err != nil {
					t.Fatal(err)
				}
				spec := testSpec("/ignored", "sh", "-c", "stat -c %u:%g / /bin/sh /layer /theirs; cat /mine 2>/dev/null; echo x >> /mine; echo b > /layer; stat -c %u /mine /layer; "+
					"chown 1000 /theirs; stat -c %u:%g /theirs; ls -d /dev/shm")
				spec.Linux.UIDMappings, spec.Linux.GIDMappings = m, m
				spec.Linux.Namespaces = append(spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
				res := mustRun(t, r, &CreateRequest{Spec: spec, Root: f})
				want := "0:0\n0:0\n0:0\n1000:1000\n" + strings.Repeat("x\n", i) + "0\n0\n1000:1000\n/dev/shm\n"
				if res.out != want || res.code != 0 {
					t.Errorf("for %d: %+v, want %q", host, res, want)
				}
				if err := r.CloseRoot(f); err != nil {
					t.Error(err)
				}
			}
			for name, want := range map[string]uint32{"mine": 0, "layer": 0, "theirs": 1000} {
				if fi, err := os.Stat(filepath.Join(root.Upper, name)); err != nil || statUID(fi) != want {
					t.Errorf("%s on the disk: %v, %v", name, fi, err)
				}
			}
			if fi, err := os.Stat(filepath.Join(root.Layers[0], "layer")); err != nil || statUID(fi) != 0 {
				t.Errorf("the image has changed: %v, %v", fi, err)
			}
		})
	}
}

func TestOpenRootBind(t *testing.T) {
	r := newRuntime(t)
	f, err := r.OpenRoot(context.Background(), Root{Bind: busyboxRoot(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if res := mustRun(t, r, &CreateRequest{Spec: testSpec("/ignored", "touch", "/x"), Root: f}); res.code != 0 {
		t.Errorf("%+v", res)
	}
	for _, bad := range []Root{{}, {Layers: []string{"/"}, Upper: "/tmp"}, {Bind: "/", Layers: []string{"/"}}} {
		if _, err := r.OpenRoot(context.Background(), bad); !errors.Is(err, errdefs.ErrInvalidArgument) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
	if _, err := r.OpenRoot(context.Background(), Root{Bind: "/nope"}); !errors.Is(err, errdefs.ErrNotFound) {
		t.Error(err)
	}
}

// TestHostileRoot: links at every special place of a root must neither lead
// out nor hide what is mounted.
func TestHostileRoot(t *testing.T) {
	r := newRuntime(t)
	victim := t.TempDir()
	for _, name := range []string{"proc", "sys", "dev", "dev/pts", "dev/shm", "dev/mqueue", "sys/fs", "etc", "etc/passwd", "mnt", "mnt/file", "dev/console", "srv"} {
		for _, to := range []string{victim, "../../../../../../../.." + victim, "/tmp", "/proc/self/fd/3", "/nope", "loop"} {
			if strings.HasPrefix(name, "dev/") || strings.HasPrefix(name, "sys/") {
				continue // below a mount of its own
			}
			t.Run(strings.ReplaceAll(name, "/", "_")+" to "+strings.ReplaceAll(to, "/", "_"), func(t *testing.T) {
				root := busyboxRoot(t)
				place := filepath.Join(root, name)
				if err := os.RemoveAll(place); err != nil {
					t.Fatal(err)
				}
				if err := os.MkdirAll(filepath.Dir(place), 0o755); err != nil {
					t.Fatal(err)
				}
				if to == "loop" {
					to = filepath.Base(place)
				}
				if err := os.Symlink(to, place); err != nil {
					t.Fatal(err)
				}
				req := sh(root, "cat /proc/self/comm; mount | grep -c .; exit 0")
				req.ResolveUser, req.User = true, "0"
				req.Spec.Process.Cwd = "/srv"
				req.Spec.Mounts = append(req.Spec.Mounts, specs.Mount{Destination: "/mnt/file", Source: "/etc/hostname", Options: []string{"bind"}})
				res, err := run(t, r, req)
				t.Log(res, err)
				if err == nil && name == "proc" {
					t.Error("a link was taken for /proc")
				}
				left, err := os.ReadDir(victim)
				if err != nil || len(left) > 0 {
					t.Errorf("the host was changed: %v %v", left, err)
				}
			})
		}
	}
}

// TestMountThroughLink: no link of an image leads a mount onto /proc, /sys or
// the root, where it would undo what is hidden there.
func TestMountThroughLink(t *testing.T) {
	r := newRuntime(t)
	for _, c := range []struct{ link, to, mount string }{
		{"dev", "/proc", ""},
		{"dev", "/proc/sys", ""},
		{"dev", "/", ""},
		{"dev", "/srv", ""},
		{"srv", "/proc", "/srv"},
		{"srv", "/proc", "/srv/sys"},
		{"srv", "../proc/self", "/srv"},
		{"srv", "/sys/firmware", "/srv"},
		{"srv", "/", "/srv"},
		{"srv", "/", "/srv/proc"},
	} {
		t.Run(c.link+" to "+strings.ReplaceAll(c.to, "/", "_")+strings.ReplaceAll(c.mount, "/", "_"), func(t *testing.T) {
			root := busyboxRoot(t)
			place := filepath.Join(root, c.link)
			if err := os.RemoveAll(place); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(c.to, place); err != nil {
				t.Fatal(err)
			}
			req := sh(root, "true")
			if c.mount != "" {
				req.Spec.Mounts = append(req.Spec.Mounts, specs.Mount{Destination: c.mount, Type: "tmpfs", Source: "tmpfs"})
			}
			if res, err := run(t, r, req); err == nil {
				t.Errorf("mounted: %v", res)
			}
		})
	}
}
