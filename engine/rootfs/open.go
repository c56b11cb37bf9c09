// Package rootfs works on files of containers through pinned descriptors.
// Every path is resolved by the kernel below a descriptor of the root
// (openat2 with RESOLVE_IN_ROOT), so nothing inside a container can lead out
// of it, whatever is renamed or linked meanwhile. No program is run.
package rootfs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// resolve are the rules for every path: stay in the root, no magic links.
const resolve = unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS

// openTries bounds the retries after EAGAIN, which the kernel returns when a
// rename raced with a "..".
const openTries = 64

// Open opens a path below root. flags are those of open(2); O_CLOEXEC is added.
// NotFound.
func Open(root *os.File, name string, flags int, mode uint32) (*os.File, error) {
	rel := strings.TrimLeft(path.Clean("/"+name), "/")
	if strings.HasSuffix(name, "/") && rel != "" {
		rel += "/"
	}
	fd, err := OpenFD(int(root.Fd()), rel, flags, mode)
	switch {
	case err == nil:
		return os.NewFile(uintptr(fd), name), nil
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
		return nil, fmt.Errorf("open %s: the path does not stop changing: %w", name, errdefs.ErrUnavailable)
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR):
		return nil, fmt.Errorf("%s: %w: %w", name, err, errdefs.ErrNotFound)
	}
	return nil, &fs.PathError{Op: "open", Path: name, Err: err}
}

// OpenFD is Open with bare descriptors and the kernel's errors. name is
// relative to root; "" is root itself.
func OpenFD(root int, name string, flags int, mode uint32) (fd int, err error) {
	how := unix.OpenHow{Flags: uint64(flags | unix.O_CLOEXEC), Resolve: resolve}
	if flags&(unix.O_CREAT|unix.O_TMPFILE) != 0 {
		how.Mode = uint64(mode)
	}
	if name == "" {
		name = "."
	}
	for range openTries {
		fd, err = unix.Openat2(root, name, &how)
		if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) {
			break
		}
	}
	return fd, err
}

// OpenIn opens a path below a directory of the host.
func OpenIn(dir, name string) (*os.File, error) {
	root, err := os.OpenFile(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	return Open(root, name, unix.O_PATH, 0)
}

// childAt opens name in dir without following it.
func childAt(dir *os.File, name string, flags int) (*os.File, error) {
	fd, err := unix.Openat(int(dir.Fd()), name, flags|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}

// readNames lists a directory.
func readNames(dir *os.File) ([]string, error) {
	d, err := childAt(dir, ".", unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return d.Readdirnames(-1)
}
