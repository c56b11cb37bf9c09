package supervisor

import (
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/wherry-engine/wherry/task"
)

// TestUserNamespaceLives: the lives of a task are in one user namespace, that of its
// network, and its streams are its own.
func TestUserNamespaceLives(t *testing.T) {
	b := newBox(t)
	m := []specs.LinuxIDMapping{{HostID: 100000, Size: 65536}}
	ns, err := b.client.NewNetNS(b.ctx, task.NetNSRequest{UIDMappings: m, GIDMappings: m})
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	req := b.request("ls -l /proc/self/ns/user; head -c 24 /proc/self/uid_map; echo; ls -ln /bin/busybox; echo said > /dev/stderr; exit 3")
	req.Restart = task.RestartPolicy{Name: "on-failure", MaxRetries: 1}
	req.Root.UIDMappings, req.Root.GIDMappings = m, m
	l := req.Spec.Linux
	l.UIDMappings, l.GIDMappings = m, m
	l.Namespaces = append(l.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace}, specs.LinuxNamespace{Type: specs.NetworkNamespace})
	b.start(req, task.StartFiles{NetNS: ns})
	if st := b.awaitExit(req.ID); st.ExitCode != 3 || st.Restarts != 1 {
		t.Errorf("%+v", st)
	}
	var namespaces, owners []string
	for line := range strings.Lines(b.log(req)) {
		if _, to, ok := strings.Cut(line, "-> "); ok {
			namespaces = append(namespaces, to)
		}
		if strings.Contains(line, "/bin/busybox") {
			owners = append(owners, strings.Fields(line)[2])
		}
	}
	if len(namespaces) != 2 || namespaces[0] != namespaces[1] {
		t.Errorf("user namespaces: %q", namespaces)
	}
	if len(owners) != 2 || owners[0] != "0" {
		t.Errorf("owners of a file: %q", owners)
	}
	if n := strings.Count(b.log(req), "[said"); n != 2 {
		t.Errorf("said %d times:\n%s", n, b.log(req))
	}
	if _, err := b.client.NewNetNS(b.ctx, task.NetNSRequest{Task: req.ID}); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("in the user namespace of a task that has ended: %v", err)
	}
}

// TestRootOfOtherIDs: a root is mounted in one way at a time.
func TestRootOfOtherIDs(t *testing.T) {
	b := newBox(t)
	m := []specs.LinuxIDMapping{{HostID: 100000, Size: 65536}}
	mapped := task.Root{Bind: b.root, UIDMappings: m, GIDMappings: m}
	f, err := b.client.OpenRoot(b.ctx, "x", mapped)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	if _, err := b.client.OpenRoot(b.ctx, "x", task.Root{Bind: b.root}); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("without the mappings: %v", err)
	}
	if err := b.client.CloseRoot(b.ctx, "x"); err != nil {
		t.Error(err)
	}
	if f, err = b.client.OpenRoot(b.ctx, "x", task.Root{Bind: b.root}); err != nil {
		t.Fatal("when it is closed: ", err)
	}
	f.Close()
	if err := b.client.CloseRoot(b.ctx, "x"); err != nil {
		t.Error(err)
	}
}
