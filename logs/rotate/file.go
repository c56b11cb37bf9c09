// Package rotate is the set of files behind one container's log: the current
// one, and name.1, name.2, … (with .gz when compressed) from newer to older.
// Drivers write records through File and read them through Set; the format of
// records is theirs.
package rotate

import (
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
)

const gz = ".gz"

// Options of a File.
type Options struct {
	// MaxSize is when the current file is rotated (bytes); 0 or less: never.
	MaxSize int64
	// MaxFiles is how many files are kept, the current one included; less than
	// 2 means that the current file is emptied instead.
	MaxFiles int
	// Compress rotated files.
	Compress bool
	// Header starts each file.
	Header []byte
	// Whole, if not nil, returns how many bytes of an existing file are whole
	// records; what a crash left behind them is cut off.
	Whole func(f io.ReaderAt, size int64) (int64, error)
}

// File appends records to the current file. It has one owner.
type File struct {
	path string
	opts Options
	f    *os.File
	size int64
	ino  uint64

	packing sync.WaitGroup // the one compression in the background
	packErr error          // of the last one; read after packing.Wait
}

// Open opens the current file for appending, making it if missing.
func Open(path string, opts Options) (*File, error) {
	f := &File{path: path, opts: opts}
	if opts.Compress {
		f.packLeftover()
	}
	if opts.Whole != nil {
		if err := f.repair(); err != nil {
			return nil, err
		}
	}
	return f, f.open(0)
}

// repair cuts an incomplete record off, so that the next one is found.
func (f *File) repair() error {
	file, err := os.OpenFile(f.path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer file.Close()
	fi, err := file.Stat()
	if err != nil || !fi.Mode().IsRegular() || fi.Size() == 0 {
		return err
	}
	whole, err := f.opts.Whole(file, fi.Size())
	if err != nil || whole >= fi.Size() {
		return err
	}
	return file.Truncate(whole)
}

// open opens the current file, and makes its directory if just that is missing. Descriptors of logs are never shared with the
// container, so that it cannot write records of its own.
func (f *File) open(flag int) error {
	file, err := os.OpenFile(f.path, os.O_WRONLY|os.O_APPEND|os.O_CREATE|flag, 0o640)
	if errors.Is(err, fs.ErrNotExist) {
		if err = os.MkdirAll(filepath.Dir(f.path), 0o700); err == nil {
			file, err = os.OpenFile(f.path, os.O_WRONLY|os.O_APPEND|os.O_CREATE|flag, 0o640)
		}
	}
	if err != nil {
		return err
	}
	fi, err := file.Stat()
	if err != nil {
		return errors.Join(err, file.Close())
	}
	f.f, f.size = file, fi.Size()
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		f.ino = st.Ino
	}
	if f.size == 0 && len(f.opts.Header) > 0 {
		n, err := file.Write(f.opts.Header)
		f.size = int64(n)
		return err
	}
	return nil
}

// Room returns how many bytes fit before the next rotation; a record may
// always be written whole.
func (f *File) Room() int64 {
	if f.opts.MaxSize <= 0 {
		return 1 << 62
	}
	return max(f.opts.MaxSize-f.size, 0)
}

// Position tells where the log ends: the current file's inode and size.
func (f *File) Position() (ino uint64, size int64) { return f.ino, f.size }

// Write appends whole records. On a full disk what was written of them is taken
// back as far as possible, so that the file ends with a whole record.
func (f *File) Write(p []byte) error {
	if f.f == nil { // an earlier rotation did not come to its end
		if err := f.open(0); err != nil {
			return err
		}
	}
	n, err := f.f.Write(p)
	if err != nil && n > 0 {
		if terr := f.f.Truncate(f.size); terr == nil {
			n = 0
		}
	}
	f.size += int64(n)
	return err
}

// Rotate starts a new current file.
func (f *File) Rotate() error {
	f.packing.Wait()
	if f.f != nil {
		err := f.f.Close()
		f.f = nil
		if err != nil {
			return err
		}
	}
	if f.opts.MaxFiles < 2 {
		return f.open(os.O_TRUNC)
	}
	for i := f.opts.MaxFiles - 1; i > 1; i-- {
		if err := f.shift(i); err != nil {
			return errors.Join(err, f.open(0))
		}
	}
	if err := removeIfThere(f.numbered(1) + gz); err != nil {
		return errors.Join(err, f.open(0))
	}
	if err := rename(f.path, f.numbered(1)); err != nil {
		return errors.Join(err, f.open(0))
	}
	if f.opts.Compress {
		f.packing.Go(func() { f.packErr = pack(f.numbered(1)) })
	}
	return f.open(0)
}

// Close closes the current file.
func (f *File) Close() error {
	f.packing.Wait()
	if f.f == nil {
		return f.packErr
	}
	return errors.Join(f.packErr, f.f.Close())
}

func (f *File) numbered(i int) string { return f.path + "." + strconv.Itoa(i) }

// packLeftover compresses what an interrupted predecessor did not.
func (f *File) packLeftover() {
	name := f.numbered(1)
	if _, err := os.Lstat(name); err == nil {
		f.packing.Go(func() { f.packErr = pack(name) })
	}
}

// shift makes file i-1 file i, whether it is compressed or not.
func (f *File) shift(i int) error {
	for _, ext := range []string{"", gz} {
		err := os.Rename(f.numbered(i-1)+ext, f.numbered(i)+ext)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		other := gz
		if ext == gz {
			other = ""
		}
		return errors.Join(err, removeIfThere(f.numbered(i)+other))
	}
	return nil
}

func removeIfThere(name string) error {
	if err := os.Remove(name); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func rename(from, to string) error {
	if err := os.Rename(from, to); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// pack replaces name by name.gz. Until that is complete only name is there.
func pack(name string) error {
	in, err := os.Open(name)
	if err != nil {
		return err
	}
	defer in.Close()
	tmp := name + gz + ".tmp"
	if err := packTo(tmp, in); err != nil {
		return errors.Join(fmt.Errorf("compress %s: %w", name, err), os.Remove(tmp))
	}
	return errors.Join(os.Rename(tmp, name+gz), os.Remove(name))
}

func packTo(name string, in *os.File) error {
	fi, err := in.Stat()
	if err != nil {
		return err
	}
	out, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o640)
	if err != nil {
		return err
	}
	z, err := gzip.NewWriterLevel(out, gzip.BestSpeed)
	if err == nil {
		if st, ok := fi.Sys().(*syscall.Stat_t); ok {
			z.Comment = inodeComment + strconv.FormatUint(st.Ino, 10)
		}
		_, err = io.Copy(z, in)
		err = errors.Join(err, z.Close())
	}
	return errors.Join(err, out.Close())
}
