// Package snapshottest is the contract of snapshot.Driver as tests. Every
// implementation runs it.
package snapshottest

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/container"
	"github.com/wherry-engine/wherry/snapshot"
	"github.com/wherry-engine/wherry/task"
)

// Env is a driver with one chain in it, made of the files of Base.
type Env struct {
	Driver snapshot.Driver
	Chain  digest.Digest
	// Extra is what the driver adds for containers, in the form of Base.
	Extra map[string]string
	// Reopen closes the driver and opens it again on the same directories.
	Reopen func() snapshot.Driver
}

// shown is what a new layer shows.
func (e Env) shown() map[string]string {
	m := Base()
	maps.Copy(m, e.Extra)
	return m
}

// Base is what the chain must show: directories end with a slash.
func Base() map[string]string {
	return map[string]string{"etc/": "", "etc/a": "one", "etc/b": "two", "dir/": "", "dir/x": "x", "dir/y": "y", "gone/": "", "gone/z": "z"}
}

// Run runs the suite. It needs root.
func Run(t *testing.T, open func(t *testing.T) Env) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to mount")
	}
	for name, f := range map[string]func(*testing.T, Env){
		"Lifecycle": lifecycle, "Changes": changes, "Diff": diff, "Reopen": reopen, "Refuses": refuses, "View": view,
	} {
		t.Run(name, func(t *testing.T) { f(t, open(t)) })
	}
}

// Mount mounts a root and returns its directory; it is unmounted with the test.
func Mount(t *testing.T, r task.Root) string {
	t.Helper()
	dir := t.TempDir()
	var err error
	switch {
	case r.Bind != "":
		err = unix.Mount(r.Bind, dir, "", unix.MS_BIND, "")
	case r.Upper != "":
		err = unix.Mount("overlay", dir, "overlay", 0, "lowerdir="+strings.Join(r.Layers, ":")+",upperdir="+r.Upper+",workdir="+r.Work)
	default:
		err = unix.Mount("overlay", dir, "overlay", unix.MS_RDONLY, "lowerdir="+strings.Join(append(r.Layers, t.TempDir()), ":"))
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { Unmount(t, dir) })
	return dir
}

// Unmount ends Mount early.
func Unmount(t *testing.T, dir string) {
	t.Helper()
	if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) {
		t.Error(err)
	}
}

