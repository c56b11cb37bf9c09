package archive

import (
	"archive/tar"
	"bytes"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestIgnore(t *testing.T) {
	for _, c := range []struct {
		name     string
		patterns string
		out, in  []string
	}{
		{"plain", "a\nb/c", []string{"a", "a/x", "b/c", "b/c/d"}, []string{"b", "b/d", "x/a"}},
		{"star", "*.log\ntemp?", []string{"x.log", "temp1"}, []string{"d/x.log", "temp", "temp12"}},
		{"double star", "**/*.log\ndocs/**/x", []string{"x.log", "a/b/x.log", "docs/x", "docs/a/b/x"}, []string{"x.txt", "docs/y"}},
		{"trailing double star", "a/**", []string{"a/b", "a/b/c"}, []string{"b"}},
		{"brought back", "d\n!d/keep\nd/keep/not", []string{"d", "d/x", "d/keep/not"}, []string{"d/keep", "d/keep/yes"}},
		{"all but one", "*\n!src", []string{"a", "b/c"}, []string{"src", "src/x"}},
		{"comments, space, slashes", "# x\n\n  /a/  \n./b\nc/../d", []string{"a", "b", "d"}, []string{"c", "# x"}},
	} {
		ig, err := ParseIgnore(strings.NewReader(c.patterns))
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		for _, p := range c.out {
			if !ig.Match(p) {
				t.Errorf("%s: %s is not left out", c.name, p)
			}
		}
		for _, p := range c.in {
			if ig.Match(p) {
				t.Errorf("%s: %s is left out", c.name, p)
			}
		}
	}
	for _, bad := range []string{"!", "a[", "a/[x"} {
		if _, err := ParseIgnore(strings.NewReader(bad)); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}

func names(t *testing.T, r io.Reader) []string {
	t.Helper()
	var out []string
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if err == io.EOF {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, h.Name)
	}
}

func TestWrite(t *testing.T) {
	dir := t.TempDir()
	for _, f := range []string{"d/a.txt", "d/b.log", "d/sub/c.log", "d/sub/d.txt", "d/skip/x"} {
		p := filepath.Join(dir, f)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(f), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("d", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	ig, err := ParseIgnore(strings.NewReader("**/*.log\nskip"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, top string
		o         WriteOptions
		want      []string
	}{
		{"contents", "d", WriteOptions{Skip: ig.Skip}, []string{"a.txt", "sub/", "sub/d.txt"}},
		{"renamed", "d", WriteOptions{Rename: "n", Skip: ig.Skip}, []string{"n/", "n/a.txt", "n/sub/", "n/sub/d.txt"}},
		{"file", "d/a.txt", WriteOptions{Rename: "x"}, []string{"x"}},
		{"link", "link", WriteOptions{Rename: "x"}, []string{"x"}},
		{"link followed", "link", WriteOptions{Rename: "x", FollowTop: true, Skip: ig.Skip}, []string{"x/", "x/a.txt", "x/sub/", "x/sub/d.txt"}},
	} {
		var buf bytes.Buffer
		w := tar.NewWriter(&buf)
		if err := Write(w, filepath.Join(dir, c.top), c.o); err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(c.want, names(t, &buf)); diff != "" {
			t.Errorf("%s: %s", c.name, diff)
		}
	}
}

func stream(t *testing.T, headers ...tar.Header) io.Reader {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, h := range headers {
		if h.Typeflag == tar.TypeReg {
			h.Size = int64(len(h.Name))
		}
		if h.Mode == 0 {
			h.Mode = 0o644
		}
		h.ModTime = time.Unix(1e9, 0)
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg {
			if _, err := io.WriteString(w, h.Name); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &buf
}

func tree(t *testing.T, dir string) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(dir, func(p string, _ fs.DirEntry, err error) error {
		rel, _ := filepath.Rel(dir, p)
		if rel != "." {
			out = append(out, rel)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(out)
	return out
}

func TestExtract(t *testing.T) {
	dir := t.TempDir()
	n, err := Extract(stream(t,
		tar.Header{Name: "top/", Typeflag: tar.TypeDir, Mode: 0o750},
		tar.Header{Name: "top/f", Typeflag: tar.TypeReg, Mode: 0o4755},
		tar.Header{Name: "top/hard", Typeflag: tar.TypeLink, Linkname: "top/f"},
		tar.Header{Name: "top/soft", Typeflag: tar.TypeSymlink, Linkname: "/etc/passwd"},
	), dir, ExtractOptions{Name: "new"})
	if err != nil || n != 5 {
		t.Fatalf("got %d bytes, %v", n, err)
	}
	if diff := cmp.Diff([]string{"new", "new/f", "new/hard", "new/soft"}, tree(t, dir)); diff != "" {
		t.Error(diff)
	}
	st, err := os.Stat(filepath.Join(dir, "new/f"))
	if err != nil || st.Mode() != 0o755|fs.ModeSetuid || !st.ModTime().Equal(time.Unix(1e9, 0)) {
		t.Errorf("got %v %v", st, err)
	}
}

// TestExtractHostile unpacks streams that try to write beside the directory.
func TestExtractHostile(t *testing.T) {
	for name, headers := range map[string][]tar.Header{
		"dots": {{Name: "../../evil", Typeflag: tar.TypeReg}},
		"link out, then through it": {
			{Name: "top/", Typeflag: tar.TypeDir, Mode: 0o755},
			{Name: "top/out", Typeflag: tar.TypeSymlink, Linkname: "../.."},
			{Name: "top/out/evil", Typeflag: tar.TypeReg},
		},
		"absolute link, then through it": {
			{Name: "top/", Typeflag: tar.TypeDir, Mode: 0o755},
			{Name: "top/out", Typeflag: tar.TypeSymlink, Linkname: "/"},
			{Name: "top/out/evil", Typeflag: tar.TypeReg},
		},
		"hard link from outside": {
			{Name: "top/", Typeflag: tar.TypeDir, Mode: 0o755},
			{Name: "top/x", Typeflag: tar.TypeLink, Linkname: "top/../../secret"},
		},
		"hard link through a link": {
			{Name: "top/", Typeflag: tar.TypeDir, Mode: 0o755},
			{Name: "top/out", Typeflag: tar.TypeSymlink, Linkname: "../.."},
			{Name: "top/x", Typeflag: tar.TypeLink, Linkname: "top/out/secret"},
		},
		"second top": {{Name: "a", Typeflag: tar.TypeReg}, {Name: "b", Typeflag: tar.TypeReg}},
		"directory over link": {
			{Name: "top/", Typeflag: tar.TypeDir, Mode: 0o755},
			{Name: "top/out", Typeflag: tar.TypeSymlink, Linkname: "../.."},
			{Name: "top/out/", Typeflag: tar.TypeDir, Mode: 0o777},
		},
	} {
		t.Run(name, func(t *testing.T) {
			outer := t.TempDir()
			dir := filepath.Join(outer, "mid", "dir")
			if err := os.MkdirAll(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(outer, "mid", "secret"), []byte("s"), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := Extract(stream(t, headers...), dir, ExtractOptions{Name: "n"})
			for _, p := range tree(t, outer) {
				if p != "mid" && p != "mid/secret" && !strings.HasPrefix(p, "mid/dir") {
					t.Errorf("%s was written outside (error %v)", p, err)
				}
			}
			if st, err := os.Stat(filepath.Join(outer, "mid", "secret")); err != nil || st.Mode() != 0o600 {
				t.Errorf("the file outside was touched: %v %v", st, err)
			}
			if name != "dots" && err == nil {
				t.Error("no error")
			}
			if raw, err := os.ReadFile(filepath.Join(dir, "n", "x")); err == nil && string(raw) == "s" {
				t.Error("the file outside was linked")
			}
		})
	}
}
