package store

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/containerd/continuity/fs"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

const (
	whiteoutPrefix = ".wh."
	opaqueMarker   = ".wh..wh..opq"
	opaqueXattr    = "trusted.overlay.opaque"
	xattrRecord    = "SCHILY.xattr."

	// maxOpenDirs bounds the directories kept open while a layer is unpacked.
	maxOpenDirs = 128
	copyBuffer  = 256 << 10
)

// untar unpacks one layer into a directory of its own, with whiteouts as
// overlayfs has them. Nothing else writes there. Every path is resolved
// against the directory's descriptor and cannot leave it, whatever links the
// layer made; the directories of entries are kept open, since entries of one
// directory follow each other.
type untar struct {
	root int
	path string
	dirs map[string]int // open directories by clean path
	buf  []byte
	// times of directories are set at the end, when nothing is made in them any more.
	times []dirTime
}

type dirTime struct {
	name  string
	atime time.Time
	mtime time.Time
}

// extractTar unpacks r into dir; check sees each header first.
func extractTar(ctx context.Context, r io.Reader, dir string, check func(*tar.Header) (bool, error)) error {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", dir, err)
	}
	u := &untar{root: fd, path: dir, dirs: map[string]int{}, buf: make([]byte, copyBuffer)}
	defer u.close()
	tr := tar.NewReader(r)
	for {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return u.finish()
		}
		if err != nil {
			return err
		}
		ok, err := check(h)
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		if err := u.entry(h, tr); err != nil {
			return fmt.Errorf("%q: %w", h.Name, err)
		}
	}
}

func (u *untar) close() {
	u.forget("")
	_ = unix.Close(u.root)
}

// forget closes the cached directories at and below a path.
func (u *untar) forget(name string) {
	for p, fd := range u.dirs {
		if name == "" || p == name || strings.HasPrefix(p, name+"/") {
			_ = unix.Close(fd)
			delete(u.dirs, p)
		}
	}
}

// at opens a path in the layer.
func (u *untar) at(name string, flags uint64) (int, error) {
	if name == "" {
		name = "."
	}
	var fd int
	var err error
	for range openTries {
		fd, err = unix.Openat2(u.root, name, &unix.OpenHow{Flags: flags | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS})
		if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) {
			break
		}
	}
	return fd, err
}

// openTries bounds how often a path is looked up anew, which the kernel asks for
// when something, anywhere on the machine, is renamed while it passes a "..".
const openTries = 10000

// dir returns the descriptor of a directory, making it if it is not there.
func (u *untar) dir(name string) (int, error) {
	if name == "" {
		return u.root, nil
	}
	if fd, ok := u.dirs[name]; ok {
		return fd, nil
	}
	fd, err := u.at(name, unix.O_RDONLY|unix.O_DIRECTORY)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		if err := u.makeParents(name); err != nil {
			return -1, err
		}
		fd, err = u.at(name, unix.O_RDONLY|unix.O_DIRECTORY)
	}
	if err != nil {
		return -1, fmt.Errorf("open directory %q: %w", name, err)
	}
	if len(u.dirs) >= maxOpenDirs {
		u.forget("")
	}
	u.dirs[name] = fd
	return fd, nil
}

// makeParents makes the directories of a path that the layer does not
// describe. A link that leads nowhere yet is followed inside the layer.
func (u *untar) makeParents(name string) error {
	full, err := fs.RootPath(u.path, "/"+name)
	if err != nil {
		return err
	}
	rel, err := filepath.Rel(u.path, full)
	if err != nil {
		return err
	}
	at := ""
	for part := range strings.SplitSeq(rel, "/") {
		parent, err := u.at(at, unix.O_PATH|unix.O_DIRECTORY)
		if err != nil {
			return err
		}
		err = unix.Mkdirat(parent, part, 0o755)
		if err == nil {
			err = unix.Fchmodat(parent, part, 0o755, 0)
		}
		_ = unix.Close(parent)
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return err
		}
		at = path.Join(at, part)
	}
	return nil
}

// entry makes what one header says.
func (u *untar) entry(h *tar.Header, r io.Reader) error {
	name := strings.TrimPrefix(path.Clean("/"+h.Name), "/")
	if name == "" {
		return u.rootEntry(h)
	}
	dirName, base := path.Split(name)
	dirName = strings.TrimSuffix(dirName, "/")
	dir, err := u.dir(dirName)
	if err != nil {
		return err
	}
	if strings.HasPrefix(base, whiteoutPrefix) {
		return u.whiteout(dir, base)
	}
	switch h.Typeflag {
	case tar.TypeReg, '\x00':
		return u.file(dir, base, name, h, r)
	case tar.TypeDir:
		return u.directory(dir, base, name, h)
	case tar.TypeLink:
		return u.link(dir, base, name, h)
	case tar.TypeSymlink:
		return u.special(dir, base, name, h, func() error { return unix.Symlinkat(h.Linkname, dir, base) })
	case tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		return u.special(dir, base, name, h, func() error { return unix.Mknodat(dir, base, nodeMode(h), nodeDevice(h)) })
	case tar.TypeXGlobalHeader:
		return nil
	}
	return fmt.Errorf("unhandled tar header type %q: %w", h.Typeflag, errdefs.ErrInvalidArgument)
}

