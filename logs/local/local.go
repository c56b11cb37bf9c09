// Package local is the compact log driver: binary records that are cheap to
// write, to skip and to read backwards.
//
// A file starts with a header: the 8 bytes "wherrlg\x01" (the last is the
// version), a uint32 length and that many bytes of JSON, the attributes of all
// its records. A record is
//
//	uint32  length n of what lies between the two lengths
//	uint8   stream: 1 stdout, 2 stderr; bit 7: partial, more of the line follows
//	int64   time, nanoseconds since 1970
//	bytes   the text, n-9 bytes, with its newline
//	uint32  n again
//
// Numbers are little endian.
package local

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"time"

	"github.com/wherry-engine/wherry/logs"
	"github.com/wherry-engine/wherry/logs/rotate"
)

const (
	magic      = "wherrlg\x01"
	fixed      = 9       // stream and time
	partialBit = 1 << 7  // of the stream byte
	maxText    = 1 << 20 // anything longer is damage
	maxAttrs   = 1 << 20
)

// WriterOptions say where and how to write.
type WriterOptions struct {
	Path     string
	MaxSize  int64 // bytes; 0 or less: unlimited
	MaxFiles int
	Compress bool
	Attrs    map[string]string
}

// Writer implements logs.Writer.
type Writer struct {
	file  *rotate.File
	lines logs.Splitter
	out   []byte
}

var _ logs.Writer = (*Writer)(nil)

// NewWriter opens the log for appending.
func NewWriter(opts WriterOptions) (*Writer, error) {
	header := []byte(magic)
	var attrs []byte
	if len(opts.Attrs) > 0 {
		var err error
		if attrs, err = json.Marshal(opts.Attrs); err != nil {
			return nil, err
		}
	}
	header = binary.LittleEndian.AppendUint32(header, uint32(len(attrs)))
	f, err := rotate.Open(opts.Path, rotate.Options{
		MaxSize: opts.MaxSize, MaxFiles: opts.MaxFiles, Compress: opts.Compress, Header: append(header, attrs...), Whole: whole,
	})
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	return &Writer{file: f}, nil
}

// whole returns where the last complete record ends: the end of the file,
// unless a crash cut one short.
func whole(f io.ReaderAt, size int64) (int64, error) {
	c := new(codec)
	off, found, err := c.Tail(f, size, 1)
	if err != nil || found == 0 {
		return off, err
	}
	var b [4]byte
	if _, err := f.ReadAt(b[:], off); err != nil {
		return 0, err
	}
	return off + 8 + int64(binary.LittleEndian.Uint32(b[:])), nil
}

// Write logs what came from a stream. An error means that lines were lost.
func (w *Writer) Write(s logs.Stream, p []byte, now time.Time) error {
	return w.batch(now, func(emit logs.Emit) error { return w.lines.Write(s, p, emit) })
}

// Flush logs unfinished lines.
func (w *Writer) Flush(now time.Time) error { return w.batch(now, w.lines.Flush) }

// Pending returns the unfinished line of a stream.
func (w *Writer) Pending(s logs.Stream) []byte { return w.lines.Pending(s) }

// Position tells where the log ends.
func (w *Writer) Position() (ino uint64, size int64) { return w.file.Position() }

// Close flushes and closes the log.
func (w *Writer) Close() error {
	return errors.Join(w.Flush(time.Now()), w.file.Close())
}

func (w *Writer) batch(now time.Time, fill func(logs.Emit) error) error {
	w.out = logs.GetBuffer()
	stamp := uint64(now.UnixNano())
	room := w.file.Room()
	err := fill(func(s logs.Stream, line []byte, partial bool) error {
		if int64(len(w.out)) >= room || len(w.out) > logs.Batch {
			if err := w.flush(); err != nil {
				return err
			}
			room = w.file.Room()
		}
		tag := byte(s)
		if partial {
			tag |= partialBit
		}
		n := uint32(fixed + len(line))
		b := binary.LittleEndian.AppendUint32(w.out, n)
		b = binary.LittleEndian.AppendUint64(append(b, tag), stamp)
		w.out = binary.LittleEndian.AppendUint32(append(b, line...), n)
		return nil
	})
	err = errors.Join(err, w.flush())
	logs.PutBuffer(w.out)
	w.out = nil
	return err
}

func (w *Writer) flush() error {
	if len(w.out) == 0 {
		return nil
	}
	var err error
	if w.file.Room() == 0 {
		err = w.file.Rotate()
	}
	err = errors.Join(err, w.file.Write(w.out))
	w.out = w.out[:0]
	return err
}

