package supervisor

import (
	"bytes"
	"errors"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/logs"
	"github.com/wherry-engine/wherry/task"
)

// slowLog is a log on a disk that hangs until it is released.
type slowLog struct {
	gate chan struct{}
	mu   sync.Mutex
	buf  bytes.Buffer
	err  error
}

func (l *slowLog) Write(_ logs.Stream, p []byte, _ time.Time) error {
	<-l.gate
	l.mu.Lock()
	defer l.mu.Unlock()
	l.buf.Write(p)
	return l.err
}
func (l *slowLog) Pending(logs.Stream) []byte { return nil }
func (l *slowLog) Position() (uint64, int64)  { return 0, 0 }
func (l *slowLog) Close() error               { return nil }

// text is what was logged so far.
func (l *slowLog) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func newTestSink(w logs.Writer, mode string, bound int64) *sink {
	s := &sink{w: w, bound: bound, blocking: mode == "blocking", queued: mode == "non-blocking", patience: 10 * time.Millisecond}
	s.idle.L = &s.qmu
	return s
}

func TestNonBlockingDropsAndCounts(t *testing.T) {
	l := &slowLog{gate: make(chan struct{})}
	s := newTestSink(l, "non-blocking", 100)
	c := &chunk{mem: []byte(strings.Repeat("x", 40))}
	for range 5 { // 200 bytes into a queue of 100, of which nothing is taken
		s.write(logs.Stdout, c, 40)
	}
	close(l.gate)
	s.close()
	var st task.Status
	s.report(&st)
	if n := strings.Count(l.text(), "x"); n != 80 || st.DroppedBytes != 120 || !strings.Contains(l.text(), "] 120 bytes of output are missing here") {
		t.Errorf("%d bytes were logged and %d dropped: %q", n, st.DroppedBytes, l.text())
	}
}

// TestStalledLogLetsGo: without a mode, a log that hangs holds a stream up for
// moments only; what comes later is kept in order, and what does not fit is
// counted.
func TestStalledLogLetsGo(t *testing.T) {
	l := &slowLog{gate: make(chan struct{})}
	s := newTestSink(l, "", 40)
	stalled := make(chan logs.Stream, 1)
	s.onStall = func(stream logs.Stream) { stalled <- stream }
	first := make(chan struct{})
	go func() {
		defer close(first)
		s.write(logs.Stdout, &chunk{mem: []byte("first\n")}, 6)
	}()
	if got := <-stalled; got != logs.Stdout {
		t.Errorf("stream %d was told", got)
	}
	s.write(logs.Stderr, &chunk{mem: []byte("other\n")}, 6) // neither waits
	s.write(logs.Stdout, &chunk{mem: []byte("second\n")}, 7)
	s.write(logs.Stdout, &chunk{mem: bytes.Repeat([]byte("x"), 50)}, 50)
	var st task.Status
	if s.report(&st); st.DroppedBytes != 50 || !st.LogStalled || st.LogError == "" {
		t.Errorf("during the stall: %+v", st)
	}
	close(l.gate)
	<-first // it has written what waited
	s.write(logs.Stdout, &chunk{mem: []byte("later\n")}, 6)
	lines := strings.Split(l.text(), "\n")
	if len(lines) != 6 || strings.Join(lines[:3], " ") != "first other second" || !strings.Contains(lines[3], "] 50 bytes of output are missing here") || lines[4] != "later" {
		t.Errorf("logged: %q", l.text())
	}
	st = task.Status{}
	if s.report(&st); st.DroppedBytes != 50 || st.LogStalled || st.LogError != "" {
		t.Errorf("after the stall: %+v", st)
	}
}

// TestEndDuringAStall does not wait for the log, which is completed later.
func TestEndDuringAStall(t *testing.T) {
	l := &slowLog{gate: make(chan struct{})}
	s := newTestSink(l, "", 40)
	stalled := make(chan struct{})
	s.onStall = func(logs.Stream) { close(stalled) }
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.write(logs.Stdout, &chunk{mem: []byte("first\n")}, 6)
	}()
	<-stalled
	s.write(logs.Stdout, &chunk{mem: []byte("last\n")}, 5)
	s.close()
	close(l.gate)
	<-done
	if l.text() != "first\nlast\n" || s.w != nil {
		t.Errorf("logged: %q; closed: %t", l.text(), s.w == nil)
	}
}

