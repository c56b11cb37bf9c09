package supervisor

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wherry-engine/wherry/logs"
	"github.com/wherry-engine/wherry/logs/driver"
	"github.com/wherry-engine/wherry/task"
)

// sink is where a task's output is logged. The writer of the log is called by
// the stream that has data, so that a slow disk slows the container down, and
// no output is lost even if the supervisor is killed (see spool).
//
// A log that cannot be written at all stops the container only in blocking
// mode. Else, once a write has lasted for patience, the log counts as stalled:
// the stream goes on in another goroutine, what comes then waits in a bounded
// queue, and what does not fit is dropped and counted. The goroutine that was
// held up writes the queue when it can, and a line that says what is missing.
// In non-blocking mode output always goes through the queue, which a goroutine
// writes that lives while there is something in it.
//
// Errors of the log never reach the container; what they cost is counted, too.
type sink struct {
	id       string
	conf     driver.Config
	spool    *spool
	journal  *journal
	none     bool // nothing is logged
	blocking bool
	queued   bool  // all output goes through the queue
	bound    int64 // of the queue (bytes)
	patience time.Duration
	// onStall is told which stream's goroutine is held up, onTrouble that output
	// is being lost, that the log is stalled, or that this has ended.
	onStall   func(logs.Stream)
	onTrouble func()
	dropped   atomic.Uint64
	stuck     atomic.Bool // the log is stalled

	mu      sync.Mutex // the writer's owner
	w       logs.Writer
	tailed  [3]bool   // a tail was saved, by stream
	missing uint64    // dropped since the log last said so
	since   time.Time // of missing

	lastMu             sync.Mutex
	last               string // last error
	telling, tellAgain bool

	qmu     sync.Mutex
	idle    sync.Cond
	queue   []entry
	held    int64
	busy    bool // somebody writes
	stalled bool
	stream  logs.Stream // being written
	began   time.Time   // then
	lost    uint64      // dropped, and not yet in missing
	closing bool        // whoever writes closes the log
	timer   *time.Timer
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
	k := &sink{
		id: id, conf: conf, w: w, none: w == nil, spool: s.spool, journal: s.journal,
		blocking: opts.Blocking, queued: opts.NonBlocking, bound: opts.BufferSize, patience: stallPatience,
	}
	if !k.queued {
		k.bound = stallQueue
	}
	k.idle.L = &k.qmu
	return k, nil
}

const (
	// stallPatience is how long a log may hold a container up before it counts
	// as stalled.
	stallPatience = time.Second
	// stallQueue is how much output waits for a stalled log (bytes).
	stallQueue = 256 << 10
	// closePatience is how long the end of a container may wait for its log.
	closePatience = 2 * time.Second
)

// write logs the first n bytes of c. If that takes too long another goroutine
// reads the stream meanwhile; see onStall.
func (s *sink) write(stream logs.Stream, c *chunk, n int) {
	if s == nil || s.none {
		return
	}
	now := time.Now()
	s.qmu.Lock()
	if s.queued {
		s.enqueueLocked(stream, c.mem[:n], now)
		s.startLocked()
		s.qmu.Unlock()
		return
	}
	for s.busy && !s.stalled { // with the other stream
		s.idle.Wait()
	}
	if s.stalled {
		s.enqueueLocked(stream, c.mem[:n], now)
		s.qmu.Unlock()
		return
	}
	s.beginLocked(stream)
	s.qmu.Unlock()
	s.log(stream, c.mem[:n], now, c.slot)
	s.qmu.Lock()
	if s.timer != nil {
		s.timer.Stop()
	}
	if s.stalled {
		s.qmu.Unlock()
		c.reset() // it is in the log
		s.drain()
		return
	}
	s.busy = false
	over := s.closing
	s.idle.Broadcast()
	s.qmu.Unlock()
	if over {
		s.finish()
	}
}

// beginLocked makes the caller the one who writes, and has an eye on it.
func (s *sink) beginLocked(stream logs.Stream) {
	s.busy = true
	if s.blocking {
		return
	}
	s.stream, s.began = stream, time.Now()
	if s.timer == nil {
		s.timer = time.AfterFunc(s.patience, s.stall)
	} else {
		s.timer.Reset(s.patience)
	}
}

// stall is called when a write has lasted too long.
func (s *sink) stall() {
	s.qmu.Lock()
	if !s.busy || s.stalled || time.Since(s.began) < s.patience {
		s.qmu.Unlock()
		return
	}
	s.stalled = true
	s.stuck.Store(true)
	s.idle.Broadcast()
	s.failed(errStalled)
	if s.onStall != nil {
		s.onStall(s.stream) // before the writer goes on
	}
	s.qmu.Unlock()
	s.trouble()
}

var errStalled = errors.New("the log cannot be written at the moment")

// troublePause is the least time between two calls of onTrouble.
const troublePause = time.Second

// trouble has it known, soon, how things are.
func (s *sink) trouble() {
	if s.onTrouble == nil {
		return
	}
	s.lastMu.Lock()
	defer s.lastMu.Unlock()
	if s.telling {
		s.tellAgain = true
		return
	}
	s.telling = true
	go func() {
		s.onTrouble()
		time.AfterFunc(troublePause, func() {
			s.lastMu.Lock()
			again := s.tellAgain
			s.telling, s.tellAgain = false, false
			s.lastMu.Unlock()
			if again {
				s.trouble()
			}
		})
	}()
}

// enqueueLocked keeps a copy of p, or counts it as dropped.
func (s *sink) enqueueLocked(stream logs.Stream, p []byte, now time.Time) {
	if s.held+int64(len(p)) > s.bound {
		s.dropped.Add(uint64(len(p)))
		if s.lost == 0 {
			s.trouble()
		}
		s.lost += uint64(len(p))
		return
	}
	s.held += int64(len(p))
	s.queue = append(s.queue, entry{stream, append([]byte(nil), p...), now})
}

