package rootfs

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/container"
)

// maxDepth bounds recursion into directories of hostile images.
const maxDepth = 2048

// CopyTree copies what is below name in root into an existing directory of the
// host, with owners, modes, times, links, devices and extended attributes, and
// gives the directory the owner and mode of its source. A directory of the
// host that is not empty is left as it is. NotFound if root has no such directory.
func CopyTree(root Root, name, host string) error {
	src, err := Open(root.File, name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenFile(host, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer dst.Close()
	names, err := readNames(dst)
	if err != nil {
		return err
	}
	if len(names) > 0 {
		return nil
	}
	c := copier{links: map[[2]uint64]string{}, top: dst, ids: root.IDs}
	return c.dir(src, dst, "", 0)
}

type copier struct {
	links map[[2]uint64]string // inode → path below top, for hard links
	top   *os.File
	ids   container.IDMap // of the source
}

// dir copies the entries of src, and then what describes src itself.
func (c *copier) dir(src, dst *os.File, path string, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("%s: directories nest deeper than %d", path, maxDepth)
	}
	names, err := readNames(src)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := c.entry(src, dst, name, path+"/"+name, depth); err != nil {
			return fmt.Errorf("copy %s: %w", path+"/"+name, err)
		}
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(src.Fd()), &st); err != nil {
		return err
	}
	st.Uid, st.Gid = c.ids.FromHost(st.Uid, st.Gid)
	return c.describe(src, dst, &st)
}

func (c *copier) entry(srcDir, dstDir *os.File, name, path string, depth int) error {
	var st unix.Stat_t
	if err := unix.Fstatat(int(srcDir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	st.Uid, st.Gid = c.ids.FromHost(st.Uid, st.Gid)
	key := [2]uint64{st.Dev, st.Ino}
	if first, ok := c.links[key]; ok && st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return c.hardlink(first, dstDir, name)
	}
	if st.Nlink > 1 && st.Mode&unix.S_IFMT != unix.S_IFDIR {
		c.links[key] = path
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return c.subdir(srcDir, dstDir, name, path, depth)
	case unix.S_IFREG:
		return c.file(srcDir, dstDir, name)
	case unix.S_IFLNK:
		return c.symlink(srcDir, dstDir, name, &st)
	case unix.S_IFSOCK:
		return nil
	}
	if err := unix.Mknodat(int(dstDir.Fd()), name, st.Mode, int(st.Rdev)); err != nil {
		return err
	}
	return c.describeAt(dstDir, name, &st)
}

// hardlink gives what was copied before a further name. The directories on the
// way there may have become links since: a container may have the volume already.
func (c *copier) hardlink(first string, dstDir *os.File, name string) error {
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS}
	dir, base := filepath.Split(strings.TrimPrefix(first, "/"))
	fd, err := unix.Openat2(int(c.top.Fd()), "./"+dir, &how)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Linkat(fd, base, int(dstDir.Fd()), name, 0)
}

func (c *copier) subdir(srcDir, dstDir *os.File, name, path string, depth int) error {
	if err := unix.Mkdirat(int(dstDir.Fd()), name, 0o700); err != nil {
		return err
	}
	src, err := childAt(srcDir, name, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := childAt(dstDir, name, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer dst.Close()
	return c.dir(src, dst, path, depth+1)
}

func (c *copier) file(srcDir, dstDir *os.File, name string) error {
	src, err := childAt(srcDir, name, unix.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		return err
	}
	defer src.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(src.Fd()), &st); err != nil {
		return err
	}
	st.Uid, st.Gid = c.ids.FromHost(st.Uid, st.Gid)
	fd, err := unix.Openat(int(dstDir.Fd()), name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	dst := os.NewFile(uintptr(fd), name)
	_, err = io.Copy(dst, src)
	if err == nil {
		err = c.describe(src, dst, &st)
	}
	return errors.Join(err, dst.Close())
}

func (c *copier) symlink(srcDir, dstDir *os.File, name string, st *unix.Stat_t) error {
	target, err := readlinkAt(srcDir, name)
	if err != nil {
		return err
	}
	if err := unix.Symlinkat(target, int(dstDir.Fd()), name); err != nil {
		return err
	}
	if err := unix.Fchownat(int(dstDir.Fd()), name, int(st.Uid), int(st.Gid), unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	return setTimes(dstDir, name, st)
}

func setTimes(dir *os.File, name string, st *unix.Stat_t) error {
	return unix.UtimesNanoAt(int(dir.Fd()), name, []unix.Timespec{st.Atim, st.Mtim}, unix.AT_SYMLINK_NOFOLLOW)
}

// describe gives an open file the owner, mode, attributes and times of another.
func (c *copier) describe(src, dst *os.File, st *unix.Stat_t) error {
	if err := unix.Fchown(int(dst.Fd()), int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	if err := unix.Fchmod(int(dst.Fd()), st.Mode&0o7777); err != nil {
		return err
	}
	if err := copyXattrs(src, dst, c.ids); err != nil {
		return err
	}
	times := []unix.Timeval{unix.NsecToTimeval(st.Atim.Nano()), unix.NsecToTimeval(st.Mtim.Nano())}
	return unix.Futimes(int(dst.Fd()), times)
}

func (c *copier) describeAt(dir *os.File, name string, st *unix.Stat_t) error {
	if err := unix.Fchownat(int(dir.Fd()), name, int(st.Uid), int(st.Gid), unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	// By descriptor: fchmodat(2) would follow a link that took the name meanwhile.
	fd, err := unix.Openat(int(dir.Fd()), name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Chmod(fmt.Sprintf("/proc/self/fd/%d", fd), st.Mode&0o7777); err != nil {
		return err
	}
	return setTimes(dir, name, st)
}

func copyXattrs(src, dst *os.File, ids container.IDMap) error {
	names, err := listXattrs(int(src.Fd()))
	if err != nil {
		return err
	}
	for _, name := range names {
		if strings.HasPrefix(name, "trusted.overlay.") || strings.HasPrefix(name, "user.overlay.") {
			continue
		}
		value, err := getXattr(int(src.Fd()), name)
		if err != nil {
			return err
		}
		if name == capabilityName {
			value = CapsFromHost(value, ids)
		}
		if err := unix.Fsetxattr(int(dst.Fd()), name, value, 0); err != nil && !errors.Is(err, unix.ENOTSUP) {
			return err
		}
	}
	return nil
}

func listXattrs(fd int) ([]string, error) {
	buf := make([]byte, 1024)
	for {
		n, err := unix.Flistxattr(fd, buf)
		switch {
		case errors.Is(err, unix.ERANGE):
			buf = make([]byte, 64<<10)
			continue
		case errors.Is(err, unix.ENOTSUP):
			return nil, nil
		case err != nil:
			return nil, err
		}
		return strings.FieldsFunc(string(buf[:n]), func(r rune) bool { return r == 0 }), nil
	}
}

func getXattr(fd int, name string) ([]byte, error) {
	buf := make([]byte, 64<<10)
	n, err := unix.Fgetxattr(fd, name, buf)
	if err != nil {
		return nil, err
	}
	return buf[:n], nil
}

func readlinkAt(dir *os.File, name string) (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(int(dir.Fd()), name, buf)
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}
