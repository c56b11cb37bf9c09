package supervisor

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/wherry-engine/wherry/task"
)

const (
	eventsFile = "events"
	// maxEvents is how many events wait for a daemon before those that tell it
	// nothing it would not see in the inventory are forgotten.
	maxEvents = 8192
	// maxEventsFile is when acknowledged events are taken out of the file (bytes).
	maxEventsFile = 256 << 10
)

// eventLog numbers events and keeps them until they are acknowledged, in a
// file too, for the next supervisor.
type eventLog struct {
	path string

	mu      sync.Mutex
	f       *os.File
	size    int64
	seq     uint64
	pending []loggedEvent
	changed chan struct{} // closed and replaced at each event
}

// eventLine is a line of the file: an event or an acknowledgement.
type eventLine struct {
	Event *loggedEvent `json:"event,omitempty"`
	Acked uint64       `json:"acked,omitempty"`
	Seq   uint64       `json:"seq,omitempty"` // where numbering goes on
}

// loggedEvent is an event as it is written and sent.
type loggedEvent struct {
	seq  uint64
	task string
	json []byte
}

func newLoggedEvent(e *task.Event) (loggedEvent, error) {
	b, err := json.Marshal(e)
	return loggedEvent{seq: e.Seq, task: e.Status.ID, json: b}, err
}

// UnmarshalJSON implements json.Unmarshaler.
func (e *loggedEvent) UnmarshalJSON(b []byte) error {
	var ev task.Event
	if err := json.Unmarshal(b, &ev); err != nil {
		return err
	}
	*e = loggedEvent{seq: ev.Seq, task: ev.Status.ID, json: bytes.Clone(b)}
	return nil
}

func openEventLog(execRoot string) (*eventLog, error) {
	l := &eventLog{path: filepath.Join(execRoot, eventsFile), changed: make(chan struct{})}
	if b, err := os.ReadFile(l.path); err == nil {
		l.load(b)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l, l.rewrite()
}

func (l *eventLog) load(b []byte) {
	sc := bufio.NewScanner(bytes.NewReader(b))
	sc.Buffer(nil, 1<<20)
	var acked uint64
	for sc.Scan() {
		var line eventLine
		if json.Unmarshal(sc.Bytes(), &line) != nil {
			continue // cut short by a crash
		}
		acked = max(acked, line.Acked)
		l.seq = max(l.seq, line.Seq, line.Acked)
		if line.Event != nil {
			l.pending = append(l.pending, *line.Event)
			l.seq = max(l.seq, line.Event.seq)
		}
	}
	l.forget(acked)
}

// add numbers an event and makes it known.
func (l *eventLog) add(e task.Event) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seq++
	e.Seq = l.seq
	logged, err := newLoggedEvent(&e)
	if err != nil {
		return err
	}
	l.pending = append(l.pending, logged)
	if len(l.pending) > maxEvents {
		l.coalesce()
	}
	close(l.changed)
	l.changed = make(chan struct{})
	return l.appendEvent(logged)
}

// coalesce forgets, of the older half, all but the last event of each task.
func (l *eventLog) coalesce() {
	half := len(l.pending) / 2
	last := map[string]int{}
	for i, e := range l.pending {
		last[e.task] = i
	}
	kept := l.pending[:0]
	for i, e := range l.pending {
		if i >= half || last[e.task] == i {
			kept = append(kept, e)
		}
	}
	if len(kept) > maxEvents {
		kept = kept[len(kept)-maxEvents:]
	}
	l.pending = kept
}

// after returns the events behind seq and a channel closed when more come.
func (l *eventLog) after(seq uint64) ([]loggedEvent, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := 0
	for i < len(l.pending) && l.pending[i].seq <= seq {
		i++
	}
	return append([]loggedEvent(nil), l.pending[i:]...), l.changed
}

// ack forgets the events up to seq.
func (l *eventLog) ack(seq uint64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if seq > l.seq {
		return fmt.Errorf("event %d has not happened", seq)
	}
	l.forget(seq)
	if l.size > maxEventsFile {
		return l.rewrite()
	}
	return l.append(eventLine{Acked: seq})
}

func (l *eventLog) forget(seq uint64) {
	i := 0
	for i < len(l.pending) && l.pending[i].seq <= seq {
		i++
	}
	l.pending = l.pending[i:]
	if len(l.pending) == 0 {
		l.pending = nil // let the memory go
	}
}

func (l *eventLog) append(line eventLine) error {
	b, err := json.Marshal(line)
	if err != nil {
		return err
	}
	return l.write(b)
}

// appendEvent appends what json.Marshal makes of an eventLine, without encoding the event again.
func (l *eventLog) appendEvent(e loggedEvent) error {
	return l.write(append(append([]byte(`{"event":`), e.json...), '}'))
}

func (l *eventLog) write(line []byte) error {
	n, err := l.f.Write(append(line, '\n'))
	l.size += int64(n)
	return err
}

// rewrite makes the file anew, with what is pending only.
func (l *eventLog) rewrite() error {
	tmp := l.path + ".new"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	if l.f != nil {
		_ = l.f.Close()
	}
	l.f, l.size = f, 0
	err = l.append(eventLine{Seq: l.seq})
	for i := range l.pending {
		err = errors.Join(err, l.appendEvent(l.pending[i]))
	}
	return errors.Join(err, os.Rename(tmp, l.path))
}
