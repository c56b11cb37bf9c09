package initproc

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// copyUp copies what the directory from holds into the still detached tmpfs
// to: files, directories, links and their owners. Special files are skipped.
func copyUp(from, to int) error {
	return copier(make([]byte, 64<<10)).dir(from, to, 0)
}

// copier is a buffer for all of it: the stack of a forked init is no place for one
// per directory (see forkStack).
type copier []byte

const maxCopyDepth = 64

func (c copier) dir(from, to, depth int) error {
	if depth > maxCopyDepth {
		return fmt.Errorf("more than %d directories deep", maxCopyDepth)
	}
	// O_PATH descriptors cannot be listed.
	dir, err := unix.Openat(from, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	if err := copyMeta(dir, to); err != nil {
		return err
	}
	for {
		n, err := unix.ReadDirent(dir, c)
		if err != nil {
			return err
		}
		if n == 0 {
			return nil
		}
		_, _, names := unix.ParseDirent(c[:n], -1, nil)
		for _, name := range names {
			if err := c.entry(dir, to, name, depth); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
	}
}

func copyMeta(from, to int) error {
	var st unix.Stat_t
	if err := unix.Fstat(from, &st); err != nil {
		return err
	}
	if err := unix.Fchownat(to, "", int(st.Uid), int(st.Gid), unix.AT_EMPTY_PATH); err != nil {
		return err
	}
	fd, err := unix.Openat(to, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Fchmod(fd, st.Mode&0o7777)
}

func (c copier) entry(from, to int, name string, depth int) error {
	var st unix.Stat_t
	if err := unix.Fstatat(from, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		if errors.Is(err, unix.ENOENT) {
			return nil
		}
		return err
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		src, err := unix.Openat(from, name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(src)
		if err := unix.Mkdirat(to, name, 0o700); err != nil {
			return err
		}
		dst, err := unix.Openat(to, name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(dst)
		return c.dir(src, dst, depth+1)
	case unix.S_IFLNK:
		n, err := unix.Readlinkat(from, name, c[:unix.PathMax])
		if err != nil {
			return err
		}
		if err := unix.Symlinkat(string(c[:n]), to, name); err != nil {
			return err
		}
		return unix.Fchownat(to, name, int(st.Uid), int(st.Gid), unix.AT_SYMLINK_NOFOLLOW)
	case unix.S_IFREG:
		return c.file(from, to, name, &st)
	}
	return nil
}

func (c copier) file(from, to int, name string, st *unix.Stat_t) error {
	src, err := unix.Openat(from, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(src)
	dst, err := unix.Openat(to, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	defer unix.Close(dst)
	for {
		n, err := unix.Read(src, c)
		if err != nil {
			return err
		}
		if n == 0 {
			break
		}
		for b := c[:n]; len(b) > 0; {
			w, err := unix.Write(dst, b)
			if err != nil {
				return err
			}
			b = b[w:]
		}
	}
	if err := unix.Fchown(dst, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	return unix.Fchmod(dst, st.Mode&0o7777)
}
