package archive

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/container"
	"github.com/wherry-engine/wherry/engine/rootfs"
)

// PutOptions say where and how an archive is unpacked.
type PutOptions struct {
	// Path is an existing directory in the container.
	Path string
	// NoOverwriteDirNonDir refuses to replace a directory by something else, or
	// something else by a directory.
	NoOverwriteDirNonDir bool
	// CopyUIDGID gives every entry to Owner (uid, gid) if there is one: the
	// container's user. Otherwise the archive's numbers are kept, as Docker does.
	CopyUIDGID bool
	Owner      *[2]int
}

// budgets of one archive: entries beyond them are refused. maxName is also how
// long a path in the container may be to be read (PATH_MAX), which bounds the
// directories that are held open.
const (
	maxName  = 4096
	maxDepth = 512
)

// Put unpacks an uncompressed tar stream. InvalidArgument for a bad archive or
// path, NotFound, PermissionDenied for a read-only place. What was unpacked
// before an error stays, as with tar.
func (v *View) Put(ctx context.Context, opts PutOptions, r io.Reader) error {
	pl, err := v.target(opts.Path, false)
	if err != nil {
		return err
	}
	u := &unpacker{view: v, opts: opts, base: path.Join("/", pl.mounted, pl.path)}
	tr := tar.NewReader(r)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("read archive: %w: %w", err, errdefs.ErrInvalidArgument)
		}
		if err := u.entry(h, tr); err != nil {
			return fmt.Errorf("unpack %.200q: %w", h.Name, err)
		}
	}
	return u.finish()
}

// CheckWritable reports why an archive cannot be unpacked at p: NotFound,
// InvalidArgument (no directory), PermissionDenied (a read-only mount, or the
// root if rootReadOnly).
func (v *View) CheckWritable(p string, rootReadOnly bool) error {
	_, err := v.target(p, rootReadOnly)
	return err
}

// target finds the directory to unpack into.
func (v *View) target(p string, rootReadOnly bool) (place, error) {
	pl, err := v.locate(path.Join("/", p), true)
	if err != nil {
		return pl, pathError(p, err)
	}
	fd, err := pl.open()
	if err != nil {
		return pl, pathError(p, err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return pl, pathError(p, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return pl, fmt.Errorf("extraction point is not a directory: %w", errdefs.ErrInvalidArgument)
	}
	if pl.readOnly || pl.mounted == "" && rootReadOnly {
		return pl, fmt.Errorf("container rootfs or volume at %s is marked read-only: %w", p, errdefs.ErrPermissionDenied)
	}
	return pl, nil
}

// unpacker writes entries below base.
type unpacker struct {
	view *View
	opts PutOptions
	base string
	dirs []dirTime
}

type dirTime struct {
	path string
	time time.Time
}

func (u *unpacker) entry(h *tar.Header, r io.Reader) error {
	name, err := entryName(h.Name)
	if err != nil {
		return err
	}
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeDir, tar.TypeSymlink, tar.TypeLink, tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
	case tar.TypeXGlobalHeader:
		return nil
	default:
		return fmt.Errorf("entry of type %q is not supported: %w", h.Typeflag, errdefs.ErrInvalidArgument)
	}
	if name == "." {
		return nil // the directory itself keeps what it has
	}
	dir, ids, err := u.parent(path.Dir(name))
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	base := path.Base(name)
	exists, err := u.clear(dir, base, h)
	if err != nil {
		return err
	}
	e := &newEntry{dir: dir, base: base, ids: ids, h: h}
	if e.uid, e.gid, err = ids.ToHost(u.owner(h)); err != nil {
		return fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
	}
	if err := u.create(e, exists, r); err != nil {
		return err
	}
	if h.Typeflag == tar.TypeDir {
		u.dirs = append(u.dirs, dirTime{name, h.ModTime})
	}
	return nil
}

// entryName checks that a name stays below the target.
func entryName(name string) (string, error) {
	if len(name) > maxName || strings.Count(name, "/") > maxDepth || strings.ContainsRune(name, 0) {
		return "", fmt.Errorf("name is too long or malformed: %w", errdefs.ErrInvalidArgument)
	}
	if slices.Contains(strings.Split(name, "/"), "..") {
		return "", fmt.Errorf("name leads out of the target: %w", errdefs.ErrInvalidArgument)
	}
	return path.Clean(strings.TrimLeft(path.Clean("/"+name), "/")), nil
}

// parent opens the directory of an entry, making what is missing, and returns the
// ids of the file system that it is on.
func (u *unpacker) parent(rel string) (int, container.IDMap, error) {
	if rel == "" {
		rel = "."
	}
	pl, err := u.view.locate(path.Join(u.base, rel), true)
	if err != nil {
		return -1, pl.ids, err
	}
	if pl.readOnly {
		return -1, pl.ids, unix.EROFS
	}
	fd, err := openIn(pl.root, pl.path, unix.O_PATH|unix.O_DIRECTORY)
	if !errors.Is(err, unix.ENOENT) || rel == "." {
		return fd, pl.ids, err
	}
	up, ids, err := u.parent(path.Dir(rel))
	if err != nil {
		return -1, ids, err
	}
	defer unix.Close(up)
	err = rootfs.AsRoot(ids, func() error { return unix.Mkdirat(up, path.Base(rel), 0o755) })
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return -1, ids, err
	}
	fd, err = unix.Openat(up, path.Base(rel), unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	return fd, ids, err
}

// clear removes what an entry replaces. It reports whether a directory stays
// that the entry merges into.
func (u *unpacker) clear(dir int, base string, h *tar.Header) (bool, error) {
	var st unix.Stat_t
	err := unix.Fstatat(dir, base, &st, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	isDir, wantDir := st.Mode&unix.S_IFMT == unix.S_IFDIR, h.Typeflag == tar.TypeDir
	switch {
	case isDir && wantDir:
		return true, nil
	case u.opts.NoOverwriteDirNonDir && isDir:
		return false, fmt.Errorf("cannot overwrite directory with non-directory: %w", errdefs.ErrInvalidArgument)
	case u.opts.NoOverwriteDirNonDir && wantDir:
		return false, fmt.Errorf("cannot overwrite non-directory with directory: %w", errdefs.ErrInvalidArgument)
	case isDir:
		return false, removeTree(dir, base, 0)
	}
	return false, unix.Unlinkat(dir, base, 0)
}

// removeTree deletes a directory by descriptors only, as deep as an archive can
// have made it.
func removeTree(dir int, base string, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("a directory in its place is nested more than %d deep: %w", maxDepth, errdefs.ErrInvalidArgument)
	}
	fd, err := unix.Openat(dir, base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), base)
	defer f.Close()
	names, err := f.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, n := range names {
		err := unix.Unlinkat(fd, n, 0)
		if errors.Is(err, unix.EISDIR) || errors.Is(err, unix.EPERM) {
			err = removeTree(fd, n, depth+1)
		}
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return err
		}
	}
	return unix.Unlinkat(dir, base, unix.AT_REMOVEDIR)
}

