package jsonfile

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"iter"
	"time"

	"github.com/wherry-engine/wherry/logs"
	"github.com/wherry-engine/wherry/logs/rotate"
)

// Reader implements logs.Reader.
type Reader struct{ path string }

var _ logs.Reader = (*Reader)(nil)

// NewReader reads the log whose current file is path; it need not exist yet.
func NewReader(path string) *Reader { return &Reader{path} }

// Read yields the log's lines. Line and Attrs are valid until the next one is asked for.
func (r *Reader) Read(ctx context.Context, opts logs.ReadOptions) iter.Seq2[logs.Message, error] {
	return rotate.Read(ctx, r.path, func() rotate.Codec { return new(codec) }, opts)
}

// CountAfter returns how many lines of a stream follow a writer's Position.
func CountAfter(ctx context.Context, path string, s logs.Stream, ino uint64, size int64) (int, error) {
	return rotate.CountAfter(ctx, path, func() rotate.Codec { return new(codec) }, s, ino, size)
}

// codec parses lines; scratch holds text that had escapes.
type codec struct {
	scratch []byte
}

// Header tells that there is none.
func (c *codec) Header([]byte) (int, bool, error) { return 0, true, nil }

// Next parses one line. The form that the writer makes is taken apart by hand,
// everything else by encoding/json.
func (c *codec) Next(b []byte, m *logs.Message) (int, bool, error) {
	end := bytes.IndexByte(b, '\n')
	if end < 0 {
		return 0, false, nil
	}
	if !c.fast(b[:end], m) && !c.slow(b[:end], m) {
		return end + 1, true, nil
	}
	m.Partial = len(m.Line) == 0 || m.Line[len(m.Line)-1] != '\n'
	return end + 1, false, nil
}

// fast parses a line as our writer and Docker's form it.
func (c *codec) fast(b []byte, m *logs.Message) bool {
	rest, ok := bytes.CutPrefix(b, []byte(`{"log":"`))
	if !ok {
		return false
	}
	if m.Line, rest, ok = c.text(rest); !ok {
		return false
	}
	if rest, ok = bytes.CutPrefix(rest, []byte(`,"stream":"std`)); !ok || len(rest) < 4 {
		return false
	}
	switch {
	case rest[0] == 'o' && rest[1] == 'u' && rest[2] == 't' && rest[3] == '"':
		m.Stream = logs.Stdout
	case rest[0] == 'e' && rest[1] == 'r' && rest[2] == 'r' && rest[3] == '"':
		m.Stream = logs.Stderr
	default:
		return false
	}
	if rest, ok = bytes.CutPrefix(rest[4:], []byte(`,"time":"`)); !ok {
		return false
	}
	stamp, ok := bytes.CutSuffix(rest, []byte(`"}`))
	if !ok {
		return false
	}
	m.Attrs = nil
	m.Time, ok = parseTime(stamp)
	return ok
}

// text takes the string that b begins with, after its quote, up to the closing quote.
func (c *codec) text(b []byte) (text, rest []byte, ok bool) {
	i := bytes.IndexByte(b, '"')
	if i < 0 {
		return nil, nil, false
	}
	esc := bytes.IndexByte(b[:i], '\\')
	if esc < 0 {
		return b[:i], b[i+1:], true
	}
	out := c.scratch[:0]
	for {
		out = append(out, b[:esc]...)
		n, ok := 0, false
		if out, n, ok = unescape(out, b[esc:]); !ok {
			return nil, nil, false
		}
		b = b[esc+n:]
		esc = 0
		for esc < len(b) && b[esc] != '\\' && b[esc] != '"' {
			esc++
		}
		if esc == len(b) {
			return nil, nil, false
		}
		if b[esc] == '"' {
			c.scratch = append(out, b[:esc]...)
			return c.scratch, b[esc+1:], true
		}
	}
}

// unescape appends what the escape at the start of b stands for and returns its
// length. Surrogates are left to encoding/json.
func unescape(out, b []byte) ([]byte, int, bool) {
	if len(b) < 2 {
		return out, 0, false
	}
	switch b[1] {
	case 'n':
		return append(out, '\n'), 2, true
	case 'r':
		return append(out, '\r'), 2, true
	case 't':
		return append(out, '\t'), 2, true
	case 'b':
		return append(out, '\b'), 2, true
	case 'f':
		return append(out, '\f'), 2, true
	case '"', '\\', '/':
		return append(out, b[1]), 2, true
	case 'u':
		return unescapeRune(out, b)
	}
	return out, 0, false
}

func unescapeRune(out, b []byte) ([]byte, int, bool) {
	if len(b) < 6 {
		return out, 0, false
	}
	var r rune
	for _, d := range b[2:6] {
		switch {
		case d >= '0' && d <= '9':
			r = r<<4 | rune(d-'0')
		case d >= 'a' && d <= 'f':
			r = r<<4 | rune(d-'a'+10)
		case d >= 'A' && d <= 'F':
			r = r<<4 | rune(d-'A'+10)
		default:
			return out, 0, false
		}
	}
	if r >= 0xd800 && r < 0xe000 {
		return out, 0, false
	}
	return append(out, string(r)...), 6, true
}

// slow parses any JSON object.
func (c *codec) slow(b []byte, m *logs.Message) bool {
	var rec struct {
		Log    string            `json:"log"`
		Stream string            `json:"stream"`
		Attrs  map[string]string `json:"attrs"`
		Time   time.Time         `json:"time"`
	}
	if json.Unmarshal(b, &rec) != nil || rec.Time.IsZero() {
		return false
	}
	*m = logs.Message{Stream: logs.Stdout, Time: rec.Time, Line: []byte(rec.Log), Attrs: rec.Attrs}
	if rec.Stream == "stderr" {
		m.Stream = logs.Stderr
	}
	return true
}

// Tail reads backwards, counting newlines.
func (c *codec) Tail(f io.ReaderAt, size int64, n int) (int64, int, error) {
	const chunk = 64 << 10
	buf := make([]byte, chunk)
	found := 0
	for end := size; end > 0; {
		start := max(end-chunk, 0)
		b := buf[:end-start]
		if _, err := f.ReadAt(b, start); err != nil && err != io.EOF {
			return 0, 0, err
		}
		for i := len(b) - 1; i >= 0; i-- {
			if b[i] != '\n' {
				continue
			}
			if found == n {
				return start + int64(i) + 1, found, nil
			}
			found++
		}
		end = start
	}
	return 0, found, nil
}