// rootEntry takes the attributes of the root itself.
func (u *untar) rootEntry(h *tar.Header) error {
	if h.Typeflag != tar.TypeDir {
		return fmt.Errorf("the root of a layer is not a directory: %w", errdefs.ErrInvalidArgument)
	}
	return u.attributes(u.root, "", h)
}

// whiteout hides a name of the layers below, or all of a directory.
func (u *untar) whiteout(dir int, base string) error {
	if base == opaqueMarker {
		return unix.Fsetxattr(dir, opaqueXattr, []byte{'y'}, 0)
	}
	hidden := strings.TrimPrefix(base, whiteoutPrefix)
	if hidden == "" || hidden == "." || hidden == ".." || strings.HasPrefix(hidden, whiteoutPrefix) {
		return fmt.Errorf("whiteout %q: %w", base, errdefs.ErrInvalidArgument)
	}
	err := unix.Mknodat(dir, hidden, unix.S_IFCHR, 0)
	if errors.Is(err, unix.EEXIST) {
		return nil // the layer itself has something there
	}
	return err
}

// replacing runs make, and again after removing what was in the way.
func (u *untar) replacing(dir int, base, name string, create func() error) error {
	err := create()
	if !errors.Is(err, unix.EEXIST) {
		return err
	}
	u.forget(name)
	if err := removeAt(dir, base, 0); err != nil {
		return err
	}
	return create()
}

func (u *untar) file(dir int, base, name string, h *tar.Header, r io.Reader) error {
	fd := -1
	err := u.replacing(dir, base, name, func() (err error) {
		fd, err = unix.Openat(dir, base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, uint32(h.Mode)&0o777) //nolint:gosec // masked
		return err
	})
	if err != nil {
		return err
	}
	err = u.fill(fd, r)
	if err == nil {
		err = u.attributes(fd, "", h)
	}
	if err == nil {
		err = unix.UtimesNanoAt(dir, base, times(h), unix.AT_SYMLINK_NOFOLLOW)
	}
	return errors.Join(err, unix.Close(fd))
}

func (u *untar) fill(fd int, r io.Reader) error {
	for {
		n, err := r.Read(u.buf)
		for p := u.buf[:n]; len(p) > 0; {
			w, err := unix.Write(fd, p)
			if err != nil && !errors.Is(err, unix.EINTR) {
				return fmt.Errorf("write: %w", err)
			}
			p = p[max(w, 0):]
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (u *untar) directory(dir int, base, name string, h *tar.Header) error {
	err := unix.Mkdirat(dir, base, 0o755)
	if errors.Is(err, unix.EEXIST) {
		var st unix.Stat_t
		if err := unix.Fstatat(dir, base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
		err = nil
		if st.Mode&unix.S_IFMT != unix.S_IFDIR {
			err = u.replacing(dir, base, name, func() error { return unix.Mkdirat(dir, base, 0o755) })
		}
	}
	if err != nil {
		return err
	}
	fd, err := unix.Openat(dir, base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	u.times = append(u.times, dirTime{name, h.AccessTime, h.ModTime})
	return u.attributes(fd, "", h)
}

// link makes a hard link to something of this layer.
func (u *untar) link(dir int, base, name string, h *tar.Header) error {
	target := strings.TrimPrefix(path.Clean("/"+h.Linkname), "/")
	parent, last := path.Split(target)
	from, err := u.at(strings.TrimSuffix(parent, "/"), unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return fmt.Errorf("link to %q: %w", h.Linkname, err)
	}
	defer unix.Close(from)
	if target == name {
		return fmt.Errorf("link to itself: %w", errdefs.ErrInvalidArgument)
	}
	err = u.replacing(dir, base, name, func() error { return unix.Linkat(from, last, dir, base, 0) })
	if err != nil {
		return fmt.Errorf("link to %q: %w", h.Linkname, err)
	}
	return nil
}

// special makes what has no descriptor to set its attributes through.
func (u *untar) special(dir int, base, name string, h *tar.Header, create func() error) error {
	if err := u.replacing(dir, base, name, create); err != nil {
		return err
	}
	if err := u.attributes(dir, base, h); err != nil {
		return err
	}
	return unix.UtimesNanoAt(dir, base, times(h), unix.AT_SYMLINK_NOFOLLOW)
}

// finish sets the times of directories, the deepest first.
func (u *untar) finish() error {
	for i := len(u.times) - 1; i >= 0; i-- {
		t := u.times[i]
		fd, err := u.at(t.name, unix.O_PATH|unix.O_NOFOLLOW)
		if err != nil {
			continue // replaced by a later entry
		}
		h := &tar.Header{AccessTime: t.atime, ModTime: t.mtime}
		err = unix.UtimesNanoAt(unix.AT_FDCWD, procFd(fd), times(h), 0)
		_ = unix.Close(fd)
		if err != nil {
			return err
		}
	}
	return nil
}
