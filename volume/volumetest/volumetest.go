// Package volumetest states the contract of volumes as tests.
package volumetest

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	apivolume "github.com/moby/moby/api/types/volume"

	"github.com/wherry-engine/wherry/volume"
)

// Run tests a store. open returns an empty one, whose volumes are directories.
func Run(t *testing.T, open func(t *testing.T) volume.Store) {
	for name, test := range map[string]func(*testing.T, volume.Store){
		"create":     testCreate,
		"delete":     testDelete,
		"references": testReferences,
		"mount":      testMount,
		"populate":   testPopulate,
	} {
		t.Run(name, func(t *testing.T) { test(t, open(t)) })
	}
}

func create(t *testing.T, s volume.Store, name string) apivolume.Volume {
	t.Helper()
	v, err := s.Create(t.Context(), apivolume.CreateRequest{Name: name, Labels: map[string]string{"k": name}})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func testCreate(t *testing.T, s volume.Store) {
	v := create(t, s, "second")
	create(t, s, "first")
	again, err := s.Create(t.Context(), apivolume.CreateRequest{Name: "second"})
	must(t, err)
	if diff := cmp.Diff(v, again); diff != "" {
		t.Errorf("created again: %s", diff)
	}
	got, err := s.Get(t.Context(), "second")
	must(t, err)
	if diff := cmp.Diff(v, got); diff != "" {
		t.Error(diff)
	}
	all, err := s.List(t.Context())
	if err != nil || len(all) != 2 {
		t.Errorf("list: %v, %v", all, err)
	}
	for _, bad := range []string{"../x", "a/b", ".x", "-x", "x y", "x\x00y"} {
		if _, err := s.Create(t.Context(), apivolume.CreateRequest{Name: bad}); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if _, err := s.Get(t.Context(), "nope"); !errdefs.IsNotFound(err) {
		t.Errorf("unknown: %v", err)
	}
}

func testDelete(t *testing.T, s volume.Store) {
	v := create(t, s, "vol")
	must(t, os.WriteFile(filepath.Join(v.Mountpoint, "f"), []byte("x"), 0o600))
	must(t, s.Delete(t.Context(), "vol", false))
	if err := s.Delete(t.Context(), "vol", false); !errdefs.IsNotFound(err) {
		t.Errorf("twice: %v", err)
	}
	must(t, s.Delete(t.Context(), "vol", true))
	v = create(t, s, "vol")
	if left, err := os.ReadDir(v.Mountpoint); err != nil || len(left) > 0 {
		t.Errorf("a new volume of the name holds %v, %v", left, err)
	}
}

func testReferences(t *testing.T, s volume.Store) {
	create(t, s, "vol")
	must(t, s.Reference(t.Context(), "vol", "c1"))
	must(t, s.Reference(t.Context(), "vol", "c2"))
	for _, force := range []bool{false, true} {
		if err := s.Delete(t.Context(), "vol", force); !errdefs.IsFailedPrecondition(err) {
			t.Errorf("referenced, force %v: %v", force, err)
		}
	}
	must(t, s.Release(t.Context(), "vol", "c1"))
	if diff := cmp.Diff([]string{"c2"}, s.Users("vol")); diff != "" {
		t.Error(diff)
	}
	must(t, s.Release(t.Context(), "vol", "c2"))
	must(t, s.Release(t.Context(), "vol", "c2")) // no error
	must(t, s.Delete(t.Context(), "vol", false))
	if err := s.Reference(t.Context(), "vol", "c1"); !errdefs.IsNotFound(err) {
		t.Errorf("unknown: %v", err)
	}
}

func testMount(t *testing.T, s volume.Store) {
	v := create(t, s, "vol")
	path, err := s.Mount(t.Context(), "vol", "c1")
	if err != nil || path != v.Mountpoint {
		t.Errorf("mount: %q, %v", path, err)
	}
	must(t, os.WriteFile(filepath.Join(path, "f"), make([]byte, 10), 0o600))
	must(t, s.Unmount(t.Context(), "vol", "c1"))
	must(t, s.Unmount(t.Context(), "vol", "c1")) // no error
	if n, err := s.Usage(t.Context(), "vol"); err != nil || n != 10 {
		t.Errorf("usage: %d, %v", n, err)
	}
	if _, err := s.Mount(t.Context(), "nope", "c1"); !errdefs.IsNotFound(err) {
		t.Errorf("unknown: %v", err)
	}
}

func testPopulate(t *testing.T, s volume.Store) {
	create(t, s, "vol")
	for _, want := range []bool{true, false} {
		if got, err := s.NeedsPopulating(t.Context(), "vol"); err != nil || got != want {
			t.Errorf("needs populating: %v, %v, want %v", got, err, want)
		}
		must(t, s.Populated(t.Context(), "vol"))
	}
}
