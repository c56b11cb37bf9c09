package supervisor

import (
	"bytes"
	"errors"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

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

func newTestSink(w logs.Writer, bound int64) *sink {
	s := &sink{w: w, bound: bound}
	s.idle.L = &s.qmu
	return s
}

func TestNonBlockingDropsAndCounts(t *testing.T) {
	l := &slowLog{gate: make(chan struct{})}
	s := newTestSink(l, 100)
	c := &chunk{mem: []byte(strings.Repeat("x", 40))}
	for range 5 { // 200 bytes into a queue of 100, of which nothing is taken
		s.write(logs.Stdout, c, 40)
	}
	close(l.gate)
	s.close()
	var st task.Status
	s.report(&st)
	if l.buf.Len() != 80 || st.DroppedBytes != 120 {
		t.Errorf("%d bytes were logged and %d dropped", l.buf.Len(), st.DroppedBytes)
	}
}

func TestBlockingWaits(t *testing.T) {
	l := &slowLog{gate: make(chan struct{})}
	s := newTestSink(l, 0)
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.write(logs.Stdout, &chunk{mem: []byte("x")}, 1)
	}()
	select {
	case <-done:
		t.Error("it did not wait for the disk")
	case <-time.After(20 * time.Millisecond):
	}
	close(l.gate)
	<-done
}

func TestLogErrorsAreReported(t *testing.T) {
	l := &slowLog{gate: make(chan struct{}), err: errors.New("no space")}
	close(l.gate)
	s := newTestSink(l, 0)
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
