package rotate

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"syscall"

	"github.com/wherry-engine/wherry/logs"
)

// Codec is a driver's format.
type Codec interface {
	// Header consumes the start of a file and returns its length, 0 if b is
	// too short to hold it (or there is none: then with ok).
	Header(b []byte) (n int, ok bool, err error)
	// Next parses the first record of b into m and returns its length, 0 if b
	// holds no whole record. A record that makes no sense has a length, and
	// skip is true. The message may point into b.
	Next(b []byte, m *logs.Message) (n int, skip bool, err error)
	// Tail returns where the last n records of a file begin and how many there
	// are, n or less.
	Tail(f io.ReaderAt, size int64, n int) (off int64, found int, err error)
}

const (
	readSize  = 256 << 10
	maxRecord = 4 << 20
)

// Read yields the records of a log, oldest first. Messages are valid until the
// next one is asked for.
func Read(ctx context.Context, path string, newCodec func() Codec, opts logs.ReadOptions) iter.Seq2[logs.Message, error] {
	return func(yield func(logs.Message, error) bool) {
		r := &reader{ctx: ctx, path: path, newCodec: newCodec, opts: opts, yield: yield}
		if err := r.run(); err != nil && !errors.Is(err, errStop) {
			yield(logs.Message{}, err)
		}
	}
}

// errStop ends reading without an error.
var errStop = errors.New("stop")

type reader struct {
	ctx      context.Context //nolint:containedctx // lives as long as the call of Read
	path     string
	newCodec func() Codec
	opts     logs.ReadOptions
	yield    func(logs.Message, error) bool
	buf      []byte
	msg      logs.Message
}

func (r *reader) run() error {
	var w *watcher
	if r.opts.Follow {
		var err error
		if w, err = watch(r.ctx, r.path, r.opts.Done); err != nil {
			return err
		}
		defer w.close()
	}
	segs, err := snapshot(r.path)
	if err != nil {
		return err
	}
	defer func() { closeAll(segs) }()
	from, off, err := r.tail(segs)
	if err != nil {
		return err
	}
	var cur *cursor
	for i := from; i < len(segs); i++ {
		start := int64(0)
		if i == from {
			start = off
		}
		if cur, err = r.open(segs[i], start); err != nil {
			return err
		}
		if err := r.drain(cur); err != nil {
			return err
		}
	}
	if !r.opts.Follow {
		return nil
	}
	return r.follow(w, cur)
}

// tail finds the segment and the offset to begin with; for packed files the
// offset counts records instead of bytes.
func (r *reader) tail(segs []*segment) (int, int64, error) {
	want := r.opts.Tail
	if want < 0 || len(segs) == 0 {
		return 0, 0, nil
	}
	if want == 0 {
		return len(segs) - 1, -1, nil // the end of the current file
	}
	for i := len(segs) - 1; i >= 0; i-- {
		if segs[i].packed {
			n, err := r.count(segs[i])
			if err != nil {
				return 0, 0, err
			}
			if n >= want {
				return i, int64(n - want), nil
			}
			want -= n
			continue
		}
		fi, err := segs[i].f.Stat()
		if err != nil {
			return 0, 0, err
		}
		off, found, err := r.newCodec().Tail(segs[i].f, fi.Size(), want)
		if err != nil {
			return 0, 0, err
		}
		if found >= want {
			return i, off, nil
		}
		want -= found
	}
	return 0, 0, nil
}

// count returns the number of records in a packed file.
func (r *reader) count(s *segment) (int, error) {
	c, err := r.open(s, 0)
	if err != nil {
		return 0, err
	}
	n := 0
	err = r.scan(c, func() error { n++; return nil })
	_, serr := s.f.Seek(0, io.SeekStart)
	return n, errors.Join(err, serr)
}

// cursor is a place in one file.
type cursor struct {
	seg    *segment
	src    io.Reader
	codec  Codec
	begun  bool
	skip   int64 // records to leave out
	pos    int64 // of the end of what was read from a plain file
	buf    []byte
	lo, hi int
}

func (r *reader) open(s *segment, start int64) (*cursor, error) {
	if r.buf == nil {
		r.buf = make([]byte, readSize)
	}
	c := &cursor{seg: s, src: s.f, codec: r.newCodec(), buf: r.buf}
	if s.packed {
		z, err := gzip.NewReader(s.f)
		if err != nil {
			return nil, fmt.Errorf("read packed log: %w", err)
		}
		c.src, c.skip = z, start
		return c, nil
	}
	if start == 0 {
		return c, nil
	}
	if err := c.readHeader(); err != nil {
		return nil, err
	}
	whence := io.SeekStart
	if start < 0 {
		start, whence = 0, io.SeekEnd
	}
	pos, err := s.f.Seek(start, whence)
	c.pos, c.lo, c.hi = pos, 0, 0
	return c, err
}

