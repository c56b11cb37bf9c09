package tree

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	whiteoutPrefix = ".wh."
	opaqueMarker   = ".wh..wh..opq"
	xattrRecord    = "SCHILY.xattr."
	maxXattr       = 64 << 10
)

// Writer writes entries as an OCI layer. What changes meanwhile may be in it
// or not; every file is complete as far as its header says.
type Writer struct {
	tw    *tar.Writer
	links map[uint64]string // files with several names, by inode
	buf   []byte
	attrs [2][]byte // names and value of extended attributes
}

// NewWriter returns a Writer; Close completes the archive.
func NewWriter(w io.Writer) *Writer {
	return &Writer{tw: tar.NewWriter(w), links: map[uint64]string{}}
}

// Close writes the end of the archive.
func (t *Writer) Close() error { return t.tw.Close() }

// Deleted says that a path of the lower layers is gone.
func (t *Writer) Deleted(p string) error {
	dir, base := path.Split(strings.TrimPrefix(p, "/"))
	return t.tw.WriteHeader(&tar.Header{Format: tar.FormatPAX, Typeflag: tar.TypeReg, Name: dir + whiteoutPrefix + base})
}

// Add writes one entry. It can be the visitor of Walk.
func (t *Writer) Add(e *Entry) error {
	name := strings.TrimPrefix(e.Path, "/")
	if e.IsWhiteout() {
		dir, base := path.Split(name)
		return t.tw.WriteHeader(t.marker(e, dir+whiteoutPrefix+base))
	}
	h := &tar.Header{
		Format: tar.FormatPAX, Name: name,
		Mode: int64(e.Stat.Mode & 0o7777), Uid: int(e.Stat.Uid), Gid: int(e.Stat.Gid),
		ModTime: time.Unix(e.Stat.Mtim.Unix()),
	}
	t.xattrs(e.ProcPath(), h)
	switch e.Kind() {
	case unix.S_IFREG:
		return t.file(e, h)
	case unix.S_IFDIR:
		return t.dir(e, h)
	case unix.S_IFLNK:
		return t.symlink(e, h)
	case unix.S_IFCHR:
		h.Typeflag = tar.TypeChar
	case unix.S_IFBLK:
		h.Typeflag = tar.TypeBlock
	case unix.S_IFIFO:
		h.Typeflag = tar.TypeFifo
	default:
		return nil // sockets are not kept in layers
	}
	if h.Typeflag != tar.TypeFifo {
		h.Devmajor, h.Devminor = int64(unix.Major(e.Stat.Rdev)), int64(unix.Minor(e.Stat.Rdev))
	}
	return t.header(e, h)
}

// marker is the header of a file that only says something about another.
func (*Writer) marker(e *Entry, name string) *tar.Header {
	return &tar.Header{Format: tar.FormatPAX, Typeflag: tar.TypeReg, Name: name, ModTime: time.Unix(e.Stat.Mtim.Unix())}
}

// header writes a header, or a link to the same file written before; it
// reports by nil which of both.
func (t *Writer) header(e *Entry, h *tar.Header) error {
	_, err := t.linked(e, h)
	return err
}

func (t *Writer) linked(e *Entry, h *tar.Header) (bool, error) {
	if e.Stat.Nlink > 1 && !e.IsDir() {
		if first, ok := t.links[e.Stat.Ino]; ok {
			h.Typeflag, h.Linkname, h.Size, h.PAXRecords = tar.TypeLink, first, 0, nil
			return true, t.tw.WriteHeader(h)
		}
		t.links[e.Stat.Ino] = h.Name
	}
	return false, t.tw.WriteHeader(h)
}

func (t *Writer) dir(e *Entry, h *tar.Header) error {
	h.Typeflag, h.Name = tar.TypeDir, h.Name+"/"
	if err := t.tw.WriteHeader(h); err != nil || !e.Opaque {
		return err
	}
	return t.tw.WriteHeader(t.marker(e, h.Name+opaqueMarker))
}

func (t *Writer) symlink(e *Entry, h *tar.Header) error {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(int(e.dir.Fd()), e.Name, buf)
	if gone(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read link %s: %w", e.Path, err)
	}
	h.Typeflag, h.Linkname = tar.TypeSymlink, string(buf[:n])
	return t.header(e, h)
}

// gone reports that an entry was replaced while we looked.
func gone(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENXIO)
}

func (t *Writer) file(e *Entry, h *tar.Header) error {
	fd, err := unix.Openat(int(e.dir.Fd()), e.Name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if gone(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open %s: %w", e.Path, err)
	}
	f := os.NewFile(uintptr(fd), e.Path)
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("stat %s: %w", e.Path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil
	}
	h.Typeflag, h.Size = tar.TypeReg, st.Size
	if linked, err := t.linked(e, h); linked || err != nil {
		return err
	}
	if t.buf == nil {
		t.buf = make([]byte, 256<<10)
	}
	n, err := io.CopyBuffer(struct{ io.Writer }{t.tw}, io.LimitReader(f, st.Size), t.buf)
	if err != nil {
		return fmt.Errorf("copy %s: %w", e.Path, err)
	}
	return t.pad(st.Size - n)
}

// pad completes a file that shrank while it was read.
func (t *Writer) pad(n int64) error {
	clear(t.buf)
	for n > 0 {
		k := min(n, int64(len(t.buf)))
		if _, err := t.tw.Write(t.buf[:k]); err != nil {
			return err
		}
		n -= k
	}
	return nil
}

// xattrs adds extended attributes, except overlayfs' own and those of the host's security modules.
func (t *Writer) xattrs(p string, h *tar.Header) {
	if t.attrs[0] == nil {
		t.attrs = [2][]byte{make([]byte, maxXattr), make([]byte, maxXattr)}
	}
	buf, val := t.attrs[0], t.attrs[1]
	n, err := unix.Llistxattr(p, buf)
	if err != nil || n == 0 {
		return
	}
	for name := range strings.SplitSeq(strings.TrimRight(string(buf[:n]), "\x00"), "\x00") {
		if name != "security.capability" && !strings.HasPrefix(name, "user.") || strings.HasPrefix(name, "user.overlay.") {
			continue
		}
		m, err := unix.Lgetxattr(p, name, val)
		if err != nil {
			continue
		}
		if h.PAXRecords == nil {
			h.PAXRecords = map[string]string{}
		}
		h.PAXRecords[xattrRecord+name] = string(val[:m])
	}
}
