package ocirun

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Labels of the policy in packaging/vm/selinux.cil, one with the comma that
// separates options of mounts.
const (
	seProcess = "u:r:container_t:s0:c1,c2"
	seOther   = "u:r:host_t:s0"
	seFiles   = "u:object_r:container_file_t:s0:c1,c2"
)

// TestSELinux: processes, keyrings and file systems get the labels they are to
// have, under an enforcing kernel; `make test-v2` has one.
func TestSELinux(t *testing.T) {
	if !selinux() || os.WriteFile("/sys/fs/selinux/context", []byte(seProcess), 0) != nil {
		t.Skip("needs SELinux with the policy in packaging/vm/selinux.cil")
	}
	r := newRuntime(t)
	root := busyboxRoot(t)
	box := func(script string) *CreateRequest {
		req := sh(root, script)
		req.Spec.Process.SelinuxLabel, req.Spec.Linux.MountLabel = seProcess, seFiles
		req.Spec.Mounts = append(req.Spec.Mounts, specs.Mount{Destination: "/run", Type: "tmpfs", Source: "tmpfs", Options: []string{"iversion"}})
		return req
	}
	const current = "tr -d '\\000' </proc/self/attr/current"
	for _, nnp := range []bool{false, true} {
		req := box(current)
		req.Spec.Process.NoNewPrivileges = nnp
		if res := mustRun(t, r, req); res.out != seProcess {
			t.Errorf("no new privileges %v: %+v", nnp, res)
		}
	}
	bad := box("true")
	bad.Spec.Process.SelinuxLabel = "u:r:nobody_t:s0"
	if _, err := run(t, r, bad); err == nil || !strings.Contains(err.Error(), "set SELinux label") {
		t.Error("a label that the policy does not know:", err)
	}
	bad = box("true")
	bad.Spec.Linux.MountLabel = "u:object_r:nothing_t:s0"
	if _, err := run(t, r, bad); err == nil {
		t.Error("a context that the policy does not know is accepted")
	}

	req := box("exec sleep 60")
	req.Spec.Process.Args = []string{"/bin/sleep", "60"}
	c := start(t, r, req)
	for label, want := range map[string]string{seProcess: seProcess, seOther: seOther} {
		res, err := execIn(t, r, c, req.Spec, func(q *ExecRequest) { q.Process.SelinuxLabel = label }, "sh", "-c", current)
		if err != nil || res.out != want {
			t.Errorf("exec as %s: %+v %v", label, res, err)
		}
	}
	res, err := execIn(t, r, c, req.Spec, nil, "sh", "-c", "touch /dev/shm/file /dev/mqueue/queue /run/file")
	if err != nil || res.code != 0 {
		t.Errorf("%+v %v", res, err)
	}
	got, want := map[string]string{}, map[string]string{}
	for _, path := range []string{"/dev", "/dev/null", "/dev/pts", "/dev/shm/file", "/dev/mqueue", "/run/file"} {
		buf := make([]byte, 256)
		n, err := unix.Lgetxattr(fmt.Sprintf("/proc/%d/root%s", c.Pid, path), "security.selinux", buf)
		got[path], want[path] = strings.TrimRight(string(buf[:max(n, 0)]), "\x00"), seFiles
		if err != nil {
			t.Error(path, err)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("contexts of files (-want +got):\n%s", diff)
	}
}
