// Package logs is the contract of container logs. Writers run in the
// supervisor, readers in the daemon; both meet only on the files, so neither
// needs the other alive.
package logs

import (
	"context"
	"iter"
	"time"
)

// Stream tells stdout from stderr.
type Stream uint8

// Streams, with the numbers of the multiplexed wire format.
const (
	Stdout Stream = 1
	Stderr Stream = 2
)

// Message is one line, or a piece of one longer than the driver's limit
// (Partial is then true for all pieces but the last). Line includes its newline
// when the container wrote one. Readers may reuse Line and Attrs for the next
// message: they are valid until it is asked for.
type Message struct {
	Stream  Stream
	Time    time.Time
	Line    []byte
	Partial bool
	Attrs   map[string]string
}

// Writer appends output of a container. Not safe for concurrent use. Write takes raw
// bytes as they came from the stream and splits lines itself.
type Writer interface {
	Write(s Stream, p []byte, now time.Time) error
	// Pending returns what was written of a line that is not finished, and thus
	// not in the log yet.
	Pending(s Stream) []byte
	// Position tells where the log ends: the inode of its current file, and its size.
	Position() (ino uint64, size int64)
	// Close logs unfinished lines, too.
	Close() error
}

// ReadOptions select what to read.
type ReadOptions struct {
	Since, Until time.Time
	// Tail is the number of last lines; negative means all.
	Tail           int
	Stdout, Stderr bool
	// Follow goes on after the end until the context ends or Done is closed
	// and everything written before was delivered.
	Follow bool
	Done   <-chan struct{}
}

// Reader reads a container's log files, rotated ones included, oldest first.
type Reader interface {
	Read(ctx context.Context, opts ReadOptions) iter.Seq2[Message, error]
}
