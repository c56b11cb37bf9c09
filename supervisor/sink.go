package supervisor

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/wherry-engine/wherry/logs"
	"github.com/wherry-engine/wherry/logs/driver"
	"github.com/wherry-engine/wherry/task"
)

// sink is where a task's output is logged. In blocking mode the writer of the
// log is called by the stream that has data, so that a slow disk slows the
// container down; in non-blocking mode a goroutine that lives while there is
// something to write takes it from a bounded queue, and what does not fit is
// dropped and counted. Errors of the log never reach the container.
type sink struct {
	none    bool // nothing is logged
	dropped atomic.Uint64

	mu     sync.Mutex // the writer's owner
	w      logs.Writer
	lastMu sync.Mutex
	last   string // last error

	bound int64 // of the queue (bytes); 0: blocking
	qmu   sync.Mutex
	idle  sync.Cond
	queue []entry
	held  int64
	busy  bool
}

type entry struct {
	stream logs.Stream
	data   []byte
	at     time.Time
}

func openSink(l task.Log) (*sink, error) {
	w, opts, err := driver.NewWriter(driver.Config{Driver: l.Driver, Path: l.Path, Options: l.Options, Attrs: l.Attrs})
	if err != nil {
		return nil, err
	}
	s := &sink{w: w, none: w == nil}
	s.idle.L = &s.qmu
	if opts.NonBlocking {
		s.bound = opts.BufferSize
	}
	return s, nil
}

// write logs p, which the caller may reuse afterwards.
func (s *sink) write(stream logs.Stream, p []byte) {
	if s == nil || s.none {
		return
	}
	now := time.Now()
	if s.bound == 0 {
		s.log(stream, p, now)
		return
	}
	s.qmu.Lock()
	defer s.qmu.Unlock()
	if s.held+int64(len(p)) > s.bound {
		s.dropped.Add(uint64(len(p)))
		return
	}
	s.held += int64(len(p))
	s.queue = append(s.queue, entry{stream, append([]byte(nil), p...), now})
	if !s.busy {
		s.busy = true
		go s.drain()
	}
}

func (s *sink) log(stream logs.Stream, p []byte, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.w == nil {
		return // closed
	}
	if err := s.w.Write(stream, p, now); err != nil {
		s.failed(err)
	}
}

func (s *sink) failed(err error) {
	s.lastMu.Lock()
	s.last = err.Error()
	s.lastMu.Unlock()
}

// drain writes what is queued and ends.
func (s *sink) drain() {
	for {
		s.qmu.Lock()
		batch := s.queue
		s.queue = nil
		if len(batch) == 0 {
			s.busy = false
			s.idle.Broadcast()
			s.qmu.Unlock()
			return
		}
		s.qmu.Unlock()
		for _, e := range batch {
			s.log(e.stream, e.data, e.at)
			s.qmu.Lock()
			s.held -= int64(len(e.data))
			s.qmu.Unlock()
		}
	}
}

// report fills in what users may want to know about the log.
func (s *sink) report(st *task.Status) {
	if s == nil {
		return
	}
	st.DroppedBytes = s.dropped.Load()
	s.lastMu.Lock()
	st.LogError = s.last
	s.lastMu.Unlock()
}

// close writes what is left.
func (s *sink) close() {
	if s == nil || s.none {
		return
	}
	s.qmu.Lock()
	for s.busy {
		s.idle.Wait()
	}
	s.qmu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.w == nil {
		return
	}
	if err := s.w.Close(); err != nil {
		s.failed(err)
	}
	s.w = nil
}
