package store

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/image"
	"github.com/wherry-engine/wherry/ociref"
	"github.com/wherry-engine/wherry/registry/registrytest"
	"github.com/wherry-engine/wherry/snapshot/overlay"
)

// record keeps what a transfer said.
type record struct {
	mu    sync.Mutex
	lines []string
}

func (r *record) Update(id, action string, _, _ int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if n := len(r.lines); n == 0 || r.lines[n-1] != id+": "+action {
		r.lines = append(r.lines, id+": "+action)
	}
}

func (r *record) Status(id, msg string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if id != "" {
		msg = id + ": " + msg
	}
	r.lines = append(r.lines, msg)
}

func (r *record) Aux(any) {}

func (r *record) has(line string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range r.lines {
		if l == line {
			return true
		}
	}
	return false
}

func needsRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to own files of other users and to set overlayfs attributes")
	}
}

func open(t testing.TB, opts Options) *Store {
	t.Helper()
	needsRoot(t)
	if opts.Root == "" {
		opts.Root = t.TempDir()
	}
	s, err := Open(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// twoLayers is an image whose second layer changes, removes and hides things of the first.
func twoLayers(t testing.TB, opts registrytest.ImageOptions) registrytest.Image {
	t.Helper()
	return registrytest.New(t, opts,
		registrytest.Tar(t,
			registrytest.Dir("tmp/", 0o1777), registrytest.Dir("etc/", 0o755), registrytest.Dir("opq/", 0o755),
			registrytest.Regular("etc/a", "one"), registrytest.Regular("etc/gone", "x"), registrytest.Regular("opq/hidden", "x"),
			registrytest.File{Header: tar.Header{Name: "etc/link", Typeflag: tar.TypeSymlink, Linkname: "/etc/a"}},
			registrytest.File{Header: tar.Header{Name: "etc/hard", Typeflag: tar.TypeLink, Linkname: "etc/a"}},
		),
		registrytest.Tar(t,
			registrytest.Regular("etc/.wh.gone", ""), registrytest.Regular("etc/b", "two"),
			registrytest.Regular("opq/.wh..wh..opq", ""), registrytest.Regular("opq/new", "n"),
			registrytest.Regular("tmp/x", "implied parent"),
		))
}

// show mounts a root read-only and lists it.
func show(t *testing.T, layers []string) map[string]string {
	t.Helper()
	dir := t.TempDir()
	if len(layers) == 1 {
		layers = append(layers, t.TempDir())
	}
	if err := unix.Mount("overlay", dir, "overlay", unix.MS_RDONLY, "lowerdir="+strings.Join(layers, ":")); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	}()
	got := map[string]string{}
	err := filepath.Walk(dir, func(p string, fi os.FileInfo, err error) error {
		if err != nil || p == dir {
			return err
		}
		name := strings.TrimPrefix(p, dir)
		if !fi.Mode().IsRegular() {
			got[name] = fi.Mode().String()
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

var twoLayersShown = map[string]string{
	"/etc": "drwxr-xr-x", "/etc/a": "one", "/etc/b": "two", "/etc/hard": "one", "/etc/link": "Lrwxrwxrwx",
	"/opq": "drwxr-xr-x", "/opq/new": "n", "/tmp": "dtrwxrwxrwx", "/tmp/x": "implied parent",
}

func TestPullAndCreate(t *testing.T) {
	for _, kind := range []registrytest.ImageOptions{{}, {Docker: true}, {Compression: "zstd"}, {Compression: "none"}} {
		t.Run(fmt.Sprintf("docker %v %s", kind.Docker, kind.Compression), func(t *testing.T) { pullAndCreate(t, kind) })
	}
}

func pullAndCreate(t *testing.T, kind registrytest.ImageOptions) {
	addr := registrytest.Start(t, registrytest.Config{})
	img := twoLayers(t, kind)
	registrytest.Remote{Base: "http://" + addr, Repo: "a/two"}.Push(t, img, "1")
	root := t.TempDir()
	s := open(t, Options{Root: root})
	ctx := t.Context()
	var rec record
	ref := addr + "/a/two:1"
	if err := s.Pull(ctx, image.PullRequest{Ref: ref}, &rec); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"1: Pulling from a/two", short(img.Layers[0].Digest) + ": Pulling fs layer", short(img.Layers[0].Digest) + ": Download complete",
		short(img.Layers[1].Digest) + ": Pull complete", "Digest: " + img.Manifest.Digest.String(), "Status: Downloaded newer image for " + ref,
	} {
		if !rec.has(want) {
			t.Errorf("progress lacks %q:\n%s", want, strings.Join(rec.lines, "\n"))
		}
	}
	got, err := s.Resolve(ctx, ref, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got.ID != img.Manifest.Digest || got.ConfigDigest != img.Config.Digest || got.Size == 0 {
		t.Errorf("resolved %+v", got)
	}
	for _, other := range []string{got.ID.String(), got.ID.Encoded(), got.ID.Encoded()[:12], img.Config.Digest.String(), addr + "/a/two@" + got.ID.String()} {
		if again, err := s.Resolve(ctx, other, nil); err != nil || again.ID != got.ID {
			t.Errorf("resolve %s: %v, %v", other, again.ID, err)
		}
	}
	rec = record{}
	if err := s.Pull(ctx, image.PullRequest{Ref: ref}, &rec); err != nil || !rec.has("Status: Image is up to date for "+ref) {
		t.Errorf("second pull: %v, %s", err, rec.lines)
	}
	createOver(t, s, root, got)
}

func createOver(t *testing.T, s *Store, root string, img image.Image) {
	t.Helper()
	ctx := t.Context()
	chain, err := s.Prepare(ctx, img)
	if err != nil {
		t.Fatal(err)
	}
	d, err := overlay.New(overlay.Options{Root: filepath.Join(root, "layers"), Chains: s})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close(context.WithoutCancel(ctx))
	if err := d.Create(ctx, "c1", chain); err != nil {
		t.Fatal(err)
	}
	r, err := d.Root(ctx, "c1")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(twoLayersShown, show(t, r.Layers[1:])); diff != "" {
		t.Errorf("root: %s", diff)
	}
	if _, err := s.GarbageCollect(ctx); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(twoLayersShown, show(t, r.Layers[1:])); diff != "" {
		t.Errorf("root after collection: %s", diff)
	}
	if err := d.Remove(ctx, "c1"); err != nil {
		t.Fatal(err)
	}
}

func TestPullPlatforms(t *testing.T) {
	addr := registrytest.Start(t, registrytest.Config{})
	remote := registrytest.Remote{Base: "http://" + addr, Repo: "multi"}
	images := map[string]registrytest.Image{}
	for _, p := range []string{"linux/amd64", "linux/arm/v6", "linux/riscv64"} {
		parts := strings.Split(p+"/", "/")
		images[p] = registrytest.New(t, registrytest.ImageOptions{Platform: ocispec.Platform{OS: parts[0], Architecture: parts[1], Variant: parts[2]}},
			registrytest.Tar(t, registrytest.Regular("arch", p)))
		remote.Push(t, images[p], images[p].Manifest.Digest.String())
	}
	x := registrytest.Index(t, false, images)
	remote.Put(t, x, "latest")
	s := open(t, Options{})
	ctx := t.Context()
	for want, plat := range map[string]ocispec.Platform{
		"linux/arm/v6": {OS: "linux", Architecture: "arm64"}, "linux/amd64": {OS: "linux", Architecture: "amd64", Variant: "v3"},
	} {
		if err := s.Pull(ctx, image.PullRequest{Ref: addr + "/multi", Platform: &plat}, nil); err != nil {
			t.Fatal(err)
		}
		got, err := s.Resolve(ctx, addr+"/multi", &plat)
		if err != nil || platformText(got.Platform) != want || got.ID != x.Digest {
			t.Errorf("%v: %v, %v", plat, got.Platform, err)
		}
	}
	err := s.Pull(ctx, image.PullRequest{Ref: addr + "/multi", Platform: &ocispec.Platform{OS: "linux", Architecture: "s390x"}}, nil)
	if err == nil || !strings.HasPrefix(err.Error(), "no matching manifest for linux/s390x in the manifest list entries") {
		t.Errorf("s390x: %v", err)
	}
	_, err = s.Resolve(ctx, addr+"/multi", &ocispec.Platform{OS: "linux", Architecture: "riscv64"})
	if err == nil || !strings.Contains(err.Error(), "does not match the specified platform") {
		t.Errorf("riscv64: %v", err)
	}
}

func TestPullErrors(t *testing.T) {
	addr := registrytest.Start(t, registrytest.Config{})
	s := open(t, Options{})
	for ref, want := range map[string]string{
		addr + "/nope:1":       "manifest for " + addr + "/nope:1 not found: manifest unknown: manifest unknown",
		"Bad":                  "invalid reference format: repository name (library/Bad) must be lowercase",
		"127.0.0.1:1/nobody/a": "",
	} {
		err := s.Pull(t.Context(), image.PullRequest{Ref: ref}, nil)
		if err == nil || want != "" && !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: %v", ref, err)
		}
	}
	if list, err := s.List(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("left over: %v, %v", list, err)
	}
}

func TestHostileLayers(t *testing.T) {
	evil := map[string][]byte{
		"dotdot":   registrytest.Tar(t, registrytest.Regular("../../escape", "x")),
		"hardlink": registrytest.Tar(t, registrytest.File{Header: tar.Header{Name: "h", Typeflag: tar.TypeLink, Linkname: "../../../../etc/passwd"}}),
		"nolink":   registrytest.Tar(t, registrytest.File{Header: tar.Header{Name: "h", Typeflag: tar.TypeLink, Linkname: "/etc/passwd"}}),
		"damaged":  append(registrytest.Tar(t, registrytest.Regular("a", strings.Repeat("x", 600)))[:700], bytes.Repeat([]byte("junk"), 700)...),
	}
	addr := registrytest.Start(t, registrytest.Config{})
	root := t.TempDir()
	s := open(t, Options{Root: root})
	for name, layer := range evil {
		img := registrytest.New(t, registrytest.ImageOptions{}, registrytest.Tar(t, registrytest.Regular("ok", name)), layer)
		registrytest.Remote{Base: "http://" + addr, Repo: name}.Push(t, img, "latest")
		err := s.Pull(t.Context(), image.PullRequest{Ref: addr + "/" + name}, nil)
		t.Logf("%s: %v", name, err)
		if err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	linked := registrytest.New(t, registrytest.ImageOptions{}, registrytest.Tar(t,
		registrytest.File{Header: tar.Header{Name: "l", Typeflag: tar.TypeSymlink, Linkname: root}}, registrytest.Regular("l/planted", "x")))
	registrytest.Remote{Base: "http://" + addr, Repo: "symlink"}.Push(t, linked, "latest")
	err := s.Pull(t.Context(), image.PullRequest{Ref: addr + "/symlink"}, nil)
	t.Logf("symlink: %v", err)
	if _, err := os.Lstat(filepath.Join(root, "planted")); err == nil {
		t.Error("a layer wrote outside")
	}
	nothingLeft(t, s)
}

// nothingLeft checks that after a collection only what images need is there.
func nothingLeft(t *testing.T, s *Store) {
	t.Helper()
	ctx := s.context(t.Context())
	s.Adopt(ctx, nil)
	all, err := s.groups(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range all {
		for _, r := range g.records {
			if err := s.images.Delete(ctx, r.Name); err != nil {
				t.Fatal(err)
			}
		}
	}
	for range 2 {
		if _, err := s.GarbageCollect(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if list, err := filepath.Glob(filepath.Join(s.opts.Root, "content/blobs/sha256/*")); err != nil || len(list) != 0 {
		t.Errorf("blobs left: %v, %v", list, err)
	}
	if list, err := filepath.Glob(filepath.Join(s.opts.Root, "snapshots/snapshots/*")); err != nil || len(list) != 0 {
		t.Errorf("snapshots left: %v, %v", list, err)
	}
}

func TestUnpackChecksDiffID(t *testing.T) {
	addr := registrytest.Start(t, registrytest.Config{})
	a := registrytest.New(t, registrytest.ImageOptions{}, registrytest.Tar(t, registrytest.Regular("a", "a")))
	b := registrytest.New(t, registrytest.ImageOptions{}, registrytest.Tar(t, registrytest.Regular("b", "b")))
	m := strings.ReplaceAll(string(a.Manifest.Data), a.Layers[0].Digest.String(), b.Layers[0].Digest.String())
	m = strings.ReplaceAll(m, fmt.Sprintf(`"size":%d`, a.Layers[0].Size), fmt.Sprintf(`"size":%d`, b.Layers[0].Size))
	remote := registrytest.Remote{Base: "http://" + addr, Repo: "swap"}
	remote.Blobs(t, a.Config, b.Layers[0])
	remote.Put(t, registrytest.NewBlob(a.Manifest.MediaType, []byte(m)), "latest")
	s := open(t, Options{})
	err := s.Pull(t.Context(), image.PullRequest{Ref: addr + "/swap"}, nil)
	if err == nil || !strings.Contains(err.Error(), "wrong diff id") {
		t.Errorf("%v", err)
	}
	nothingLeft(t, s)
}

func contextWithTimeout(t *testing.T, d time.Duration) (context.Context, context.CancelFunc) {
	t.Helper()
	return context.WithTimeout(t.Context(), d)
}

func mustRef(t *testing.T, s string) ociref.Reference {
	t.Helper()
	r, err := ociref.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return r
}