// startLocked makes sure that somebody writes the queue.
func (s *sink) startLocked() {
	if !s.busy && len(s.queue) > 0 {
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
	if s.missing > 0 && !s.sayMissing(now) {
		s.miss(len(p))
		return
	}
	batch := uint64(0)
	if sl != nil {
		batch = nextBatch()
		ino, size := s.w.Position()
		sl.logging(ino, size, batch)
	}
	if err := s.w.Write(stream, p, now); err != nil {
		s.failed(err)
		s.miss(len(p))
	}
	switch {
	case sl != nil:
		s.saveTail(stream, batch)
	case !s.queued:
		s.saveTail(stream, nextBatch())
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

// miss counts output that the log did not take. Called with s.mu held.
func (s *sink) miss(n int) {
	s.dropped.Add(uint64(n))
	if s.missing == 0 {
		s.since = time.Now()
		s.trouble()
	}
	s.missing += uint64(n)
}

// sayMissing tells in the log what is not there. Called with s.mu held.
func (s *sink) sayMissing(now time.Time) bool {
	text := fmt.Sprintf("[wherry] %d bytes of output are missing here, from %s on: %s",
		s.missing, s.since.UTC().Format(time.RFC3339), s.lastError())
	if !s.say(text, now) {
		return false
	}
	s.missing = 0
	s.trouble()
	return true
}

// say writes a line of our own. Called with s.mu held.
func (s *sink) say(text string, now time.Time) bool {
	text += "\n"
	if len(s.w.Pending(logs.Stderr)) > 0 {
		text = "\n" + text
	}
	if err := s.w.Write(logs.Stderr, []byte(text), now); err != nil {
		s.failed(err)
		return false
	}
	return true
}

// note is say for the supervisor.
func (s *sink) note(text string) {
	if s == nil || s.none {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.w != nil {
		s.say(text, time.Now())
	}
}

func (s *sink) failed(err error) {
	s.lastMu.Lock()
	defer s.lastMu.Unlock()
	s.last = err.Error()
}

// recovered forgets a stall.
func (s *sink) recovered() {
	s.stuck.Store(false)
	s.lastMu.Lock()
	if s.last == errStalled.Error() {
		s.last = ""
	}
	s.lastMu.Unlock()
	s.trouble()
}

func (s *sink) lastError() string {
	s.lastMu.Lock()
	defer s.lastMu.Unlock()
	if s.last == "" {
		return "it came faster than the log was written"
	}
	return s.last
}

// drain writes what is queued and ends. Busy is set for it.
func (s *sink) drain() {
	for {
		s.qmu.Lock()
		batch, lost := s.queue, s.lost
		s.queue, s.lost = nil, 0
		if len(batch) == 0 && lost == 0 {
			stalled := s.stalled
			s.busy, s.stalled = false, false
			over := s.closing
			s.idle.Broadcast()
			s.qmu.Unlock()
			if stalled {
				s.recovered()
			}
			if over {
				s.finish()
			}
			return
		}
		s.qmu.Unlock()
		for _, e := range batch {
			s.log(e.stream, e.data, e.at, nil)
			s.qmu.Lock()
			s.held -= int64(len(e.data))
			s.qmu.Unlock()
		}
		s.mu.Lock()
		if lost > 0 && s.w != nil { // behind what was queued before it
			if s.missing == 0 {
				s.since = time.Now()
			}
			s.missing += lost
			s.sayMissing(time.Now())
		}
		s.mu.Unlock()
	}
}

// report fills in what users may want to know about the log.
func (s *sink) report(st *task.Status) {
	if s == nil {
		return
	}
	st.DroppedBytes, st.LogStalled = s.dropped.Load(), s.stuck.Load()
	s.lastMu.Lock()
	st.LogError = s.last
	s.lastMu.Unlock()
}

// isStalled tells whether the log cannot be written at the moment.
func (s *sink) isStalled() bool {
	if s == nil || s.none {
		return false
	}
	s.qmu.Lock()
	defer s.qmu.Unlock()
	return s.stalled || s.busy
}

// await waits until nobody writes any more; false if that takes too long.
func (s *sink) await(patience time.Duration) bool {
	late := time.AfterFunc(patience, func() {
		s.qmu.Lock()
		defer s.qmu.Unlock()
		s.idle.Broadcast()
	})
	defer late.Stop()
	end := time.Now().Add(patience)
	s.qmu.Lock()
	defer s.qmu.Unlock()
	for s.busy && time.Now().Before(end) {
		s.idle.Wait()
	}
	return !s.busy
}

// settle makes sure that another program can go on with the log: nothing is
// queued, and unfinished lines are kept.
func (s *sink) settle() error {
	if s == nil || s.none {
		return nil
	}
	if !s.await(logPatience) {
		return errStalled
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.w == nil || !s.queued { // else kept at each write
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
	if s == nil || s.none || !s.queued {
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

// close writes what is left, unfinished lines included. If the log cannot be
// written now, whoever is held up by it does that later.
func (s *sink) close() {
	if s == nil || s.none {
		return
	}
	if !s.await(closePatience) {
		s.qmu.Lock()
		held := s.busy
		s.closing = held
		s.qmu.Unlock()
		if held {
			return
		}
	}
	s.finish()
}

// finish closes the log.
func (s *sink) finish() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.w == nil {
		return
	}
	if s.missing > 0 {
		s.sayMissing(time.Now())
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
		if s.queued { // it is not kept from now on
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
