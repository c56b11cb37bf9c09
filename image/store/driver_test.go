package store

import (
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/internal/topdir"
)

// TestSpread looks at the flag where the file system has it.
func TestSpread(t *testing.T) {
	dir := t.TempDir()
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	if st.Type != unix.EXT4_SUPER_MAGIC {
		t.Skip("the temporary directory is not on ext4")
	}
	d, err := openDriver("native", dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.sn.Close(); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Open(filepath.Join(dir, "snapshots"), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	flags, err := unix.IoctlGetUint32(fd, unix.FS_IOC_GETFLAGS)
	if err != nil {
		t.Fatal(err)
	}
	if flags&topdir.Flag == 0 {
		t.Errorf("flags of the snapshots' directory: %#x, without %#x", flags, topdir.Flag)
	}
}
