package ocirun

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

const hostID = 100000

func mapped(t *testing.T, root string, script string) *CreateRequest {
	t.Helper()
	err := filepath.Walk(root, func(name string, _ os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(name, hostID, hostID)
	})
	if err != nil {
		t.Fatal(err)
	}
	for dir := filepath.Dir(root); dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	req := sh(root, script)
	m := []specs.LinuxIDMapping{{ContainerID: 0, HostID: hostID, Size: 65536}}
	req.Spec.Linux.UIDMappings, req.Spec.Linux.GIDMappings = m, m
	req.Spec.Linux.Namespaces = append(req.Spec.Linux.Namespaces,
		specs.LinuxNamespace{Type: specs.UserNamespace}, specs.LinuxNamespace{Type: specs.CgroupNamespace})
	return req
}

func TestUserNamespace(t *testing.T) {
	r := newRuntime(t)
	root := busyboxRoot(t)
	req := mapped(t, root, "id; head -1 /proc/self/uid_map | grep -o '0 .*100000 .*65536'; grep CapEff /proc/self/status; echo x > /file; stat -c %u /file; "+
		"echo y > /dev/null && echo null; head -c 2 /dev/urandom | wc -c; stat -c %u /proc/1 /dev/pts; hostname; unshare -m true && echo no; wc -c < /proc/interrupts")
	res := mustRun(t, r, req)
	want := "uid=0(root) gid=0(root)\n0     100000      65536\nCapEff:\t00000000a80425fb\n0\nnull\n2\n0\n0\nbox\nunshare: unshare(0x20000): Operation not permitted\n0\n"
	if diff := cmp.Diff(want, res.out); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	fi, err := os.Stat(filepath.Join(root, "file"))
	if err != nil {
		t.Fatal(err)
	}
	if uid := statUID(fi); uid != hostID {
		t.Error("the file belongs to", uid)
	}
}

func TestUserNamespaceExec(t *testing.T) {
	r := newRuntime(t)
	root := busyboxRoot(t)
	req := mapped(t, root, "exec sleep 60")
	c := start(t, r, req)
	res, err := execIn(t, r, c, req.Spec, nil, "sh", "-c", "id; hostname; echo x > /y; stat -c %u /y; grep CapEff /proc/self/status; ls /proc/self/fd; "+
		"for n in user pid mnt uts ipc net cgroup; do [ $(readlink /proc/1/ns/$n) = $(readlink /proc/self/ns/$n) ] || echo $n; done; exit 4")
	if err != nil {
		t.Fatal(err)
	}
	want := result{"uid=0(root) gid=0(root)\nbox\n0\nCapEff:\t00000000a80425fb\n0\n1\n2\n3\n", 4}
	if diff := cmp.Diff(want, res, cmp.AllowUnexported(result{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if _, err := execIn(t, r, c, req.Spec, nil, "foo"); err == nil {
		t.Error("no error")
	}
}

// TestUserNamespaceExecHostCgroups is an exec where the cgroup namespace is the
// host's, which root of the container's user namespace may not enter.
func TestUserNamespaceExecHostCgroups(t *testing.T) {
	r := newRuntime(t)
	req := mapped(t, busyboxRoot(t), "exec sleep 60")
	req.Spec.Linux.Namespaces = slices.DeleteFunc(req.Spec.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.CgroupNamespace })
	c := start(t, r, req)
	res, err := execIn(t, r, c, req.Spec, nil, "sh", "-c", "readlink /proc/self/ns/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	if host, err := os.Readlink("/proc/self/ns/cgroup"); err != nil || res.out != host+"\n" {
		t.Errorf("in %q, want the host's %q: %v", res.out, host, err)
	}
}

// TestJoinUserNamespace is a container in another one's user and network
// namespaces, with all others of its own.
func TestJoinUserNamespace(t *testing.T) {
	r := newRuntime(t)
	root := busyboxRoot(t)
	c := start(t, r, mapped(t, root, "exec sleep 60"))
	req := sh(root, "id -u; echo $$; readlink /proc/self/ns/net; readlink /proc/self/ns/user; stat -c %u /proc/1; mount | grep -c ' /proc '")
	for i := range req.Spec.Linux.Namespaces {
		if ns := &req.Spec.Linux.Namespaces[i]; ns.Type == specs.NetworkNamespace {
			ns.Path = fmt.Sprintf("/proc/%d/ns/net", c.Pid)
		}
	}
	req.Spec.Linux.Namespaces = append(req.Spec.Linux.Namespaces,
		specs.LinuxNamespace{Type: specs.UserNamespace, Path: fmt.Sprintf("/proc/%d/ns/user", c.Pid)})
	want := "0\n1\n"
	for _, ns := range []string{"net", "user"} {
		to, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", c.Pid, ns))
		if err != nil {
			t.Fatal(err)
		}
		want += to + "\n"
	}
	res := mustRun(t, r, req)
	if diff := cmp.Diff(want+"0\n1\n", res.out); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestMappedMount shows the files of user 0 as those of user 1000.
func TestMappedMount(t *testing.T) {
	r := newRuntime(t)
	root := busyboxRoot(t)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	req := sh(root, "stat -c '%u:%g' /vol/file; touch /vol/new; stat -c %u /vol/new")
	req.ResolveUser, req.User = true, "1000:1000"
	m := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 1000, Size: 1}}
	req.Spec.Mounts = append(req.Spec.Mounts, specs.Mount{Destination: "/vol", Source: dir, Options: []string{"bind"}, UIDMappings: m, GIDMappings: m})
	res, err := run(t, r, req)
	if err != nil {
		t.Skip("this file system cannot be mapped:", err)
	}
	if res.out != "1000:1000\n1000\n" {
		t.Errorf("%+v", res)
	}
	fi, err := os.Stat(filepath.Join(dir, "new"))
	if err != nil || statUID(fi) != 0 {
		t.Error("the new file is not user 0's", err)
	}
	// Nor is it in the way that the container has a user namespace, where the
	// mapping is the container's own if the mount has none.
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	for d := filepath.Dir(dir); d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	inside := mapped(t, root, "stat -c '%u:%g' /vol/file /vol/new; touch /vol/mine; echo x > /vol/ro/x")
	if err := os.Mkdir(filepath.Join(dir, "ro"), 0o777); err != nil {
		t.Fatal(err)
	}
	inside.Spec.Mounts = append(inside.Spec.Mounts,
		specs.Mount{Destination: "/vol", Source: dir, Options: []string{"bind", "idmap"}},
		specs.Mount{Destination: "/vol/ro", Source: filepath.Join(dir, "ro"), Options: []string{"bind", "idmap", "ro"}})
	if res := mustRun(t, r, inside); res.out != "0:0\n0:0\nsh: can't create /vol/ro/x: Read-only file system\n" {
		t.Errorf("%+v", res)
	}
	if fi, err := os.Stat(filepath.Join(dir, "mine")); err != nil || statUID(fi) != 0 {
		t.Error("the file made in the user namespace is not user 0's", err)
	}
	// A mapping need not have a user 0.
	if err := os.Chown(filepath.Join(dir, "file"), 3000, 3000); err != nil {
		t.Fatal(err)
	}
	m[0] = specs.LinuxIDMapping{ContainerID: 3000, HostID: 4000, Size: 1}
	req.Spec.Process.Args = []string{"stat", "-c", "%u:%g", "/vol/file", "/vol/new"}
	if res := mustRun(t, r, req); res.out != "4000:4000\n65534:65534\n" {
		t.Errorf("%+v", res)
	}
}