// Reader implements logs.Reader.
type Reader struct{ path string }

var _ logs.Reader = (*Reader)(nil)

// NewReader reads the log whose current file is path; it need not exist yet.
func NewReader(path string) *Reader { return &Reader{path} }

// Read yields the log's lines. Line is valid until the next one is asked for.
func (r *Reader) Read(ctx context.Context, opts logs.ReadOptions) iter.Seq2[logs.Message, error] {
	return rotate.Read(ctx, r.path, func() rotate.Codec { return new(codec) }, opts)
}

// CountAfter returns how many lines of a stream follow a writer's Position.
func CountAfter(ctx context.Context, path string, s logs.Stream, ino uint64, size int64) (int, error) {
	return rotate.CountAfter(ctx, path, func() rotate.Codec { return new(codec) }, s, ino, size)
}

type codec struct{ attrs map[string]string }

// Header reads the magic number and the attributes.
func (c *codec) Header(b []byte) (int, bool, error) {
	const min = len(magic) + 4
	if len(b) < min {
		return 0, false, nil
	}
	if string(b[:len(magic)]) != magic {
		return 0, false, errors.New("not a log of the local driver, or of a newer version")
	}
	n := binary.LittleEndian.Uint32(b[len(magic):])
	if n > maxAttrs {
		return 0, false, errors.New("malformed log header")
	}
	if len(b) < min+int(n) {
		return 0, false, nil
	}
	if n > 0 {
		if err := json.Unmarshal(b[min:min+int(n)], &c.attrs); err != nil {
			return 0, false, fmt.Errorf("malformed log header: %w", err)
		}
	}
	return min + int(n), true, nil
}

// Next parses one record.
func (c *codec) Next(b []byte, m *logs.Message) (int, bool, error) {
	if len(b) < 4 {
		return 0, false, nil
	}
	n := binary.LittleEndian.Uint32(b)
	if n < fixed || n > fixed+maxText {
		return 0, false, errors.New("malformed log: impossible length of a record")
	}
	size := int(n) + 8
	if len(b) < size {
		return 0, false, nil
	}
	if binary.LittleEndian.Uint32(b[size-4:]) != n {
		return 0, false, errors.New("malformed log: lengths of a record differ")
	}
	m.Stream = logs.Stream(b[4] &^ partialBit)
	m.Partial = b[4]&partialBit != 0
	m.Time = time.Unix(0, int64(binary.LittleEndian.Uint64(b[5:]))).UTC()
	m.Line = b[4+fixed : size-4]
	m.Attrs = c.attrs
	return size, false, nil
}

// Tail walks backwards over the records' second lengths. A record cut short at
// the end, which a crash may leave, makes it walk forwards instead.
func (c *codec) Tail(f io.ReaderAt, size int64, n int) (int64, int, error) {
	head := make([]byte, len(magic)+4)
	if _, err := f.ReadAt(head, 0); err != nil || string(head[:len(magic)]) != magic {
		return 0, 0, nil // no record yet
	}
	begin := int64(len(head)) + int64(binary.LittleEndian.Uint32(head[len(magic):]))
	if begin > size {
		return 0, 0, nil // not even the header is complete
	}
	off, found := size, 0
	var b [4]byte
	for found < n && off > begin {
		if off-4 < begin {
			return c.tailForwards(f, begin, size, n)
		}
		if _, err := f.ReadAt(b[:], off-4); err != nil {
			return 0, 0, err
		}
		prev := off - 8 - int64(binary.LittleEndian.Uint32(b[:]))
		if prev < begin {
			return c.tailForwards(f, begin, size, n)
		}
		if _, err := f.ReadAt(b[:], prev); err != nil {
			return 0, 0, err
		}
		if int64(binary.LittleEndian.Uint32(b[:])) != off-prev-8 {
			return c.tailForwards(f, begin, size, n)
		}
		off = prev
		found++
	}
	return off, found, nil
}

func (c *codec) tailForwards(f io.ReaderAt, begin, size int64, n int) (int64, int, error) {
	var starts []int64
	var b [4]byte
	for off := begin; off+8 <= size; {
		if _, err := f.ReadAt(b[:], off); err != nil {
			return 0, 0, err
		}
		next := off + 8 + int64(binary.LittleEndian.Uint32(b[:]))
		if next > size {
			break
		}
		if starts = append(starts, off); len(starts) > n {
			starts = starts[1:]
		}
		off = next
	}
	if len(starts) == 0 {
		return begin, 0, nil
	}
	return starts[0], len(starts), nil
}