// readHeader consumes the header of a plain file, so that reading can go on in the middle.
func (c *cursor) readHeader() error {
	for !c.begun {
		n, ok, err := c.codec.Header(c.buf[c.lo:c.hi])
		if err != nil {
			return err
		}
		if ok {
			c.lo += n
			c.begun = true
			return nil
		}
		if err := c.fill(); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
	}
	return nil
}

// fill reads more behind what is unread.
func (c *cursor) fill() error {
	if c.lo > 0 {
		c.hi = copy(c.buf, c.buf[c.lo:c.hi])
		c.lo = 0
	}
	if c.hi == len(c.buf) {
		if len(c.buf) >= maxRecord {
			return errors.New("malformed log: a record is too large")
		}
		c.buf = append(c.buf, make([]byte, len(c.buf))...)
	}
	n, err := c.src.Read(c.buf[c.hi:])
	c.hi += n
	c.pos += int64(n)
	if n > 0 {
		return nil
	}
	if err == nil || errors.Is(err, io.ErrUnexpectedEOF) {
		err = io.EOF
	}
	return err
}

// scan calls f for every record up to the present end of the file; the record is in r.msg.
func (r *reader) scan(c *cursor, f func() error) error {
	for {
		if err := c.readHeader(); err != nil {
			return err
		}
		for c.begun && c.lo < c.hi {
			n, skip, err := c.codec.Next(c.buf[c.lo:c.hi], &r.msg)
			if err != nil {
				return err
			}
			if n == 0 {
				break
			}
			c.lo += n
			if skip {
				continue
			}
			if c.skip > 0 {
				c.skip--
				continue
			}
			if err := f(); err != nil {
				return err
			}
		}
		if err := c.fill(); errors.Is(err, io.EOF) {
			return r.ctx.Err()
		} else if err != nil {
			return err
		}
	}
}

// drain yields what is wanted of the records up to the present end of the file.
func (r *reader) drain(c *cursor) error {
	return r.scan(c, func() error {
		m := &r.msg
		if (m.Stream == logs.Stdout && !r.opts.Stdout) || (m.Stream == logs.Stderr && !r.opts.Stderr) {
			return nil
		}
		if !r.opts.Since.IsZero() && m.Time.Before(r.opts.Since) {
			return nil
		}
		if !r.opts.Until.IsZero() && m.Time.After(r.opts.Until) {
			return errStop
		}
		if !r.yield(*m, nil) {
			return errStop
		}
		return nil
	})
}

// follow goes on after the end of the present files.
func (r *reader) follow(w *watcher, cur *cursor) error {
	for {
		done := w.isDone()
		next, err := r.advance(cur)
		if err != nil {
			return err
		}
		if next != cur {
			if cur != nil {
				cur.seg.close()
			}
			cur = next
			continue
		}
		if done {
			return nil
		}
		if err := w.wait(); err != nil {
			return err
		}
	}
}

// advance reads on, and to the next file if the log was rotated. It returns
// the cursor to go on with, nil while there is no file.
func (r *reader) advance(cur *cursor) (*cursor, error) {
	if cur != nil {
		if err := cur.rewindIfEmptied(); err != nil {
			return nil, err
		}
		if err := r.drain(cur); err != nil {
			return nil, err
		}
		var st syscall.Stat_t
		if err := syscall.Stat(r.path, &st); err == nil && st.Ino == cur.seg.ino {
			return cur, nil
		}
		// What was written before the rotation is complete now.
		if err := r.drain(cur); err != nil {
			return nil, err
		}
	}
	segs, err := snapshot(r.path)
	if err != nil {
		return nil, err
	}
	i := 0
	if cur != nil {
		for j, s := range segs {
			if s.continues(cur.seg) { // the newest, if an old one bears the same number
				i = j + 1 // all later ones are new
			}
		}
	}
	if i >= len(segs) { // the next file is not there yet
		closeAll(segs)
		return cur, nil
	}
	for j, s := range segs {
		if j != i {
			s.close()
		}
	}
	return r.open(segs[i], 0)
}

// rewindIfEmptied starts again when a log of a single file was rotated.
func (c *cursor) rewindIfEmptied() error {
	if c.seg.packed {
		return nil
	}
	fi, err := c.seg.f.Stat()
	if err != nil || fi.Size() >= c.pos {
		return err
	}
	_, err = c.seg.f.Seek(0, io.SeekStart)
	c.pos, c.lo, c.hi, c.begun = 0, 0, 0, false
	return err
}
