package logs

import (
	"bytes"
	"sync"
)

const (
	// MaxLine is the length at which a line is cut into pieces (bytes).
	MaxLine = 16 << 10
	// Batch is how much a writer collects before it writes (bytes).
	Batch = 256 << 10
)

// Emit takes one line, with its newline, or one piece of a line that is too
// long or was flushed; partial tells that more of the line follows.
type Emit func(s Stream, line []byte, partial bool) error

// Splitter cuts streams into lines, remembering an unfinished one for each. It
// has one owner. The zero value is ready.
type Splitter struct {
	pending [3][]byte
}

// Write splits p. Lines handed to emit are valid during the call only. After
// an error of emit the rest of p is split all the same, and the first error returned.
func (sp *Splitter) Write(s Stream, p []byte, emit Emit) (first error) {
	keep := func(err error) {
		if first == nil {
			first = err
		}
	}
	for len(p) > 0 {
		have := len(sp.pending[s])
		line, end := p, false
		if i := bytes.IndexByte(p, '\n'); i >= 0 {
			line, end = p[:i+1], true
		}
		if have+len(line) > MaxLine && !(end && have+len(line) == MaxLine+1) {
			line, end = line[:MaxLine-have], false
			keep(sp.emit(s, line, true, emit))
			p = p[len(line):]
			continue
		}
		p = p[len(line):]
		if end {
			keep(sp.emit(s, line, false, emit))
		} else {
			sp.pending[s] = append(sp.pending[s], line...)
		}
	}
	return first
}

// emit hands on what was pending and line as one.
func (sp *Splitter) emit(s Stream, line []byte, partial bool, emit Emit) error {
	if len(sp.pending[s]) == 0 {
		return emit(s, line, partial)
	}
	whole := append(sp.pending[s], line...)
	sp.pending[s] = nil // idle containers hold no buffer
	return emit(s, whole, partial)
}

// Flush hands out the unfinished lines: nothing follows.
func (sp *Splitter) Flush(emit Emit) error {
	var first error
	for s := Stdout; s <= Stderr; s++ {
		if len(sp.pending[s]) == 0 {
			continue
		}
		if err := sp.emit(s, nil, false, emit); err != nil && first == nil {
			first = err
		}
	}
	return first
}

// SkipLines returns what follows the first n lines (or pieces of lines that are
// too long) of p. If there are fewer, the unfinished last line is left out too:
// it was flushed as one.
func SkipLines(p []byte, n int) []byte {
	if n <= 0 {
		return p
	}
	var sp Splitter
	lines, length := 0, 0
	_ = sp.Write(Stdout, p, func(_ Stream, line []byte, _ bool) error {
		if lines < n {
			lines++
			length += len(line)
		}
		return nil
	})
	if lines < n {
		return nil
	}
	return p[length:]
}

// Pending returns the unfinished line of a stream.
func (sp *Splitter) Pending(s Stream) []byte { return sp.pending[s] }

var buffers = sync.Pool{New: func() any { return new(make([]byte, 0, Batch+Batch/4)) }}

// GetBuffer returns an empty buffer with room for a batch.
func GetBuffer() []byte { return (*buffers.Get().(*[]byte))[:0] }

// PutBuffer gives a buffer back.
func PutBuffer(b []byte) {
	if cap(b) <= 2*Batch {
		buffers.Put(&b)
	}
}
