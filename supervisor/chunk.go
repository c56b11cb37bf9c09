package supervisor

import (
	"sync"

	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/logs"
)

// chunk is a buffer for output: a slot of the spool if the output is logged,
// else plain memory.
type chunk struct {
	mem  []byte
	slot *slot
	sink *sink
}

var chunks = sync.Pool{New: func() any { return &chunk{mem: make([]byte, chunkSize)} }}

// borrow returns a buffer for output that goes to the sink, nil included.
func (s *sink) borrow() *chunk {
	if s != nil && s.spool != nil && !s.none && !s.queued {
		if sl, err := s.spool.get(); err == nil {
			return &chunk{mem: sl.data(), slot: sl, sink: s}
		}
		// Without room for the spool output is still logged, if less safely.
	}
	return chunks.Get().(*chunk)
}

func (c *chunk) giveBack() {
	if c.slot == nil {
		chunks.Put(c)
		return
	}
	c.sink.spool.put(c.slot)
}

// read reads from a stream.
func (c *chunk) read(fd int, kind logs.Stream) (int, error) {
	if c.slot == nil {
		return unix.Read(fd, c.mem)
	}
	return c.slot.read(fd, c.sink.id, kind)
}

// reset makes the buffer ready for the next read.
func (c *chunk) reset() {
	if c.slot != nil {
		c.slot.finish()
	}
}
