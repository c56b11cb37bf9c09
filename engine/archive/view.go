package archive

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	apicontainer "github.com/moby/moby/api/types/container"
	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/container"
	"github.com/wherry-engine/wherry/engine/rootfs"
)

// View is a container's file system. It does not own its descriptors.
type View struct {
	// Root is the root mount.
	Root rootfs.Root
	// Mounts are directories (or files) mounted in the container, by their
	// absolute, clean destination.
	Mounts map[string]Mount
}

// Mount is one mounted directory or file.
type Mount struct {
	rootfs.Root // O_PATH is enough
	ReadOnly    bool
}

// openIn opens p below root by the rules of package rootfs.
func openIn(root int, p string, flags int) (int, error) {
	return rootfs.OpenFD(root, strings.TrimLeft(p, "/"), flags, 0)
}

// place is where a path leads: a root descriptor and the path below it.
type place struct {
	root     int
	ids      container.IDMap
	path     string // clean, absolute below root
	mounted  string // destination of the mount; "" for the container's root
	readOnly bool
}

// locate picks the mount that a clean absolute path lies on. Links are
// resolved first, one component at a time, because a link may lead into
// another mount.
func (v *View) locate(p string, followLast bool) (place, error) {
	todo := components(p)
	at := "/"
	for links := 0; len(todo) > 0; {
		name := todo[0]
		todo = todo[1:]
		if name == ".." {
			at = path.Dir(at)
			continue
		}
		next := path.Join(at, name)
		pl := v.mountOf(next)
		if len(todo) == 0 && !followLast {
			return pl, nil
		}
		target, err := readlink(pl)
		if err != nil {
			return place{}, err
		}
		if target == "" {
			at = next
			continue
		}
		if links++; links > 255 {
			return place{}, &os.PathError{Op: "resolve", Path: p, Err: unix.ELOOP}
		}
		if strings.HasPrefix(target, "/") {
			at = "/"
		}
		todo = append(components(target), todo...)
	}
	return v.mountOf(at), nil
}

func components(p string) []string {
	return slices.DeleteFunc(strings.Split(p, "/"), func(s string) bool { return s == "" || s == "." })
}

// mountOf finds the deepest mount above a path that needs no more resolving.
func (v *View) mountOf(p string) place {
	best := place{root: int(v.Root.File.Fd()), ids: v.Root.IDs, path: p}
	for dest, m := range v.Mounts {
		if rest, ok := below(dest, p); ok && len(dest) > len(best.mounted) {
			best = place{root: int(m.File.Fd()), ids: m.IDs, path: rest, mounted: dest, readOnly: m.ReadOnly}
		}
	}
	return best
}

// below returns p relative to dir, if it is dir or below.
func below(dir, p string) (string, bool) {
	if p == dir {
		return "/", true
	}
	if dir == "/" {
		return p, true
	}
	if strings.HasPrefix(p, dir+"/") {
		return p[len(dir):], true
	}
	return "", false
}

// readlink returns the target if the place is a symbolic link, "" if it is
// anything else or does not exist.
func readlink(pl place) (string, error) {
	if pl.path == "/" {
		return "", nil
	}
	fd, err := openIn(pl.root, pl.path, unix.O_PATH|unix.O_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	return linkTarget(fd)
}

// linkTarget reads the link behind an O_PATH descriptor; "" if it is no link.
func linkTarget(fd int) (string, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return "", err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFLNK {
		return "", nil
	}
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(fd, "", buf)
	return string(buf[:max(n, 0)]), err
}

// open opens the place for looking at (O_PATH); the last link is not followed.
func (pl place) open() (int, error) {
	if pl.path == "/" {
		return dup(pl.root)
	}
	return openIn(pl.root, pl.path, unix.O_PATH|unix.O_NOFOLLOW)
}

func dup(fd int) (int, error) { return unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0) }

// clean makes a user's path absolute and keeps what its end says about it:
// a trailing "/." or "/".
func clean(p string) string {
	abs := path.Join("/", p)
	switch {
	case abs == "/":
	case strings.HasSuffix(p, "/."):
		abs += "/."
	case strings.HasSuffix(p, "/"):
		abs += "/"
	}
	return abs
}

// wantsDir reports whether the end of a path demands a directory.
func wantsDir(p string) bool { return strings.HasSuffix(p, "/") || strings.HasSuffix(p, "/.") }

// Stat describes a path; a link is described itself, unless the path ends in
// "/" or "/.". NotFound, InvalidArgument (not a directory).
func (v *View) Stat(p string) (apicontainer.PathStat, error) {
	fd, st, _, err := v.lookup(p)
	if err != nil {
		return apicontainer.PathStat{}, err
	}
	defer unix.Close(fd)
	out := apicontainer.PathStat{
		Name: path.Base(strings.TrimSuffix(clean(p), "/.")), Size: st.Size, Mode: fileMode(st.Mode),
		Mtime: time.Unix(st.Mtim.Unix()),
	}
	if out.LinkTarget, err = linkTarget(fd); err != nil || out.LinkTarget == "" {
		return out, err
	}
	// The API gives the target as a path from the container's root.
	if pl, err := v.locate(path.Join("/", p), true); err == nil {
		out.LinkTarget = path.Join("/", pl.mounted, pl.path)
	}
	return out, nil
}

// lookup opens a path as O_PATH.
func (v *View) lookup(p string) (int, unix.Stat_t, place, error) {
	var st unix.Stat_t
	pl, err := v.locate(path.Join("/", p), wantsDir(p))
	if err != nil {
		return -1, st, pl, pathError(p, err)
	}
	fd, err := pl.open()
	if err != nil {
		return -1, st, pl, pathError(p, err)
	}
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return -1, st, pl, pathError(p, err)
	}
	if wantsDir(p) && st.Mode&unix.S_IFMT != unix.S_IFDIR {
		unix.Close(fd)
		return -1, st, pl, fmt.Errorf("%s: not a directory: %w", p, errdefs.ErrInvalidArgument)
	}
	return fd, st, pl, nil
}

// pathError gives a system error the class it has for the API.
func pathError(p string, err error) error {
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR):
		return fmt.Errorf("%s: no such file or directory: %w", p, errdefs.ErrNotFound)
	case errors.Is(err, unix.ELOOP), errors.Is(err, unix.ENAMETOOLONG), errors.Is(err, unix.EINVAL):
		return fmt.Errorf("%s: %w: %w", p, err, errdefs.ErrInvalidArgument)
	case errors.Is(err, unix.EROFS), errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return fmt.Errorf("%s: %w: %w", p, err, errdefs.ErrPermissionDenied)
	}
	return &os.PathError{Op: "copy", Path: p, Err: err}
}

// fileMode translates the kernel's mode bits.
func fileMode(m uint32) os.FileMode {
	mode := os.FileMode(m & 0o777)
	switch m & unix.S_IFMT {
	case syscall.S_IFDIR:
		mode |= os.ModeDir
	case syscall.S_IFLNK:
		mode |= os.ModeSymlink
	case syscall.S_IFIFO:
		mode |= os.ModeNamedPipe
	case syscall.S_IFSOCK:
		mode |= os.ModeSocket
	case syscall.S_IFBLK:
		mode |= os.ModeDevice
	case syscall.S_IFCHR:
		mode |= os.ModeDevice | os.ModeCharDevice
	}
	for bit, flag := range map[uint32]os.FileMode{unix.S_ISUID: os.ModeSetuid, unix.S_ISGID: os.ModeSetgid, unix.S_ISVTX: os.ModeSticky} {
		if m&bit != 0 {
			mode |= flag
		}
	}
	return mode
}