// List returns what a directory holds.
func List(t *testing.T, dir string) map[string]string {
	t.Helper()
	got := map[string]string{}
	err := filepath.Walk(dir, func(p string, fi os.FileInfo, err error) error {
		if err != nil || p == dir {
			return err
		}
		name := strings.TrimPrefix(p, dir+"/")
		if fi.Mode()&os.ModeSymlink != 0 {
			target, err := os.Readlink(p)
			got[name] = "-> " + target
			return err
		}
		if fi.IsDir() {
			got[name+"/"] = ""
			return nil
		}
		b, err := os.ReadFile(p)
		got[name] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func create(t *testing.T, e Env, id container.ID) string {
	t.Helper()
	if err := e.Driver.Create(t.Context(), id, e.Chain); err != nil {
		t.Fatal(err)
	}
	r, err := e.Driver.Root(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return Mount(t, r)
}

func write(t *testing.T, p, s string) {
	t.Helper()
	if err := os.WriteFile(p, []byte(s), 0o644); err != nil { //nolint:gosec // files of a container
		t.Fatal(err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func lifecycle(t *testing.T, e Env) {
	dir := create(t, e, "one")
	if d := cmp.Diff(e.shown(), List(t, dir)); d != "" {
		t.Error(d)
	}
	write(t, dir+"/new", strings.Repeat("n", 1000))
	u, err := e.Driver.Usage(t.Context(), "one")
	if err != nil || u.Bytes < 1000 || u.Inodes < 1 {
		t.Errorf("usage %+v, %v", u, err)
	}
	other := create(t, e, "two")
	if _, err := os.Lstat(other + "/new"); err == nil {
		t.Error("layers are not apart")
	}
	ids, err := e.Driver.List(t.Context())
	if err != nil || len(ids) != 2 {
		t.Errorf("list %v, %v", ids, err)
	}
	Unmount(t, dir)
	Unmount(t, other)
	for range 2 {
		must(t, e.Driver.Remove(t.Context(), "one"))
	}
	if _, err := e.Driver.Root(t.Context(), "one"); !errdefs.IsNotFound(err) {
		t.Errorf("root of a removed layer: %v", err)
	}
	if dir := create(t, e, "one"); len(List(t, dir)) != len(e.shown()) {
		t.Error("a removed layer came back")
	}
}

// alter does what changes and diff then report.
func alter(t *testing.T, dir string) {
	t.Helper()
	write(t, dir+"/etc/a", "changed")
	must(t, os.Remove(dir+"/etc/b"))
	must(t, os.Mkdir(dir+"/new", 0o755)) //nolint:gosec // of a container
	write(t, dir+"/new/file", "f")
	must(t, os.Link(dir+"/new/file", dir+"/new/link"))
	must(t, os.Symlink("/etc/a", dir+"/sym"))
	must(t, os.RemoveAll(dir+"/dir"))
	must(t, os.Mkdir(dir+"/dir", 0o755)) //nolint:gosec // of a container
	write(t, dir+"/dir/y", "again")
	must(t, os.RemoveAll(dir+"/gone"))
	must(t, unix.Mkfifo(dir+"/fifo", 0o600))
}

func changes(t *testing.T, e Env) {
	dir := create(t, e, "one")
	alter(t, dir)
	got, err := e.Driver.Changes(t.Context(), "one")
	if err != nil {
		t.Fatal(err)
	}
	want := []snapshot.Change{
		{Path: "/dir", Kind: snapshot.Modified}, {Path: "/dir/x", Kind: snapshot.Deleted}, {Path: "/dir/y", Kind: snapshot.Added},
		{Path: "/etc", Kind: snapshot.Modified}, {Path: "/etc/a", Kind: snapshot.Modified}, {Path: "/etc/b", Kind: snapshot.Deleted},
		{Path: "/fifo", Kind: snapshot.Added}, {Path: "/gone", Kind: snapshot.Deleted},
		{Path: "/new", Kind: snapshot.Added}, {Path: "/new/file", Kind: snapshot.Added}, {Path: "/new/link", Kind: snapshot.Added},
		{Path: "/sym", Kind: snapshot.Added},
	}
	for i := range got {
		// A replaced file may be reported as modified or as added.
		if got[i].Path == "/dir/y" {
			got[i].Kind = snapshot.Added
		}
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func diff(t *testing.T, e Env) {
	dir := create(t, e, "one")
	alter(t, dir)
	var b bytes.Buffer
	if err := e.Driver.Diff(t.Context(), "one", &b); err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	tr := tar.NewReader(&b)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		got[h.Name] = string(h.Typeflag) + " " + h.Linkname + string(body)
	}
	for name, want := range map[string]string{
		"etc/a": "0 changed", "etc/.wh.b": "0 ", ".wh.gone": "0 ", "new/": "5 ", "new/file": "0 f", "new/link": "1 new/file",
		"sym": "2 /etc/a", "dir/y": "0 again", "fifo": "6 ",
	} {
		if got[name] != want {
			t.Errorf("%s: %q, want %q", name, got[name], want)
		}
	}
	if got["dir/.wh..wh..opq"] == "" && got["dir/.wh.x"] == "" {
		t.Errorf("nothing says that dir/x is gone: %v", got)
	}
}

func reopen(t *testing.T, e Env) {
	dir := create(t, e, "one")
	write(t, dir+"/kept", "k")
	Unmount(t, dir)
	d := e.Reopen()
	r, err := d.Root(t.Context(), "one")
	if err != nil {
		t.Fatal(err)
	}
	want := e.shown()
	want["kept"] = "k"
	if diff := cmp.Diff(want, List(t, Mount(t, r))); diff != "" {
		t.Error(diff)
	}
}

func refuses(t *testing.T, e Env) {
	ctx := t.Context()
	if err := e.Driver.Create(ctx, "x", digest.FromString("no such chain")); !errdefs.IsNotFound(err) {
		t.Errorf("unknown chain: %v", err)
	}
	must(t, e.Driver.Create(ctx, "x", e.Chain))
	if err := e.Driver.Create(ctx, "x", e.Chain); !errdefs.IsAlreadyExists(err) {
		t.Errorf("twice: %v", err)
	}
	for _, id := range []container.ID{"", "../x", "a/b", ".trash"} {
		if err := e.Driver.Create(ctx, id, e.Chain); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%q: %v", id, err)
		}
		if err := e.Driver.Remove(ctx, id); err == nil {
			t.Errorf("remove %q: no error", id)
		}
	}
	if _, err := e.Driver.Changes(ctx, "none"); !errdefs.IsNotFound(err) {
		t.Errorf("changes: %v", err)
	}
	if err := e.Driver.Diff(ctx, "none", io.Discard); !errdefs.IsNotFound(err) {
		t.Errorf("diff: %v", err)
	}
}

func view(t *testing.T, e Env) {
	r, err := e.Driver.View(t.Context(), e.Chain)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(Base(), List(t, Mount(t, r))); d != "" || !r.ReadOnly {
		t.Errorf("%v %s", r.ReadOnly, d)
	}
}
