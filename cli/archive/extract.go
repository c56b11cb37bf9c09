package archive

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"
)

func zeroTime() time.Time { return time.Time{} }

// ExtractOptions say how a stream is unpacked.
type ExtractOptions struct {
	// Name is what the stream's top entry is called in the directory; "" puts
	// what is in the top entry, a directory, straight into it.
	Name string
	// Owner keeps the owners that the stream tells.
	Owner bool
	// Warn is told of entries that cannot be made here.
	Warn func(string)
}

// Extract unpacks a stream that holds one file or one tree into dir. Paths
// cannot leave dir, whatever names and links the stream contains. It returns
// the number of content bytes.
func Extract(r io.Reader, dir string, o ExtractOptions) (int64, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return 0, err
	}
	defer root.Close() //nolint:errcheck // only a descriptor
	x := &extractor{root: root, o: o, top: "\x00"}
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return x.bytes, x.finish()
		}
		if err != nil {
			return x.bytes, err
		}
		if err := x.entry(h, tr); err != nil {
			return x.bytes, fmt.Errorf("%s: %w", h.Name, err)
		}
	}
}

type extractor struct {
	root  *os.Root
	o     ExtractOptions
	top   string // name of the stream's top entry
	dirs  []dirTime
	bytes int64
}

type dirTime struct {
	name string
	mode fs.FileMode
	time time.Time
}

// target maps a name of the stream to one below the root; "" for the root.
func (x *extractor) target(name string) (string, error) {
	name = strings.TrimPrefix(path.Clean("/"+name), "/")
	if x.top == "\x00" {
		x.top, _, _ = strings.Cut(name, "/")
	}
	rel := name
	if x.top != "" {
		first, rest, _ := strings.Cut(name, "/")
		if first != x.top {
			return "", errors.New("more than one top entry in the archive")
		}
		rel = rest
	}
	return strings.TrimPrefix(path.Join(x.o.Name, rel), "/"), nil
}

func (x *extractor) entry(h *tar.Header, r io.Reader) error {
	name, err := x.target(h.Name)
	if err != nil {
		return err
	}
	if name == "" || name == "." {
		return nil // the directory that was named is there already
	}
	if h.Typeflag == tar.TypeDir {
		return x.dir(name, h)
	}
	if st, err := x.root.Lstat(name); err == nil {
		if st.IsDir() {
			return errors.New("cannot overwrite directory with non-directory")
		}
		if err := x.root.Remove(name); err != nil {
			return err
		}
	}
	switch h.Typeflag {
	case tar.TypeReg:
		return x.file(name, h, r)
	case tar.TypeSymlink:
		if err := x.root.Symlink(h.Linkname, name); err != nil {
			return err
		}
		return x.own(name, h)
	case tar.TypeLink:
		from, err := x.target(h.Linkname)
		if err != nil {
			return err
		}
		return x.root.Link(from, name)
	}
	if x.o.Warn != nil {
		x.o.Warn(fmt.Sprintf("%s: not copied: neither file, directory nor link", h.Name))
	}
	return nil
}

func (x *extractor) dir(name string, h *tar.Header) error {
	st, err := x.root.Lstat(name)
	switch {
	case err == nil && st.IsDir():
	case err == nil:
		return errors.New("cannot overwrite non-directory with directory")
	default:
		if err := x.root.MkdirAll(name, 0o700); err != nil {
			return err
		}
	}
	x.dirs = append(x.dirs, dirTime{name, h.FileInfo().Mode(), h.ModTime})
	return x.own(name, h)
}

func (x *extractor) file(name string, h *tar.Header, r io.Reader) error {
	f, err := x.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	n, err := io.Copy(f, r)
	x.bytes += n
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	if err := x.own(name, h); err != nil {
		return err
	}
	if err := x.root.Chmod(name, h.FileInfo().Mode()); err != nil {
		return err
	}
	return x.root.Chtimes(name, h.ModTime, h.ModTime)
}

func (x *extractor) own(name string, h *tar.Header) error {
	if !x.o.Owner {
		return nil
	}
	return x.root.Lchown(name, h.Uid, h.Gid)
}

// finish sets modes and times of directories, the deepest first, when nothing
// is written into them any more.
func (x *extractor) finish() error {
	for i := len(x.dirs) - 1; i >= 0; i-- {
		d := x.dirs[i]
		if err := x.root.Chmod(d.name, d.mode); err != nil {
			return err
		}
		if err := x.root.Chtimes(d.name, d.time, d.time); err != nil {
			return err
		}
	}
	return nil
}
