package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Delegate gives a v2 cgroup to a user of the host, who may then make groups
// inside: the directory and the files that the kernel names for that, no limits
// (config-linux.md, "Cgroup ownership"). It does nothing on v1, where that is
// not safe.
func (h *Host) Delegate(path string, uid int) error {
	if !h.V2 {
		return nil
	}
	dir := h.Unified().Dir(path)
	files := []string{"cgroup.procs", "cgroup.subtree_control", "cgroup.threads"}
	if b, err := os.ReadFile("/sys/kernel/cgroup/delegate"); err == nil {
		files = strings.Fields(string(b))
	}
	for _, f := range append(files, "") {
		err := unix.Fchownat(unix.AT_FDCWD, filepath.Join(dir, f), uid, -1, unix.AT_SYMLINK_NOFOLLOW)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("give cgroup file %s to user %d: %w", filepath.Join(dir, f), uid, err)
		}
	}
	return nil
}
