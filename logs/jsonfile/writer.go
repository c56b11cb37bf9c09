// Package jsonfile is Docker's json-file log driver: one JSON object a line, as
// other tools read it,
//
//	{"log":"text\n","stream":"stdout","attrs":{…},"time":"2006-01-02T15:04:05.999999999Z"}
//
// written and read by hand, because logs are the busiest path of an engine. A
// line longer than logs.MaxLine is cut into pieces; all but the last lack the
// newline.
package jsonfile

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/wherry-engine/wherry/logs"
	"github.com/wherry-engine/wherry/logs/rotate"
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
	tail  [3][]byte // by stream: what follows the text up to the time's quote
	lines logs.Splitter
	out   []byte // borrowed while a batch is written
	stamp [40]byte
}

var _ logs.Writer = (*Writer)(nil)

// NewWriter opens the log for appending.
func NewWriter(opts WriterOptions) (*Writer, error) {
	f, err := rotate.Open(opts.Path, rotate.Options{MaxSize: opts.MaxSize, MaxFiles: opts.MaxFiles, Compress: opts.Compress, Whole: whole})
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	attrs := ""
	if len(opts.Attrs) > 0 {
		b, err := json.Marshal(opts.Attrs)
		if err != nil {
			return nil, errors.Join(err, f.Close())
		}
		attrs = `"attrs":` + string(b) + `,`
	}
	w := &Writer{file: f}
	w.tail[logs.Stdout] = []byte(`","stream":"stdout",` + attrs + `"time":"`)
	w.tail[logs.Stderr] = []byte(`","stream":"stderr",` + attrs + `"time":"`)
	return w, nil
}

// whole returns where the last complete line ends.
func whole(f io.ReaderAt, size int64) (int64, error) {
	buf := make([]byte, 4096)
	for end := size; end > 0; {
		start := max(end-int64(len(buf)), 0)
		b := buf[:end-start]
		if _, err := f.ReadAt(b, start); err != nil && !errors.Is(err, io.EOF) {
			return 0, err
		}
		if i := bytes.LastIndexByte(b, '\n'); i >= 0 {
			return start + int64(i) + 1, nil
		}
		end = start
	}
	return 0, nil
}

// Write logs what came from a stream. An error means that lines were lost.
func (w *Writer) Write(s logs.Stream, p []byte, now time.Time) error {
	return w.batch(now, func(emit logs.Emit) error { return w.lines.Write(s, p, emit) })
}

// Flush logs unfinished lines.
func (w *Writer) Flush(now time.Time) error {
	return w.batch(now, w.lines.Flush)
}

// Pending returns the unfinished line of a stream.
func (w *Writer) Pending(s logs.Stream) []byte { return w.lines.Pending(s) }

// Position tells where the log ends.
func (w *Writer) Position() (ino uint64, size int64) { return w.file.Position() }

// Close flushes and closes the log.
func (w *Writer) Close() error {
	return errors.Join(w.Flush(time.Now()), w.file.Close())
}

// batch formats everything that fill emits and writes it in as few calls as possible.
func (w *Writer) batch(now time.Time, fill func(logs.Emit) error) error {
	w.out = logs.GetBuffer()
	stamp := append(now.UTC().AppendFormat(w.stamp[:0], time.RFC3339Nano), '"', '}', '\n')
	room := w.file.Room()
	err := fill(func(s logs.Stream, line []byte, _ bool) error {
		if int64(len(w.out)) >= room || len(w.out) > logs.Batch {
			if err := w.flush(); err != nil {
				return err
			}
			room = w.file.Room()
		}
		b := append(w.out, `{"log":"`...)
		b = appendEscaped(b, line)
		b = append(b, w.tail[s]...)
		w.out = append(b, stamp...)
		return nil
	})
	err = errors.Join(err, w.flush())
	logs.PutBuffer(w.out)
	w.out = nil
	return err
}

// flush writes the batch, to a new file if the present one is full.
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