// TestFullLogIsMentioned: what a full disk did not take is counted, and
// mentioned where it is missing once there is room.
func TestFullLogIsMentioned(t *testing.T) {
	l := &fullLog{full: true}
	s := newTestSink(l, "", 40)
	for range 3 {
		s.write(logs.Stdout, &chunk{mem: []byte("lost\n")}, 5)
	}
	l.full = false
	s.write(logs.Stdout, &chunk{mem: []byte("kept\n")}, 5)
	s.close()
	var st task.Status
	s.report(&st)
	lines := strings.Split(l.String(), "\n")
	if st.DroppedBytes != 15 || len(lines) != 3 || !strings.Contains(lines[0], "] 15 bytes of output are missing here") || !strings.Contains(lines[0], "no space left") || lines[1] != "kept" {
		t.Errorf("%d bytes dropped; logged: %q", st.DroppedBytes, l.String())
	}
}

// fullLog is a log on a disk that may be full.
type fullLog struct {
	bytes.Buffer
	full bool
}

func (l *fullLog) Write(_ logs.Stream, p []byte, _ time.Time) error {
	if l.full {
		return unix.ENOSPC
	}
	l.Buffer.Write(p)
	return nil
}
func (l *fullLog) Pending(logs.Stream) []byte { return nil }
func (l *fullLog) Position() (uint64, int64)  { return 0, 0 }
func (l *fullLog) Close() error               { return nil }

func TestBlockingWaits(t *testing.T) {
	l := &slowLog{gate: make(chan struct{})}
	s := newTestSink(l, "blocking", 0)
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.write(logs.Stdout, &chunk{mem: []byte("x")}, 1)
	}()
	select {
	case <-done:
		t.Error("it did not wait for the disk")
	case <-time.After(50 * time.Millisecond):
	}
	close(l.gate)
	<-done
}

func TestLogErrorsAreReported(t *testing.T) {
	l := &slowLog{gate: make(chan struct{}), err: errors.New("no space")}
	close(l.gate)
	s := newTestSink(l, "", 0)
	s.write(logs.Stdout, &chunk{mem: []byte("x")}, 1)
	var st task.Status
	if s.report(&st); st.LogError != "no space" {
		t.Errorf("reported: %q", st.LogError)
	}
}

// TestFullDiskDoesNotStopAContainer logs to a device that is always full.
func TestFullDiskDoesNotStopAContainer(t *testing.T) {
	b := newBox(t)
	req := b.request("seq 1 100000; exit 4")
	req.Log.Path = "/dev/full"
	client, server := socketPair(t)
	b.start(req, task.StartFiles{Attach: server, AttachRequest: task.AttachRequest{Stdout: true}})
	server.Close()
	if got := string(readAll(t, client)); got != counted(100000) {
		t.Error("the client was not sent all: ", firstDifference(got, counted(100000)))
	}
	if st := b.awaitExit(req.ID); st.ExitCode != 4 || st.LogError == "" {
		t.Errorf("status is %+v", st)
	}
}

func TestOOM(t *testing.T) {
	b := newBox(t)
	req := b.request("tail /dev/zero")
	limit := int64(16 << 20)
	req.Spec.Linux.Resources.Memory = memory(limit)
	b.start(req, task.StartFiles{})
	st := b.awaitExit(req.ID)
	if !st.OOMKilled || st.ExitCode == 0 {
		t.Errorf("status is %+v", st)
	}
	b.await("oom", func(e task.Event) bool { return e.Kind == task.EventOOM && e.Status.ID == req.ID })
}

func TestLogDirectoryIsMade(t *testing.T) {
	b := newBox(t)
	req := b.request("echo x")
	req.Log = task.Log{Driver: "local", Path: filepath.Join(b.dir, req.ID+"-logs", "container.log")}
	b.start(req, task.StartFiles{})
	b.awaitExit(req.ID)
	if got := b.log(req); got != "x\n" {
		t.Errorf("log is %q", got)
	}
}
