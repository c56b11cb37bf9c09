package overlay

import (
	"strconv"

	"golang.org/x/sys/unix"
)

// Status implements snapshot.Driver.
func (d *Driver) Status() [][2]string {
	d.mu.Lock()
	n := len(d.users)
	d.mu.Unlock()
	return [][2]string{
		{"driver-type", "io.containerd.snapshotter.v1"},
		{"Backing Filesystem", backing(d.opts.Root)},
		{"Supports d_type", "true"},
		{"Writable layers", strconv.Itoa(n)},
	}
}

// backing names the file system of a directory.
func backing(dir string) string {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return "<unknown>"
	}
	switch st.Type {
	case unix.EXT4_SUPER_MAGIC:
		return "extfs"
	case unix.XFS_SUPER_MAGIC:
		return "xfs"
	case unix.BTRFS_SUPER_MAGIC:
		return "btrfs"
	case unix.TMPFS_MAGIC:
		return "tmpfs"
	case unix.OVERLAYFS_SUPER_MAGIC:
		return "overlayfs"
	case unix.F2FS_SUPER_MAGIC:
		return "f2fs"
	case 0x2fc12fc1:
		return "zfs"
	}
	return "0x" + strconv.FormatUint(uint64(st.Type), 16) //nolint:gosec // a magic number
}
