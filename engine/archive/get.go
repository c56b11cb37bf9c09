package archive

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/container"
	"github.com/wherry-engine/wherry/engine/rootfs"
)

// Get writes the file or tree at p as a tar stream whose names start with the
// last element of p. NotFound before anything is written.
func (v *View) Get(ctx context.Context, p string, w io.Writer) error {
	fd, _, pl, err := v.lookup(p)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	t := &packer{ctx: ctx, view: v, w: tar.NewWriter(w), seen: map[inode]string{}}
	name := path.Base(clean(p))
	if err := t.add(fd, path.Join("/", pl.mounted, pl.path), name); err != nil {
		return err
	}
	return t.w.Close()
}

// Export writes the whole root, without what is mounted in it, as a tar stream.
func (v *View) Export(ctx context.Context, w io.Writer) error {
	t := &packer{ctx: ctx, view: &View{Root: v.Root}, w: tar.NewWriter(w), seen: map[inode]string{}}
	fd, err := unix.Openat(int(v.Root.File.Fd()), ".", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("open root", err)
	}
	defer unix.Close(fd)
	if err := t.children(fd, "/", ""); err != nil {
		return err
	}
	return t.w.Close()
}

type inode struct{ dev, ino uint64 }

// packer walks a tree by descriptors and writes tar entries.
type packer struct {
	ctx  context.Context //nolint:containedctx // lives for one call
	view *View
	w    *tar.Writer
	seen map[inode]string
}

// add writes the object behind an O_PATH descriptor. at is its path in the
// container, name its name in the archive.
func (t *packer) add(fd int, at, name string) error {
	if err := t.ctx.Err(); err != nil {
		return err
	}
	if len(at) > maxName {
		return fmt.Errorf("%.100s…: the path is longer than %d bytes: %w", at, maxName, errdefs.ErrInvalidArgument)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return os.NewSyscallError("stat", err)
	}
	ids := t.view.mountOf(at).ids
	st.Uid, st.Gid = ids.FromHost(st.Uid, st.Gid)
	h := header(&st, name)
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFSOCK:
		return nil // a socket cannot be archived
	case unix.S_IFLNK:
		target, err := linkTarget(fd)
		if err != nil {
			return fmt.Errorf("read link %s: %w", at, err)
		}
		h.Linkname = target
	case unix.S_IFREG:
		return t.regular(fd, &st, h, at, ids)
	}
	if err := t.w.WriteHeader(h); err != nil {
		return err
	}
	if h.Typeflag == tar.TypeDir {
		return t.children(fd, at, name)
	}
	return nil
}

func (t *packer) regular(fd int, st *unix.Stat_t, h *tar.Header, at string, ids container.IDMap) error {
	if st.Nlink > 1 {
		key := inode{uint64(st.Dev), st.Ino}
		if first, ok := t.seen[key]; ok {
			h.Typeflag, h.Linkname, h.Size = tar.TypeLink, first, 0
			return t.w.WriteHeader(h)
		}
		t.seen[key] = h.Name
	}
	rfd, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", fd), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", at, err)
	}
	f := os.NewFile(uintptr(rfd), at)
	defer f.Close()
	if caps := capability(rfd, ids); caps != "" {
		h.PAXRecords = map[string]string{"SCHILY.xattr.security.capability": caps}
	}
	if err := t.w.WriteHeader(h); err != nil {
		return err
	}
	n, err := io.Copy(t.w, io.LimitReader(f, h.Size))
	if err != nil {
		return fmt.Errorf("read %s: %w", at, err)
	}
	// The file shrank while it was read: keep the archive well-formed.
	_, err = io.CopyN(t.w, zeros{}, h.Size-n)
	return err
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func capability(fd int, ids container.IDMap) string {
	buf := make([]byte, 64)
	n, err := unix.Fgetxattr(fd, "security.capability", buf)
	if err != nil {
		return ""
	}
	return string(rootfs.CapsFromHost(buf[:n], ids))
}

// children adds what is in the directory behind an O_PATH descriptor.
func (t *packer) children(fd int, at, name string) error {
	dfd, err := unix.Openat(fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", at, err)
	}
	d := os.NewFile(uintptr(dfd), at)
	defer d.Close()
	for {
		names, err := d.Readdirnames(256)
		for _, n := range names {
			if err := t.child(dfd, path.Join(at, n), entry(name, n), n); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", at, err)
		}
	}
}

// entry names what is in a directory of the archive. Below "." the prefix
// stays: clients replace it by the directory they copy to.
func entry(dir, base string) string {
	if dir == "." {
		return "./" + base
	}
	return path.Join(dir, base)
}

func (t *packer) child(dir int, at, name, base string) error {
	var fd int
	var err error
	if m, ok := t.view.Mounts[at]; ok {
		fd, err = dup(int(m.File.Fd()))
	} else {
		fd, err = unix.Openat(dir, base, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	}
	if errors.Is(err, unix.ENOENT) {
		return nil // removed meanwhile
	}
	if err != nil {
		return fmt.Errorf("open %s: %w", at, err)
	}
	defer unix.Close(fd)
	return t.add(fd, at, name)
}

// header describes an inode; PAX keeps long names, large ids and nanoseconds.
func header(st *unix.Stat_t, name string) *tar.Header {
	h := &tar.Header{
		Name: name, Mode: int64(st.Mode & 0o7777), Uid: int(st.Uid), Gid: int(st.Gid),
		ModTime: time.Unix(st.Mtim.Unix()), Format: tar.FormatPAX,
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		h.Typeflag = tar.TypeDir
		h.Name = strings.TrimSuffix(name, "/") + "/"
	case unix.S_IFLNK:
		h.Typeflag = tar.TypeSymlink
	case unix.S_IFIFO:
		h.Typeflag = tar.TypeFifo
	case unix.S_IFCHR, unix.S_IFBLK:
		h.Typeflag = tar.TypeChar
		if st.Mode&unix.S_IFMT == unix.S_IFBLK {
			h.Typeflag = tar.TypeBlock
		}
		h.Devmajor, h.Devminor = int64(unix.Major(uint64(st.Rdev))), int64(unix.Minor(uint64(st.Rdev)))
	default:
		h.Typeflag, h.Size = tar.TypeReg, st.Size
	}
	return h
}
