package rootfs

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/internal/testenv"
)

// tree makes a root with a canary outside, and opens it.
func tree(t *testing.T) (root *os.File, dir string) {
	t.Helper()
	top := t.TempDir()
	dir = filepath.Join(top, "root")
	for _, d := range []string{"etc", "data/sub"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o750); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range map[string]string{
		"../canary": "secret", "data/file": "text", "etc/passwd": "root:x:0:0::/:\nmaria:x:12:34::/:\nbroken\n", "etc/group": "crew:x:77:\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	for name, target := range map[string]string{
		"up": "../canary", "abs": filepath.Join(top, "canary"), "loop": "loop", "magic": "/proc/self/root", "data/link": "/etc/passwd",
	} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f, dir
}

func TestOpenStaysInside(t *testing.T) {
	root, _ := tree(t)
	for _, name := range []string{"up", "abs", "../canary", "data/../../canary", "loop", "magic/etc", "data/file/x", "nope"} {
		if f, err := Open(root, name, unix.O_RDONLY, 0); err == nil {
			_ = f.Close()
			t.Errorf("%s was opened", name)
		}
	}
	for _, name := range []string{"/", "", ".", "data/link", "/data/../etc/passwd", "data/"} {
		f, err := Open(root, name, unix.O_RDONLY, 0)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		_ = f.Close()
	}
	if _, err := Open(root, "nope", unix.O_RDONLY, 0); !errdefs.IsNotFound(err) {
		t.Errorf("missing: %v", err)
	}
}

func TestUser(t *testing.T) {
	root, _ := tree(t)
	for spec, want := range map[string][2]int{
		"root": {0, 0}, "maria": {12, 34}, "12": {12, 34}, "maria:crew": {12, 77}, "5": {5, 0}, "5:6": {5, 6},
		"nobody": {-1, -1}, "maria:nobodies": {-1, -1}, "broken": {-1, -1},
	} {
		uid, gid, err := User(root, spec)
		if want[0] < 0 {
			if err == nil {
				t.Errorf("%s: %d:%d", spec, uid, gid)
			}
			continue
		}
		if err != nil || uid != want[0] || gid != want[1] {
			t.Errorf("%s: %d:%d %v, want %v", spec, uid, gid, err, want)
		}
	}
}

func TestCopyTree(t *testing.T) {
	testenv.NeedsRoot(t) // to give files away
	root, dir := tree(t)
	if err := os.Chown(filepath.Join(dir, "data"), 12, 34); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(filepath.Join(dir, "data/file"), filepath.Join(dir, "data/sub/hard")); err != nil {
		t.Fatal(err)
	}
	host := t.TempDir()
	if err := CopyTree(Root{File: root}, "/data", host); err != nil {
		t.Fatal(err)
	}
	var st, hard unix.Stat_t
	if err := unix.Stat(host, &st); err != nil || st.Uid != 12 || st.Gid != 34 || st.Mode&0o777 != 0o750 {
		t.Errorf("directory: %+v %v", st, err)
	}
	if err := unix.Stat(filepath.Join(host, "file"), &st); err != nil {
		t.Fatal(err)
	}
	if err := unix.Stat(filepath.Join(host, "sub/hard"), &hard); err != nil || hard.Ino != st.Ino {
		t.Errorf("hard link: %v", err)
	}
	if target, err := os.Readlink(filepath.Join(host, "link")); err != nil || target != "/etc/passwd" {
		t.Errorf("link: %q %v", target, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "data/new"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := CopyTree(Root{File: root}, "/data", host); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(host, "new")); err == nil {
		t.Error("a volume that is not empty was written to")
	}
	if err := CopyTree(Root{File: root}, "/up", t.TempDir()); err == nil {
		t.Error("copied from outside")
	}
}
