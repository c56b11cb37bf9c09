package supervisor

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wherry-engine/wherry/logs"
	"github.com/wherry-engine/wherry/logs/driver"
	"github.com/wherry-engine/wherry/task"
)

// sink is where a task's output is logged. In blocking mode the writer of the
// log is called by the stream that has data, so that a slow disk slows the
// container down, and no output is lost even if the supervisor is killed (see
// spool). In non-blocking mode a goroutine that lives while there is something
// to write takes it from a bounded queue, and what does not fit is dropped and
// counted. Errors of the log never reach the container.
type sink struct {
	id      string
	conf    driver.Config
	spool   *spool
	journal *journal
	none    bool // nothing is logged
	dropped atomic.Uint64

	mu     sync.Mutex // the writer's owner
	w      logs.Writer
	tailed [3]bool // a tail was saved, by stream

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

// batches numbers what is logged, across supervisors.
var batches atomic.Uint64

func nextBatch() uint64 {
	batches.CompareAndSwap(0, uint64(time.Now().UnixNano()))
	return batches.Add(1)
}

func (s *Supervisor) openSink(id string, l task.Log) (*sink, error) {
	conf := driver.Config{Driver: l.Driver, Path: l.Path, Options: l.Options, Attrs: l.Attrs}
	w, opts, err := driver.NewWriter(conf)
	if err != nil {
		return nil, err
	}
	k := &sink{id: id, conf: conf, w: w, none: w == nil, spool: s.spool, journal: s.journal}
	k.idle.L = &k.qmu
	if opts.NonBlocking {
		k.bound = opts.BufferSize
	}
	return k, nil
}

// write logs the first n bytes of c.
func (s *sink) write(stream logs.Stream, c *chunk, n int) {
	if s == nil || s.none {
		return
	}
	now := time.Now()
	if s.bound == 0 {
		s.log(stream, c.mem[:n], now, c.slot)
		return
	}
	s.qmu.Lock()
	defer s.qmu.Unlock()
	if s.held+int64(n) > s.bound {
		s.dropped.Add(uint64(n))
		return
	}
	s.held += int64(n)
	s.queue = append(s.queue, entry{stream, append([]byte(nil), c.mem[:n]...), now})
	if !s.busy {
		s.busy = true
		go s.drain()
	}
}

// log writes p, which lies in the slot if there is one.
func (s *sink) log(stream logs.Stream, p []byte, now time.Time, sl *slot) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.w == nil {
		return // closed
	}
	batch := uint64(0)
	if sl != nil {
		batch = nextBatch()
		ino, size := s.w.Position()
		sl.logging(ino, size, batch)
	}
	if err := s.w.Write(stream, p, now); err != nil {
		s.failed(err)
	}
	if sl != nil {
		s.saveTail(stream, batch)
	}
}

// saveTail keeps the unfinished line of a stream, if there is or was one.
// Called with s.mu held.
func (s *sink) saveTail(stream logs.Stream, batch uint64) {
	pending := s.w.Pending(stream)
	if len(pending) == 0 && !s.tailed[stream] {
		return
	}
	if err := s.journal.saveTail(s.id, stream, tail{batch, pending}); err != nil {
		s.failed(err)
	}
	s.tailed[stream] = true
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
			s.log(e.stream, e.data, e.at, nil)
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

func (s *sink) isBusy() bool {
	if s == nil || s.none {
		return false
	}
	if !s.mu.TryLock() {
		return true
	}
	s.mu.Unlock()
	s.qmu.Lock()
	defer s.qmu.Unlock()
	return s.busy
}

// settle makes sure that another program can go on with the log: nothing is
// queued, and unfinished lines are kept.
func (s *sink) settle() error {
	if s == nil || s.none {
		return nil
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.qmu.Lock()
		defer s.qmu.Unlock()
		for s.busy {
			s.idle.Wait()
		}
	}()
	late := time.NewTimer(logPatience)
	defer late.Stop()
	select {
	case <-done:
	case <-late.C:
		return errors.New("it cannot be written at the moment")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.w == nil || s.bound == 0 { // else kept at each write
		return nil
	}
	for stream := logs.Stdout; stream <= logs.Stderr; stream++ {
		if len(s.w.Pending(stream)) > 0 {
			s.saveTail(stream, nextBatch())
		}
	}
	return nil
}

// unsettle undoes settle.
func (s *sink) unsettle() {
	if s == nil || s.none || s.bound == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for stream := logs.Stdout; stream <= logs.Stderr; stream++ {
		if err := s.journal.removeTail(s.id, stream); err != nil {
			s.failed(err)
		}
		s.tailed[stream] = false
	}
}

// close writes what is left, unfinished lines included.
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
	for stream := range s.tailed {
		if s.tailed[stream] {
			if err := s.journal.removeTail(s.id, logs.Stream(stream)); err != nil {
				s.failed(err)
			}
		}
	}
	s.w = nil
}

// recover logs what an earlier supervisor had read and not logged. It is called
// before anything else is logged.
func (s *sink) recover(ctx context.Context) error {
	if s == nil || s.none {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	left := s.spool.takeLeft(s.id)
	for stream := logs.Stdout; stream <= logs.Stderr; stream++ {
		t, err := s.journal.loadTail(s.id, stream)
		if err != nil {
			errs = append(errs, err)
		}
		s.tailed[stream] = t.batch != 0
		text := t.text
		skip := 0 // lines of text that are in the log already
		for _, sl := range left {
			if sl.stream() != stream {
				continue
			}
			ino, size, begun := sl.position()
			if begun && sl.batch() == t.batch {
				continue // it is in the log, and the tail was kept
			}
			text = append(text, sl.content()...)
			if !begun { // from now on it is, should we be killed as well
				ino, size := s.w.Position()
				sl.note(len(sl.content()))
				sl.logging(ino, size, nextBatch())
				continue
			}
			n, err := driver.CountAfter(ctx, s.conf, stream, ino, size)
			if err != nil {
				errs = append(errs, err)
			}
			skip += n
		}
		if len(text) == 0 {
			continue
		}
		text = logs.SkipLines(text, skip)
		batch := nextBatch()
		if err := s.w.Write(stream, text, time.Now()); err != nil {
			errs = append(errs, err)
		}
		if s.bound > 0 { // it is not kept from now on
			errs = append(errs, s.journal.removeTail(s.id, stream))
			s.tailed[stream] = false
			continue
		}
		s.saveTail(stream, batch)
	}
	for _, sl := range left {
		s.spool.put(sl)
	}
	return errors.Join(errs...)
}