// newEntry is an entry that is being made: its directory and name, and the owner it
// gets, in the host's numbers.
type newEntry struct {
	dir      int
	base     string
	ids      container.IDMap // of the file system
	uid, gid int
	h        *tar.Header
}

func (e *newEntry) mode() uint32 { return uint32(e.h.Mode & 0o7777) }

// create makes the entry in its directory.
func (u *unpacker) create(e *newEntry, exists bool, r io.Reader) error {
	switch {
	case e.h.Typeflag == tar.TypeReg:
		return e.file(r)
	case e.h.Typeflag == tar.TypeLink:
		return u.hardlink(e.dir, e.base, e.h.Linkname)
	case e.h.Typeflag == tar.TypeDir && exists:
	default:
		if err := rootfs.AsRoot(e.ids, e.make); err != nil {
			return err
		}
	}
	return e.attributes()
}

// make makes anything but a regular file.
func (e *newEntry) make() error {
	switch e.h.Typeflag {
	case tar.TypeDir:
		return unix.Mkdirat(e.dir, e.base, 0o700)
	case tar.TypeSymlink:
		return unix.Symlinkat(e.h.Linkname, e.dir, e.base)
	case tar.TypeFifo:
		return unix.Mknodat(e.dir, e.base, unix.S_IFIFO|0o600, 0)
	}
	typ := uint32(unix.S_IFCHR)
	if e.h.Typeflag == tar.TypeBlock {
		typ = unix.S_IFBLK
	}
	return unix.Mknodat(e.dir, e.base, typ|0o600, int(unix.Mkdev(uint32(e.h.Devmajor), uint32(e.h.Devminor))))
}

// attributes sets owner, mode and time of anything but a regular file.
func (e *newEntry) attributes() error {
	if err := unix.Fchownat(e.dir, e.base, e.uid, e.gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if e.h.Typeflag != tar.TypeSymlink {
		fd, err := unix.Openat(e.dir, e.base, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if err := unix.Chmod(fmt.Sprintf("/proc/self/fd/%d", fd), e.mode()); err != nil {
			return err
		}
	}
	return unix.UtimesNanoAt(e.dir, e.base, times(e.h.ModTime), unix.AT_SYMLINK_NOFOLLOW)
}

func (u *unpacker) owner(h *tar.Header) (int, int) {
	if u.opts.CopyUIDGID && u.opts.Owner != nil {
		return u.opts.Owner[0], u.opts.Owner[1]
	}
	return h.Uid, h.Gid
}

func times(t time.Time) []unix.Timespec {
	if t.IsZero() {
		t = time.Unix(0, 0)
	}
	ts := unix.NsecToTimespec(t.UnixNano())
	return []unix.Timespec{ts, ts}
}

func (e *newEntry) file(r io.Reader) error {
	fd := -1
	err := rootfs.AsRoot(e.ids, func() (err error) {
		fd, err = unix.Openat(e.dir, e.base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
		return err
	})
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), e.base)
	_, err = io.Copy(f, r)
	// Order matters: chown drops set-id bits and capabilities.
	err = errors.Join(err, unix.Fchown(fd, e.uid, e.gid), unix.Fchmod(fd, e.mode()))
	if caps := e.h.PAXRecords["SCHILY.xattr.security.capability"]; caps != "" && err == nil {
		err = unix.Fsetxattr(fd, "security.capability", rootfs.CapsToHost([]byte(caps), e.ids), 0)
	}
	err = errors.Join(err, unix.UtimesNanoAt(e.dir, e.base, times(e.h.ModTime), unix.AT_SYMLINK_NOFOLLOW))
	return errors.Join(err, f.Close())
}

// hardlink links to an earlier entry, resolved inside the container.
func (u *unpacker) hardlink(dir int, base, target string) error {
	name, err := entryName(target)
	if err != nil {
		return err
	}
	from, _, err := u.parent(path.Dir(name))
	if err != nil {
		return err
	}
	defer unix.Close(from)
	return unix.Linkat(from, path.Base(name), dir, base, 0)
}

// finish sets the times of directories, which later entries had changed.
func (u *unpacker) finish() error {
	for _, d := range slices.Backward(u.dirs) {
		dir, _, err := u.parent(path.Dir(d.path))
		if err != nil {
			return err
		}
		err = unix.UtimesNanoAt(dir, path.Base(d.path), times(d.time), unix.AT_SYMLINK_NOFOLLOW)
		unix.Close(dir)
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return err
		}
	}
	return nil
}
