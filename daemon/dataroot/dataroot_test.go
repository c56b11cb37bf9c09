package dataroot

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/internal/topdir"
)

func TestOnlyOneDaemon(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "root")
	r, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir); !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "in use by another daemon") {
		t.Errorf("second: %v", err)
	}
	if st, err := os.Stat(dir); err != nil || st.Mode().Perm()&0o007 != 0 {
		t.Errorf("open to others: %v %v", st, err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	r, err = Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestExecRootOfOneDaemon(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "exec")
	f, err := LockExecRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := LockExecRoot(dir); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("second: %v", err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if f, err = LockExecRoot(dir); err != nil {
		t.Fatal(err)
	}
	f.Close()
}

func TestVersions(t *testing.T) {
	for text, fine := range map[string]bool{"1\n": true, "": true, "2\n": false, "x\n": false} {
		dir := t.TempDir()
		path := filepath.Join(dir, "VERSION")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := Open(dir)
		if (err == nil) != fine {
			t.Errorf("%q: %v", text, err)
		}
		if err == nil {
			r.Close()
			continue
		}
		if got, _ := os.ReadFile(path); string(got) != text {
			t.Errorf("%q became %q", text, got)
		}
		if _, err := os.Stat(filepath.Join(dir, "volumes")); err == nil {
			t.Errorf("%q: directories were made", text)
		}
	}
}

// TestTopDirectories looks at the flag where the file system has it.
func TestTopDirectories(t *testing.T) {
	dir := t.TempDir()
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	if st.Type != unix.EXT4_SUPER_MAGIC {
		t.Skip("the temporary directory is not on ext4")
	}
	r, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for _, name := range []string{"containers", "layers", "volumes"} {
		f, err := os.Open(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if flags, err := unix.IoctlGetUint32(int(f.Fd()), unix.FS_IOC_GETFLAGS); err != nil || flags&topdir.Flag == 0 {
			t.Errorf("flags of %s: %#x, %v", name, flags, err)
		}
	}
}
