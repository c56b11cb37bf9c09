package archive

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/engine/rootfs"
)

// open returns a view of dir with a volume mounted at /vol.
func open(t *testing.T) (v *View, root, vol string) {
	t.Helper()
	base := t.TempDir()
	root, vol = filepath.Join(base, "root"), filepath.Join(base, "vol")
	for _, d := range []string{root + "/etc", root + "/vol", root + "/dir/sub", vol + "/deep"} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	files := map[string]string{root + "/etc/passwd": "in", root + "/dir/a": "aaa", vol + "/v": "vol"}
	for name, text := range files {
		if err := os.WriteFile(name, []byte(text), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	links := map[string]string{
		"/abs": "/etc/passwd", "/up": "../../../../etc/passwd", "/tovol": "/vol", "/loop": "loop", "/dirlink": "dir",
	}
	for name, to := range links {
		if err := os.Symlink(to, root+name); err != nil {
			t.Fatal(err)
		}
	}
	rf, vf := openDir(t, root), openDir(t, vol)
	return &View{Root: rootfs.Root{File: rf}, Mounts: map[string]Mount{"/vol": {Root: rootfs.Root{File: vf}}}}, root, vol
}

func openDir(t *testing.T, p string) *os.File {
	t.Helper()
	fd, err := unix.Open(p, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), p)
	t.Cleanup(func() { f.Close() })
	return f
}

func TestStat(t *testing.T) {
	v, _, _ := open(t)
	for p, want := range map[string]string{
		"/abs": "/etc/passwd", "/up": "/etc/passwd", "/tovol": "/vol", "/tovol/v": "", "etc/passwd": "", "/": "", "/dirlink/": "",
	} {
		st, err := v.Stat(p)
		if err != nil || st.LinkTarget != want {
			t.Errorf("%s: %+v, %v; want target %q", p, st, err, want)
		}
	}
	for _, p := range []string{"/none", "/etc/passwd/x", "/none/../x"} {
		if _, err := v.Stat(p); !errdefs.IsNotFound(err) {
			t.Errorf("%s: %v, want NotFound", p, err)
		}
	}
	if _, err := v.Stat("/etc/passwd/"); !errdefs.IsInvalidArgument(err) && !errdefs.IsNotFound(err) {
		t.Errorf("file as directory: %v", err)
	}
	if _, err := v.Stat("/loop/"); !errdefs.IsInvalidArgument(err) {
		t.Errorf("loop: %v, want InvalidArgument", err)
	}
}

func names(t *testing.T, r io.Reader) []string {
	t.Helper()
	var out []string
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			slices.Sort(out)
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, h.Name)
	}
}

func TestGet(t *testing.T) {
	v, _, _ := open(t)
	for p, want := range map[string][]string{
		"/dir":      {"dir/", "dir/a", "dir/sub/"},
		"/dir/.":    {"./", "./a", "./sub/"},
		"/vol":      {"vol/", "vol/deep/", "vol/v"},
		"/tovol/v":  {"v"},
		"/abs":      {"abs"},
		"/dirlink/": {"dirlink/", "dirlink/a", "dirlink/sub/"},
	} {
		var buf bytes.Buffer
		if err := v.Get(t.Context(), p, &buf); err != nil {
			t.Errorf("%s: %v", p, err)
			continue
		}
		if diff := cmp.Diff(want, names(t, &buf)); diff != "" {
			t.Errorf("%s: %s", p, diff)
		}
	}
	var buf bytes.Buffer
	if err := v.Export(t.Context(), &buf); err != nil {
		t.Fatal(err)
	}
	if got := names(t, &buf); slices.Contains(got, "vol/v") || !slices.Contains(got, "etc/passwd") {
		t.Errorf("export: %v", got)
	}
}

func tarOf(hs ...tar.Header) io.Reader {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, h := range hs {
		if h.Typeflag == tar.TypeReg {
			h.Size = 3
		}
		if h.Mode == 0 {
			h.Mode = 0o644
		}
		h.Uid, h.Gid = os.Getuid(), os.Getgid()
		if err := w.WriteHeader(&h); err != nil {
			panic(err)
		}
		if h.Typeflag == tar.TypeReg {
			_, _ = w.Write([]byte("new"))
		}
	}
	w.Close()
	return &buf
}

