package store

import (
	"archive/tar"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/pkg/archive"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/registry/registrytest"
)

// describe lists a tree with everything a layer keeps of it.
func describe(t *testing.T, root string) map[string]string {
	t.Helper()
	got := map[string]string{}
	inodes := map[uint64]string{}
	err := filepath.Walk(root, func(p string, _ os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return err
		}
		name := strings.TrimPrefix(p, root)
		if name == "" {
			return nil // the caller's
		}
		s := fmt.Sprintf("%o %d:%d dev %d", st.Mode, st.Uid, st.Gid, st.Rdev)
		if st.Mode&unix.S_IFMT != unix.S_IFCHR { // whiteouts have no time
			s += fmt.Sprintf(" %d.%d", st.Mtim.Sec, st.Mtim.Nsec)
		}
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			b, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			s += " " + string(b)
			if first, ok := inodes[st.Ino]; ok {
				s += " is " + first
			}
			inodes[st.Ino] = name
		case unix.S_IFLNK:
			l, err := os.Readlink(p)
			if err != nil {
				return err
			}
			s += " -> " + l
		}
		for _, x := range []string{opaqueXattr, "user.x", "security.capability"} {
			buf := make([]byte, 100)
			if n, err := unix.Lgetxattr(p, x, buf); err == nil {
				s += fmt.Sprintf(" %s=%q", x, buf[:n])
			}
		}
		got[name] = s
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// TestUntarAsContainerd compares with containerd's unpacking.
func TestUntarAsContainerd(t *testing.T) {
	needsRoot(t)
	at := time.Date(2020, 2, 3, 4, 5, 6, 789000000, time.UTC)
	file := func(name, body string, change func(*tar.Header)) registrytest.File {
		f := registrytest.File{Header: tar.Header{Name: name, ModTime: at, Format: tar.FormatPAX}, Body: body}
		if change != nil {
			change(&f.Header)
		}
		return f
	}
	typed := func(name string, kind byte, link string) registrytest.File {
		return file(name, "", func(h *tar.Header) {
			h.Typeflag, h.Linkname, h.Mode = kind, link, 0o755
			if kind == tar.TypeLink {
				h.Mode = 0o644 // a link says the same as its target
			}
		})
	}
	p := registrytest.Tar(t,
		typed("./", tar.TypeDir, ""), typed("a/", tar.TypeDir, ""), typed("a/sticky/", tar.TypeDir, ""),
		file("a/f", "first", nil), file("a/f", "second", nil), // replaced
		file("a/suid", "s", func(h *tar.Header) { h.Mode, h.Uid, h.Gid = 0o6755, 1000, 1001 }),
		file("/abs/implied/deep", "x", nil), file("no/../dots", "d", nil),
		typed("link", tar.TypeSymlink, "a"), file("link/through", "by link", nil),
		typed("dangling", tar.TypeSymlink, "made/later"), file("dangling/x", "y", nil),
		typed("out", tar.TypeSymlink, "/../../a"), file("out/kept", "inside", nil),
		typed("hard", tar.TypeLink, "a/f"), typed("hard2", tar.TypeLink, "/link/f"),
		typed("tree/", tar.TypeDir, ""), file("tree/x/y", "z", nil), file("tree", "now a file", nil),
		file("was", "file", nil), typed("was/", tar.TypeDir, ""), file("was/inner", "i", nil),
		typed("fifo", tar.TypeFifo, ""),
		file("null", "", func(h *tar.Header) { h.Typeflag, h.Devmajor, h.Devminor, h.Mode = tar.TypeChar, 1, 3, 0o666 }),
		file("a/.wh.removed", "", nil), typed("opq/", tar.TypeDir, ""), file("opq/.wh..wh..opq", "", nil), file("opq/new", "n", nil),
		file("attr", "x", func(h *tar.Header) { h.PAXRecords = map[string]string{"SCHILY.xattr.user.x": "y"} }),
		file("cap", "x", func(h *tar.Header) {
			h.PAXRecords = map[string]string{"SCHILY.xattr.security.capability": "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"}
		}),
		file("old", "before the epoch", func(h *tar.Header) { h.ModTime = time.Unix(-100, 0) }),
		file("empty", "", nil), file("big", strings.Repeat("0123456789", 100000), nil),
	)
	ours, theirs := t.TempDir(), t.TempDir()
	if err := extractTar(t.Context(), bytes.NewReader(p), ours, newEntries().check); err != nil {
		t.Fatal(err)
	}
	if _, err := archive.Apply(t.Context(), theirs, bytes.NewReader(p), archive.WithConvertWhiteout(archive.OverlayConvertWhiteout)); err != nil {
		t.Fatal(err)
	}
	a, b := describe(t, ours), describe(t, theirs)
	// Directories that nobody describes have the time of the unpacking.
	for _, m := range []map[string]string{a, b} {
		for k, v := range m {
			for _, implied := range []string{"/abs", "/abs/implied", "/made", "/made/later", "/no"} {
				if k == implied {
					m[k] = strings.Join(strings.Fields(v)[:2], " ")
				}
			}
		}
	}
	if d := cmp.Diff(b, a); d != "" {
		t.Errorf("containerd (-), ours (+): %s", d)
	}
}

// FuzzUntar unpacks hostile archives and looks for what they did outside.
func FuzzUntar(f *testing.F) {
	if os.Geteuid() != 0 {
		f.Skip("needs root to own files of others")
	}
	f.Add(registrytest.Tar(f, registrytest.Regular("../x", "y"), registrytest.File{Header: tar.Header{Name: "l", Typeflag: tar.TypeSymlink, Linkname: ".."}}, registrytest.Regular("l/kept", "y")))
	f.Add(registrytest.Tar(f, registrytest.File{Header: tar.Header{Name: "h", Typeflag: tar.TypeLink, Linkname: "../kept"}}, registrytest.Regular("h", "y")))
	f.Fuzz(func(t *testing.T, p []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(dir+"/kept", []byte("kept"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(dir+"/layer", 0o700); err != nil {
			t.Fatal(err)
		}
		_ = extractTar(t.Context(), bytes.NewReader(p), dir+"/layer", newEntries().check)
		names, err := os.ReadDir(dir)
		if err != nil || len(names) != 2 {
			t.Fatalf("%v, %v", names, err)
		}
		if b, err := os.ReadFile(dir + "/kept"); err != nil || string(b) != "kept" {
			t.Fatalf("%q, %v", b, err)
		}
	})
}
