package ocirun

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// foreign gives the request the mount namespace at path, or this one.
func foreign(req *CreateRequest, path string) *CreateRequest {
	l := req.Spec.Linux
	l.Namespaces = slices.DeleteFunc(l.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.MountNamespace })
	if path != "" {
		l.Namespaces = append(l.Namespaces, specs.LinuxNamespace{Type: specs.MountNamespace, Path: path})
	}
	return req
}

const foreignScript = "echo $$; ls /; hostname; cat /proc/1/comm; echo x > /dev/null && ls /dev/shm; wc -c < /proc/interrupts; touch /proc/sys/x 2>&1 | grep -c Read-only; cat /shared/file; touch /y 2>&1"

const foreignOutput = "1\nbin\ndev\netc\nhome\nproc\nroot\nshared\nsys\ntmp\nbox\nsh\n0\n0\nhello\n"

func foreignRequest(t *testing.T, root string) *CreateRequest {
	t.Helper()
	share := t.TempDir()
	if err := os.WriteFile(filepath.Join(share, "file"), []byte("hello\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	req := sh(root, foreignScript)
	req.ID = testID(t)
	req.Spec.Mounts = append(req.Spec.Mounts, specs.Mount{Destination: "/shared", Source: share, Options: []string{"rbind", "ro"}})
	return req
}

func TestForeignMountNamespace(t *testing.T) {
	r := newRuntime(t)
	other := exec.Command("unshare", "-m", "--propagation", "private", "sleep", "60")
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = other.Process.Kill()
		_ = other.Wait()
	})
	theirs := fmt.Sprintf("/proc/%d/ns/mnt", other.Process.Pid)
	for _, tt := range []struct {
		name, ns string
		readonly bool
	}{
		{"of the runtime", "", false}, {"of the runtime, read-only", "", true}, {"joined", theirs, false}, {"joined, read-only", theirs, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			root := busyboxRoot(t)
			waitForNS(t, other.Process.Pid)
			req := foreign(foreignRequest(t, root), tt.ns)
			req.Spec.Root.Readonly = tt.readonly
			before, err := ForeignMounts(req.Spec, "")
			if err != nil || len(before) > 0 {
				t.Fatal(before, err)
			}
			want := foreignOutput
			if tt.readonly {
				if err := os.Mkdir(filepath.Join(root, "shared"), 0o755); err != nil {
					t.Fatal(err)
				}
				want += "touch: /y: Read-only file system\n"
			}
			res := mustRun(t, r, req)
			if diff := cmp.Diff(want, res.out); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			during, err := ForeignMounts(req.Spec, "")
			if err != nil || len(during) < len(req.Spec.Mounts) {
				t.Error("its mounts are not there:", during, err)
			}
			if err := UnmountForeign(req.Spec, "", before); err != nil {
				t.Error(err)
			}
			if after, err := ForeignMounts(req.Spec, ""); err != nil || len(after) > 0 {
				t.Error("left behind:", after, err)
			}
		})
	}
}

// waitForNS until the other process is in its own namespace.
func waitForNS(t *testing.T, pid int) {
	t.Helper()
	own, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		t.Fatal(err)
	}
	for {
		comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
		if err != nil {
			t.Fatal(err)
		}
		ns, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/mnt", pid))
		if err == nil && ns != own && strings.TrimSpace(string(comm)) == "sleep" {
			return
		}
		_ = unix.Nanosleep(&unix.Timespec{Nsec: 1e6}, nil)
	}
}

// TestForeignMountNamespaceExec must not lead to the host's root.
func TestForeignMountNamespaceExec(t *testing.T) {
	r := newRuntime(t)
	root := busyboxRoot(t)
	req := foreign(sh(root, "exec sleep 60"), "")
	t.Cleanup(func() {
		if err := UnmountForeign(req.Spec, "", nil); err != nil {
			t.Error(err)
		}
	})
	c := start(t, r, req)
	// The name changes a moment after the descriptors of the init are closed, which is what Start waits for.
	res, err := execIn(t, r, c, req.Spec, nil, "sh", "-c", "ls /; hostname; until grep sleep /proc/1/comm; do :; done")
	if err != nil || res.out != "bin\ndev\netc\nhome\nproc\nroot\nsys\ntmp\nbox\nsleep\n" {
		t.Errorf("%+v %v", res, err)
	}
}

// TestForeignMountsOfFailure: a container that cannot be made leaves none.
func TestForeignMountsOfFailure(t *testing.T) {
	r := newRuntime(t)
	root := busyboxRoot(t)
	req := foreign(sh(root, "true"), "")
	req.Spec.Process.Args = []string{"/nope"}
	if _, err := run(t, r, req); err == nil {
		t.Error("no error")
	}
	if left, err := ForeignMounts(req.Spec, ""); err != nil || len(left) > 0 {
		t.Error("left behind:", left, err)
	}
}
