package store

import (
	"archive/tar"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

func procFd(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

// attributes sets owner, mode and extended attributes of a descriptor, or of a
// name in the directory fd that is no regular file or directory.
func (u *untar) attributes(fd int, base string, h *tar.Header) error {
	flags := unix.AT_EMPTY_PATH
	if base != "" {
		flags = unix.AT_SYMLINK_NOFOLLOW
	}
	// Looking is cheap, writing an inode is not: most are right already.
	var st unix.Stat_t
	if err := unix.Fstatat(fd, base, &st, flags); err != nil {
		return err
	}
	mode := uint32(h.Mode) & 0o7777 //nolint:gosec // masked
	right := st.Mode&0o7777 == mode
	if int(st.Uid) != h.Uid || int(st.Gid) != h.Gid {
		if err := unix.Fchownat(fd, base, h.Uid, h.Gid, flags); err != nil {
			return fmt.Errorf("chown to %d:%d: %w", h.Uid, h.Gid, err)
		}
		right = false // a change of owner may clear bits
	}
	if err := setXattrs(fd, base, h); err != nil {
		return err
	}
	switch {
	case right:
		return nil
	case base == "":
		return unix.Fchmod(fd, mode)
	case h.Typeflag == tar.TypeSymlink:
		return nil
	}
	return unix.Fchmodat(fd, base, mode, 0)
}

// setXattrs leaves out what the file system does not take.
func setXattrs(fd int, base string, h *tar.Header) error {
	for k, v := range h.PAXRecords {
		name, ok := strings.CutPrefix(k, xattrRecord)
		if !ok {
			continue
		}
		var err error
		if base == "" {
			err = unix.Fsetxattr(fd, name, []byte(v), 0)
		} else {
			err = unix.Lsetxattr(procFd(fd)+"/"+base, name, []byte(v), 0)
		}
		if err == nil || errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.EPERM) && strings.HasPrefix(name, "user.") {
			continue
		}
		return fmt.Errorf("set attribute %q: %w", name, err)
	}
	return nil
}

// times are the access and modification time of a header. What a file system
// cannot hold is moved to the epoch.
func times(h *tar.Header) []unix.Timespec {
	m := bounded(h.ModTime)
	a := m
	if h.AccessTime.After(h.ModTime) {
		a = bounded(h.AccessTime)
	}
	return []unix.Timespec{a, m}
}

func bounded(t time.Time) unix.Timespec {
	if t.Before(time.Unix(0, 0)) || t.After(time.Unix(1<<33, 0)) {
		t = time.Unix(0, 0)
	}
	ts, err := unix.TimeToTimespec(t)
	if err != nil {
		return unix.Timespec{}
	}
	return ts
}

func nodeMode(h *tar.Header) uint32 {
	mode := uint32(h.Mode) & 0o7777 //nolint:gosec // masked
	switch h.Typeflag {
	case tar.TypeChar:
		return mode | unix.S_IFCHR
	case tar.TypeBlock:
		return mode | unix.S_IFBLK
	}
	return mode | unix.S_IFIFO
}

func nodeDevice(h *tar.Header) int {
	if h.Typeflag == tar.TypeFifo {
		return 0
	}
	return int(unix.Mkdev(uint32(h.Devmajor), uint32(h.Devminor))) //nolint:gosec // device numbers are 32 bits
}

// maxRemoveDepth bounds the directories that an entry may replace.
const maxRemoveDepth = 1000

// removeAt removes a name with all that is in it.
func removeAt(dir int, base string, depth int) error {
	err := unix.Unlinkat(dir, base, 0)
	if err == nil || errors.Is(err, unix.ENOENT) {
		return nil
	}
	if !errors.Is(err, unix.EISDIR) && !errors.Is(err, unix.EPERM) || depth > maxRemoveDepth {
		return err
	}
	fd, err := unix.Openat(dir, base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), base)
	defer f.Close()
	names, err := f.Readdirnames(-1)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, n := range names {
		if err := removeAt(fd, n, depth+1); err != nil {
			return err
		}
	}
	return unix.Unlinkat(dir, base, unix.AT_REMOVEDIR)
}
