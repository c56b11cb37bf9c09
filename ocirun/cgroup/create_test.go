package cgroup

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/wherry-engine/wherry/internal/testenv"
)

// TestCreateBelowAnothers makes a cgroup below some that another process has
// only just made: they have nothing yet that could be passed on.
func TestCreateBelowAnothers(t *testing.T) {
	testenv.NeedsRoot(t)
	h, err := Detect()
	if err != nil {
		t.Fatal(err)
	}
	path := fmt.Sprintf("/wherry-create-%d/theirs/ours", os.Getpid())
	t.Cleanup(func() {
		for i := range h.All {
			for p := path; p != "/"; p = filepath.Dir(p) {
				if err := os.Remove(h.All[i].Dir(p)); err != nil {
					t.Error(err)
				}
			}
		}
	})
	for i := range h.All {
		if err := os.MkdirAll(h.All[i].Dir(filepath.Dir(path)), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := h.Create(path); err != nil {
		t.Fatal(err)
	}
	read := func(hi *Hierarchy, path, name string) []string {
		b, err := os.ReadFile(filepath.Join(hi.Dir(path), name))
		if err != nil {
			t.Fatal(err)
		}
		return strings.Fields(string(b))
	}
	if hi := h.V1("cpuset"); hi != nil {
		for _, name := range []string{"cpuset.cpus", "cpuset.mems"} {
			if got, want := read(hi, path, name), read(hi, "/", name); !slices.Equal(got, want) {
				t.Errorf("%s is %q, at the root %q", name, got, want)
			}
		}
	}
	if h.V2 {
		got, want := read(h.Unified(), path, "cgroup.controllers"), read(h.Unified(), "/", "cgroup.controllers")
		if !slices.Equal(got, want) {
			t.Errorf("its controllers are %q, the root's %q", got, want)
		}
	}
}
