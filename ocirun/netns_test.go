package ocirun

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// owned is a container in the user namespace that a network namespace belongs to,
// with a root whose files belong to user 0 of the host.
func owned(t *testing.T, r *Runtime, ns *os.File, dir, script string) *CreateRequest {
	t.Helper()
	user, err := OwnerOf(ns)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { user.Close() })
	m := []specs.LinuxIDMapping{{ContainerID: 0, HostID: hostID, Size: 65536}}
	root, err := r.OpenRoot(t.Context(), Root{Bind: dir, UIDMappings: m, GIDMappings: m})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.CloseRoot(root) })
	req := sh("", script)
	req.Root, req.NetNS = root, ns
	req.Join = map[specs.LinuxNamespaceType]*os.File{specs.UserNamespace: user}
	req.Spec.Linux.UIDMappings, req.Spec.Linux.GIDMappings = m, m
	req.Spec.Linux.Namespaces = append(req.Spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
	return req
}

// TestNetworkOfUserNamespace is a container whose network namespace was there
// before it: it may configure that, has its sysfs, and mounts of directories that
// nobody but user 0 of the host may reach.
func TestNetworkOfUserNamespace(t *testing.T) {
	r := newRuntime(t)
	m := []specs.LinuxIDMapping{{ContainerID: 0, HostID: hostID, Size: 65536}}
	ns, err := r.NewNetNS(nil, m, m)
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	dir := t.TempDir() // below one that is closed to others
	if err := errors.Join(os.Chmod(filepath.Dir(dir), 0o700), os.WriteFile(filepath.Join(dir, "file"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	bin := busyboxRoot(t)
	if err := os.Symlink("busybox", filepath.Join(bin, "bin/ip")); err != nil {
		t.Fatal(err)
	}
	req := owned(t, r, ns, bin, "id -u; ls /sys/class/net; ip link set lo up && echo up; touch /made; stat -c %u /made /mapped/file /plain/file; cat /plain/file")
	req.Spec.Process.Capabilities.Effective = append(req.Spec.Process.Capabilities.Effective, "CAP_NET_ADMIN")
	req.Spec.Process.Capabilities.Permitted = append(req.Spec.Process.Capabilities.Permitted, "CAP_NET_ADMIN")
	req.Spec.Process.Capabilities.Bounding = append(req.Spec.Process.Capabilities.Bounding, "CAP_NET_ADMIN")
	req.Spec.Mounts = append(req.Spec.Mounts,
		specs.Mount{Destination: "/mapped", Source: dir, Options: []string{"rbind", "idmap"}},
		specs.Mount{Destination: "/plain", Source: dir, Options: []string{"rbind"}})
	res := mustRun(t, r, req)
	want := "0\nlo\nup\n0\n0\n65534\ncat: can't open '/plain/file': Permission denied\n"
	if diff := cmp.Diff(want, res.out); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if fi, err := os.Stat(filepath.Join(bin, "made")); err != nil || statUID(fi) != 0 {
		t.Error("the file is not user 0's on the disk", err)
	}

	// A second one in the same user namespace.
	user, err := OwnerOf(ns)
	if err != nil {
		t.Fatal(err)
	}
	defer user.Close()
	second, err := r.NewNetNS(user, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	var links [2]string
	for i, f := range []*os.File{ns, second} {
		links[i] = mustRun(t, r, owned(t, r, f, bin, "readlink /proc/self/ns/user; ls /sys/class/net")).out
	}
	if links[0] != links[1] {
		t.Errorf("the user namespaces are %q", links)
	}
}

// TestLimitsInUserNamespace: what root there may not raise, the runtime raises.
func TestLimitsInUserNamespace(t *testing.T) {
	r := newRuntime(t)
	var have unix.Rlimit
	if err := unix.Prlimit(0, unix.RLIMIT_NOFILE, nil, &have); err != nil {
		t.Fatal(err)
	}
	more := have.Max + 1
	if err := unix.Prlimit(0, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: have.Cur, Max: more}, nil); err != nil {
		t.Skip("needs CAP_SYS_RESOURCE:", err)
	}
	if err := unix.Prlimit(0, unix.RLIMIT_NOFILE, &have, nil); err != nil {
		t.Fatal(err)
	}
	req := mapped(t, busyboxRoot(t), "ulimit -n; ulimit -Hn; cat /proc/self/oom_score_adj")
	adj := -500
	req.Spec.Process.OOMScoreAdj = &adj
	req.Spec.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 64, Hard: more}}
	if res := mustRun(t, r, req); res.out != fmt.Sprintf("64\n%d\n-500\n", more) {
		t.Errorf("%+v", res)
	}
}

// TestMountsStayInside: what root of a user namespace mounts below the host's
// directories stays in its mount namespace, whatever these are shared with.
func TestMountsStayInside(t *testing.T) {
	r := newRuntime(t)
	dir := t.TempDir()
	if err := unix.Mount(dir, dir, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	if err := errors.Join(unix.Mount("", dir, "", unix.MS_SHARED, ""), os.Mkdir(filepath.Join(dir, "sub"), 0o777)); err != nil {
		t.Fatal(err)
	}
	for name, options := range map[string][]string{"plain": {"rbind"}, "shared": {"rbind", "rshared"}, "mapped": {"bind", "idmap"}} {
		req := mapped(t, busyboxRoot(t), "mount -t tmpfs inside /mnt/sub && touch /mnt/sub/mounted && exec sleep 60")
		for _, set := range []*[]string{&req.Spec.Process.Capabilities.Bounding, &req.Spec.Process.Capabilities.Effective, &req.Spec.Process.Capabilities.Permitted} {
			*set = append(slices.Clone(*set), "CAP_SYS_ADMIN")
		}
		req.Spec.Mounts = append(req.Spec.Mounts, specs.Mount{Destination: "/mnt", Source: dir, Options: options})
		c := start(t, r, req)
		there := fmt.Sprintf("/proc/%d/root/mnt/sub/mounted", c.Pid)
		for deadline := time.Now().Add(10 * time.Second); ; {
			if _, err := os.Stat(there); err == nil {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s: it does not mount", name)
			}
			time.Sleep(time.Millisecond)
		}
		if mounts, err := os.ReadFile("/proc/self/mountinfo"); err != nil || strings.Contains(string(mounts), dir+"/sub ") {
			t.Errorf("%s: the mount is the host's, too %v", name, err)
			_ = unix.Unmount(filepath.Join(dir, "sub"), unix.MNT_DETACH)
		}
	}
}
