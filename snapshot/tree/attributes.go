package tree

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// CopyAttributes gives a directory the owner and mode of another.
func CopyAttributes(lower, upper string) error {
	var st, now unix.Stat_t
	if err := unix.Lstat(lower, &st); err != nil {
		return fmt.Errorf("stat %s: %w", lower, err)
	}
	if err := unix.Lstat(upper, &now); err != nil {
		return fmt.Errorf("stat %s: %w", upper, err)
	}
	if st.Uid != now.Uid || st.Gid != now.Gid {
		if err := unix.Lchown(upper, int(st.Uid), int(st.Gid)); err != nil {
			return fmt.Errorf("chown: %w", err)
		}
	}
	if st.Mode&0o7777 != now.Mode&0o7777 {
		if err := unix.Chmod(upper, st.Mode&0o7777); err != nil {
			return fmt.Errorf("chmod: %w", err)
		}
	}
	return nil
}
