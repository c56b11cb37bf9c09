package ocirun

import (
	"os"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// TestDelegation: root of a user namespace manages groups inside its own, limits
// what is in them, and sets no limit of its own.
func TestDelegation(t *testing.T) {
	r := newRuntime(t)
	if !r.cgroups.V2 {
		t.Skip("needs cgroup v2")
	}
	root := busyboxRoot(t)
	for options, want := range map[string]string{
		"rw": "made\nin\nsh: can't create pids.max: Permission denied\n1048576\n7\n",
		"ro": "mkdir: can't create directory 'sub': Read-only file system\nsh: can't create sub/cgroup.procs: nonexistent directory\nsh: can't create pids.max: Read-only file system\n1048576\nno\n",
	} {
		req := mapped(t, root, "cd /sys/fs/cgroup; mkdir sub && echo made; echo $$ > sub/cgroup.procs && echo in; echo 5 > pids.max; cat memory.high; (echo +pids > cgroup.subtree_control && echo 7 > sub/pids.max && cat sub/pids.max) 2>/dev/null || echo no")
		for i := range req.Spec.Mounts {
			if m := &req.Spec.Mounts[i]; m.Type == "cgroup" {
				m.Options = []string{options, "nosuid"}
			}
		}
		req.Spec.Linux.Resources = &specs.LinuxResources{Unified: map[string]string{"memory.high": "1048576", "pids.max": "30"}}
		res := mustRun(t, r, req)
		if res.out != want {
			t.Errorf("%s: %q", options, res.out)
		}
		if options != "rw" {
			continue
		}
		// And in a user namespace that was there before.
		ns, err := r.NewNetNS(nil, req.Spec.Linux.UIDMappings, req.Spec.Linux.GIDMappings)
		if err != nil {
			t.Fatal(err)
		}
		defer ns.Close()
		user, err := OwnerOf(ns)
		if err != nil {
			t.Fatal(err)
		}
		defer user.Close()
		req.ID, req.NetNS, req.Join = "", ns, map[specs.LinuxNamespaceType]*os.File{specs.UserNamespace: user}
		if res := mustRun(t, r, req); res.out != want {
			t.Errorf("%s, joined: %q", options, res.out)
		}
	}
}
