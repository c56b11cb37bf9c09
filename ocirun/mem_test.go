package ocirun

import (
	"fmt"
	"os"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// TestSmallMemory: what an init needs for itself is not taken from a container
// that may use very little.
func TestSmallMemory(t *testing.T) {
	r := newRuntime(t)
	for name, change := range map[string]func(*CreateRequest){
		"2 MiB": func(*CreateRequest) {},
		"2 MiB, cgroup namespace": func(q *CreateRequest) {
			q.Spec.Linux.Namespaces = append(q.Spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.CgroupNamespace})
		},
		"2 MiB, user namespace": func(q *CreateRequest) {
			m := mapped(t, q.Spec.Root.Path, "")
			q.Spec.Linux.Namespaces, q.Spec.Linux.UIDMappings, q.Spec.Linux.GIDMappings = m.Spec.Linux.Namespaces, m.Spec.Linux.UIDMappings, m.Spec.Linux.GIDMappings
		},
	} {
		t.Run(name, func(t *testing.T) {
			root := busyboxRoot(t)
			limit := int64(2 << 20)
			req := sh(root, "read x; exit 7")
			req.Spec.Linux.Resources.Memory = &specs.LinuxMemory{Limit: &limit, Swap: &limit}
			change(req)
			in, out, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer out.Close()
			req.Stdin = in
			c := start(t, r, req)
			in.Close()
			// One of its own processes fits, too.
			res, err := execIn(t, r, c, req.Spec, nil, "echo", "x")
			if err != nil || res != (result{"x\n", 0}) {
				t.Errorf("exec: %+v, %v", res, err)
			}
			fmt.Fprintln(out)
			if code := wait0(t, c.PidFD); code != 7 {
				t.Error("exit code", code)
			}
			if n, err := r.OOMKills(c.Cgroup); n != 0 || err != nil {
				t.Error("OOM kills:", n, err)
			}
		})
	}
}

// TestNoMemory: where not even the first process fits, the error says so, unless
// the kernel finds out only when it executes its program.
func TestNoMemory(t *testing.T) {
	r := newRuntime(t)
	limit := int64(64 << 10)
	req := sh(busyboxRoot(t), "true")
	req.Spec.Linux.Resources.Memory = &specs.LinuxMemory{Limit: &limit, Swap: &limit}
	res, err := run(t, r, req)
	if killed := err == nil && res.code == 137; !killed && (err == nil || !strings.Contains(err.Error(), "65536 bytes of memory")) {
		t.Errorf("got %+v, %v", res, err)
	}
}

// TestInitMemory keeps the reaper small: it stays as long as its container.
// What it shares with others of its kind does not count.
func TestInitMemory(t *testing.T) {
	r := newRuntime(t)
	root := busyboxRoot(t)
	req := sh(root, "exec sleep 60")
	req.Init = true
	c := start(t, r, req)
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", c.Pid))
	if err != nil {
		t.Fatal(err)
	}
	const limit = 4096
	for line := range strings.Lines(string(b)) {
		var kib int
		if n, _ := fmt.Sscanf(line, "Anonymous: %d kB", &kib); n == 1 {
			t.Log(strings.TrimSpace(line))
			if kib > limit {
				t.Errorf("%d KiB of its own, at most %d", kib, limit)
			}
		}
	}
}