func reg(name string) tar.Header { return tar.Header{Typeflag: tar.TypeReg, Name: name} }

func TestPut(t *testing.T) {
	v, root, vol := open(t)
	put := func(p string, hs ...tar.Header) error {
		return v.Put(t.Context(), PutOptions{Path: p}, tarOf(hs...))
	}
	if err := put("/dir", reg("x/y/z"), tar.Header{Typeflag: tar.TypeDir, Name: "d/", Mode: 0o700}, tar.Header{Typeflag: tar.TypeSymlink, Name: "l", Linkname: "a"}, reg("a")); err != nil {
		t.Fatal(err)
	}
	if b, _ := os.ReadFile(root + "/dir/x/y/z"); string(b) != "new" {
		t.Errorf("nested: %q", b)
	}
	if err := put("/tovol", reg("w")); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(vol + "/w"); err != nil {
		t.Error(err)
	}
	if err := put("/etc/passwd", reg("w")); !errdefs.IsInvalidArgument(err) {
		t.Errorf("file as target: %v", err)
	}
	if err := put("/none", reg("w")); !errdefs.IsNotFound(err) {
		t.Errorf("missing target: %v", err)
	}
	err := v.Put(t.Context(), PutOptions{Path: "/", NoOverwriteDirNonDir: true}, tarOf(reg("dir")))
	if !errdefs.IsInvalidArgument(err) {
		t.Errorf("overwriting a directory: %v", err)
	}
}

func TestPutHostile(t *testing.T) {
	v, root, _ := open(t)
	canary := filepath.Join(filepath.Dir(root), "canary")
	if err := os.Mkdir(canary, 0o755); err != nil {
		t.Fatal(err)
	}
	for what, hs := range map[string][]tar.Header{
		"dotdot":   {reg("../canary/x")},
		"inner":    {reg("a/../../canary/x")},
		"hardlink": {{Typeflag: tar.TypeLink, Name: "h", Linkname: "../../canary"}},
		"deep":     {reg(strings.Repeat("d/", maxDepth+2) + "x")},
	} {
		if err := v.Put(t.Context(), PutOptions{Path: "/dir"}, tarOf(hs...)); err == nil {
			t.Errorf("%s was accepted", what)
		}
	}
	// Links that lead out are kept as they are and followed inside the root only.
	for i, to := range []string{canary, "../../../../../.." + canary} {
		link := tar.Header{Typeflag: tar.TypeSymlink, Name: "esc" + string(rune('0'+i)), Linkname: to}
		_ = v.Put(t.Context(), PutOptions{Path: "/dir"}, tarOf(link, reg(link.Name+"/x")))
	}
	left, err := os.ReadDir(canary)
	if err != nil || len(left) > 0 {
		t.Errorf("the host was reached: %v %v", left, err)
	}
}

// TestSwap runs cp in both directions while a directory and a link to the
// host are exchanged all the time: CVE-2018-15664's class.
func TestSwap(t *testing.T) {
	v, root, _ := open(t)
	host := filepath.Join(filepath.Dir(root), "host")
	if err := os.MkdirAll(host, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(host+"/secret", []byte("s"), 0o600); err != nil {
		t.Fatal(err)
	}
	a, b := root+"/swap", root+"/swap2"
	if err := os.Mkdir(a, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(host, b); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil {
			if err := unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE); err != nil {
				t.Error(err)
				return
			}
		}
	})
	for range 2000 {
		_ = v.Put(t.Context(), PutOptions{Path: "/swap"}, tarOf(reg("evil"), reg("sub/evil")))
		var buf bytes.Buffer
		if v.Get(t.Context(), "/swap/.", &buf) == nil {
			if got := names(t, &buf); slices.Contains(got, "./secret") || slices.Contains(got, "secret") {
				t.Fatal("a file of the host was read")
			}
		}
	}
	cancel()
	wg.Wait()
	if _, err := os.Stat(host + "/evil"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file was written on the host: %v", err)
	}
}
