package local

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	apivolume "github.com/moby/moby/api/types/volume"
	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/volume"
	"github.com/wherry-engine/wherry/volume/volumetest"
)

// memory is a State without a disk.
type memory map[string][]byte

func (m memory) Put(_, key string, val []byte) error { m[key] = val; return nil }
func (m memory) Delete(_, key string) error          { delete(m, key); return nil }
func (m memory) ForEach(_ string, fn func(string, []byte) error) error {
	for k, v := range m {
		if err := fn(k, v); err != nil {
			return err
		}
	}
	return nil
}

func open(t *testing.T, dir string, st State) *Store {
	t.Helper()
	s, err := Open(Options{Dir: dir, State: st})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func create(t *testing.T, s *Store, req apivolume.CreateRequest) apivolume.Volume {
	t.Helper()
	v, err := s.Create(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func names(t *testing.T, s *Store) []string {
	t.Helper()
	all, err := s.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	got := []string{}
	for _, v := range all {
		got = append(got, v.Name)
	}
	return got
}

func TestLife(t *testing.T) {
	dir, st := t.TempDir(), memory{}
	s := open(t, dir, st)
	v := create(t, s, apivolume.CreateRequest{Name: "data", Labels: map[string]string{"a": "b"}})
	if v.Mountpoint != filepath.Join(dir, "data", "_data") || v.Driver != "local" || v.Scope != "local" {
		t.Errorf("volume: %+v", v)
	}
	if err := os.WriteFile(filepath.Join(v.Mountpoint, "f"), make([]byte, 1000), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(filepath.Join(v.Mountpoint, "f"), filepath.Join(v.Mountpoint, "g")); err != nil {
		t.Fatal(err)
	}
	if n, err := s.Usage(t.Context(), "data"); err != nil || n != 1000 {
		t.Errorf("usage: %d, %v", n, err)
	}
	again := create(t, s, apivolume.CreateRequest{Name: "data", Driver: "local"})
	if diff := cmp.Diff(v, again); diff != "" {
		t.Error(diff)
	}
	if err := s.Reference(t.Context(), "data", "c1"); err != nil {
		t.Fatal(err)
	}
	err := s.Delete(t.Context(), "data", true)
	if !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "volume is in use - [c1]") {
		t.Errorf("in use: %v", err)
	}

	s = open(t, dir, st) // references are the engine's to rebuild
	if err := s.Delete(t.Context(), "data", false); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get(t.Context(), "data"); !errdefs.IsNotFound(err) {
		t.Errorf("after removal: %v", err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 || len(st) != 0 {
		t.Errorf("left: %v, %v", left, st)
	}
	if err := s.Delete(t.Context(), "data", true); err != nil {
		t.Errorf("forced: %v", err)
	}
	if err := s.Delete(t.Context(), "data", false); !errdefs.IsNotFound(err) {
		t.Errorf("missing: %v", err)
	}
}

func TestCreateRefuses(t *testing.T) {
	s := open(t, t.TempDir(), memory{})
	opts := func(kv ...string) map[string]string {
		m := map[string]string{}
		for i := 0; i < len(kv); i += 2 {
			m[kv[i]] = kv[i+1]
		}
		return m
	}
	for name, tc := range map[string]struct {
		req  apivolume.CreateRequest
		is   func(error) bool
		want string
	}{
		"slash":        {apivolume.CreateRequest{Name: "a/b"}, errdefs.IsInvalidArgument, "includes invalid characters for a local volume name"},
		"dots":         {apivolume.CreateRequest{Name: ".."}, errdefs.IsInvalidArgument, "includes invalid characters"},
		"short":        {apivolume.CreateRequest{Name: "a"}, errdefs.IsInvalidArgument, "volume name is too short"},
		"driver":       {apivolume.CreateRequest{Name: "ab", Driver: "nope"}, errdefs.IsNotFound, `plugin "nope" not found`},
		"no device":    {apivolume.CreateRequest{Name: "ab", DriverOpts: opts("type", "tmpfs")}, errdefs.IsInvalidArgument, `missing required option: "device"`},
		"option":       {apivolume.CreateRequest{Name: "ab", DriverOpts: opts("x", "y")}, errdefs.IsInvalidArgument, `invalid option: "x"`},
		"remount":      {apivolume.CreateRequest{Name: "ab", DriverOpts: opts("type", "none", "device", "/", "o", "bind,remount")}, errdefs.IsInvalidArgument, "remount"},
		"size is a to": {apivolume.CreateRequest{Name: "ab", DriverOpts: opts("size", "1G")}, errdefs.IsNotImplemented, "size"},
	} {
		if _, err := s.Create(t.Context(), tc.req); !tc.is(err) || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got := names(t, s); len(got) != 0 {
		t.Errorf("volumes: %v", got)
	}
}

func TestAnonymous(t *testing.T) {
	s := open(t, t.TempDir(), memory{})
	v := create(t, s, apivolume.CreateRequest{})
	if _, ok := v.Labels[anonymousLabel]; !ok || len(v.Name) != 64 {
		t.Errorf("volume: %+v", v)
	}
}

// A start finishes what a kill interrupted, at each step.
func TestInterrupted(t *testing.T) {
	dir, st := t.TempDir(), memory{}
	s := open(t, dir, st)
	create(t, s, apivolume.CreateRequest{Name: "made"})
	create(t, s, apivolume.CreateRequest{Name: "marked"})
	create(t, s, apivolume.CreateRequest{Name: "renamed"})
	for _, name := range []string{"marked", "renamed"} {
		if _, err := s.beginRemoval(name); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.RemoveAll(filepath.Join(dir, "made")); err != nil { // killed before the directory was made
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(dir, "renamed"), filepath.Join(dir, trashPrefix+"1")); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "found", dataDir), 0o755); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir, st)
	if diff := cmp.Diff([]string{"found", "made"}, names(t, s)); diff != "" {
		t.Error(diff)
	}
	left, _ := os.ReadDir(dir)
	if len(left) != 2 {
		t.Errorf("directories: %v", left)
	}
	if _, err := os.Stat(s.path("made")); err != nil {
		t.Error(err)
	}
}

func TestPopulate(t *testing.T) {
	s := open(t, t.TempDir(), memory{})
	v := create(t, s, apivolume.CreateRequest{Name: "vol"})
	needs := func() bool {
		t.Helper()
		n, err := s.NeedsPopulating(t.Context(), "vol")
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if !needs() {
		t.Error("a new volume is not to be filled")
	}
	f := filepath.Join(v.Mountpoint, "f")
	if err := os.WriteFile(f, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if needs() {
		t.Error("a volume with files is to be filled")
	}
	if err := os.Remove(f); err != nil {
		t.Fatal(err)
	}
	if err := s.Populated(t.Context(), "vol"); err != nil {
		t.Fatal(err)
	}
	if needs() {
		t.Error("a volume that was filled is to be filled again")
	}
}

func TestMounts(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root")
	}
	dir, st, src := t.TempDir(), memory{}, t.TempDir()
	s := open(t, dir, st)
	create(t, s, apivolume.CreateRequest{Name: "tmp", DriverOpts: map[string]string{"type": "tmpfs", "device": "tmpfs", "o": "size=1m,uid=7,noexec"}})
	create(t, s, apivolume.CreateRequest{Name: "bind", DriverOpts: map[string]string{"type": "none", "device": src, "o": "bind,ro"}})
	t.Cleanup(func() {
		_ = unmountAll(s.path("tmp"))
		_ = unmountAll(s.path("bind"))
	})
	for _, name := range []string{"tmp", "bind"} {
		for _, c := range []string{"c1", "c1", "c2"} {
			if _, err := s.Mount(t.Context(), name, c); err != nil {
				t.Fatal(err)
			}
		}
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(s.path("tmp"), &fs); err != nil || fs.Type != unix.TMPFS_MAGIC || fs.Flags&unix.ST_NOEXEC == 0 {
		t.Errorf("tmpfs: %v, %+v", err, fs)
	}
	if err := os.WriteFile(filepath.Join(s.path("bind"), "f"), nil, 0o600); err == nil {
		t.Error("a read-only bind mount can be written")
	}
	mounted := func(s *Store, name string) bool {
		on, err := isMounted(s.path(name))
		if err != nil {
			t.Fatal(err)
		}
		return on
	}
	for _, c := range []string{"c1", "c2"} {
		if err := s.Unmount(t.Context(), "tmp", c); err != nil {
			t.Fatal(err)
		}
	}
	if !mounted(s, "tmp") {
		t.Error("unmounted while c1 uses it once more")
	}
	if err := s.Unmount(t.Context(), "tmp", "c1"); err != nil || mounted(s, "tmp") {
		t.Errorf("last use: %v, mounted %v", err, mounted(s, "tmp"))
	}

	s = open(t, dir, st) // a new daemon: c2 lives and mounts again, then nobody
	if _, err := s.Mount(t.Context(), "bind", "c2"); err != nil {
		t.Fatal(err)
	}
	s.Settle()
	if !mounted(s, "bind") {
		t.Error("a used mount was taken away")
	}
	s = open(t, dir, st)
	s.Settle()
	if mounted(s, "bind") {
		t.Error("an unused mount is left")
	}
	if _, err := os.Stat(src); err != nil {
		t.Error(err)
	}
}

func TestMountFailureNamesTheVolume(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root")
	}
	s := open(t, t.TempDir(), memory{})
	create(t, s, apivolume.CreateRequest{Name: "bad", DriverOpts: map[string]string{"type": "none", "device": "/nonexistent", "o": "bind"}})
	_, err := s.Mount(t.Context(), "bad", "c1")
	if err == nil || !strings.Contains(err.Error(), "error while mounting volume") || !strings.Contains(err.Error(), "no such file or directory") {
		t.Errorf("err = %v", err)
	}
}

func TestContract(t *testing.T) {
	volumetest.Run(t, func(t *testing.T) volume.Store { return open(t, t.TempDir(), memory{}) })
}
