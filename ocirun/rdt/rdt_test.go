package rdt

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// tree stands in for a resctrl file system, which few machines have: the
// kernel's side of it, such as files that appear in a new directory, is missing.
func tree(t *testing.T, class, schemata string) string {
	t.Helper()
	root := t.TempDir()
	if class != "" {
		if err := os.Mkdir(filepath.Join(root, class), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, class, "schemata"), []byte(schemata), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestCreate(t *testing.T) {
	const have = "    L3:0=7ff;1=01f\n    MB:0=20;1=70\n"
	for _, tt := range []struct {
		name     string
		config   specs.LinuxIntelRdt
		schemata string // afterwards
		err      func(error) bool
	}{
		{"own", specs.LinuxIntelRdt{L3CacheSchema: "L3:0=f", MemBwSchema: "MB:0=10", Schemata: []string{"L2:0=f", "L2:1=f"}}, "L3:0=f\nMB:0=10\nL2:0=f\nL2:1=f\n", nil},
		{"own without schema", specs.LinuxIntelRdt{}, "", nil},
		{"new class", specs.LinuxIntelRdt{ClosID: "new", MemBwSchema: "MB:0=10"}, "MB:0=10\n", nil},
		{"existing, as it is", specs.LinuxIntelRdt{ClosID: "gold"}, have, nil},
		{"existing, same", specs.LinuxIntelRdt{ClosID: "gold", L3CacheSchema: "L3:1=1f;0=7ff", MemBwSchema: "MB:0=20"}, have, nil},
		{"existing, other", specs.LinuxIntelRdt{ClosID: "gold", L3CacheSchema: "L3:0=7fe"}, have, errdefs.IsFailedPrecondition},
		{"existing, written", specs.LinuxIntelRdt{ClosID: "gold", Schemata: []string{"L3:0=1"}}, "L3:0=1\n", nil},
		{"missing", specs.LinuxIntelRdt{ClosID: "none"}, "", errdefs.IsNotFound},
		{"the root", specs.LinuxIntelRdt{ClosID: "/"}, "", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			root := tree(t, "gold", have)
			g, err := New(root, "box", &tt.config)
			if err != nil {
				t.Fatal(err)
			}
			err = g.Create()
			if (tt.err == nil) != (err == nil) || err != nil && !tt.err(err) {
				t.Fatal(err)
			}
			b, _ := os.ReadFile(filepath.Join(g.dir, "schemata"))
			if string(b) != tt.schemata {
				t.Errorf("schemata %q", b)
			}
			if err != nil {
				return
			}
			if err := g.Enter(os.Getpid()); err != nil {
				t.Fatal(err)
			}
			if b, _ := os.ReadFile(filepath.Join(g.dir, "tasks")); len(b) == 0 {
				t.Error("no task entered")
			} else if _, err := strconv.Atoi(string(b)); err != nil {
				t.Error(err)
			}
			// In the kernel's file system these vanish with the directory.
			_ = os.Remove(filepath.Join(g.dir, "schemata"))
			_ = os.Remove(filepath.Join(g.dir, "tasks"))
			if err := g.Delete(); err != nil {
				t.Error(err)
			}
			if _, err := os.Stat(g.dir); (err == nil) != (tt.config.ClosID != "") {
				t.Error("after Delete:", err)
			}
		})
	}
}

func TestMonitoring(t *testing.T) {
	root := tree(t, "gold", "")
	if err := os.Mkdir(filepath.Join(root, "gold", "mon_groups"), 0o755); err != nil {
		t.Fatal(err)
	}
	g, err := New(root, "box", &specs.LinuxIntelRdt{ClosID: "gold", EnableMonitoring: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Create(); err != nil {
		t.Fatal(err)
	}
	if err := g.Enter(os.Getpid()); err != nil {
		t.Fatal(err)
	}
	tasks := filepath.Join(root, "gold/mon_groups/box/tasks")
	if _, err := os.Stat(tasks); err != nil {
		t.Fatal(err)
	}
	_ = os.Remove(tasks)
	if err := g.Delete(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(root, "gold/mon_groups/box")); err == nil {
		t.Error("the monitoring group is left")
	}
	// No room for a monitoring group: nothing is left of a class of its own.
	g, err = New(root, "full", &specs.LinuxIntelRdt{EnableMonitoring: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Create(); err == nil {
		t.Error("no error")
	}
	if _, err := os.Stat(filepath.Join(root, "full")); err == nil {
		t.Error("the class is left")
	}
}

func TestInvalid(t *testing.T) {
	for _, c := range []specs.LinuxIntelRdt{
		{ClosID: "a/b"}, {ClosID: ".."}, {ClosID: "info"}, {MemBwSchema: "L3:0=1"}, {Schemata: []string{"L3:0=1\nL3:1=1"}},
	} {
		if _, err := New("/x", "box", &c); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}
