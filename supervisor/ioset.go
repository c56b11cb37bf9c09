package supervisor

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/logs"
	"github.com/wherry-engine/wherry/ocirun"
	"github.com/wherry-engine/wherry/task"
)

// ioset is the supervisor's side of one process's streams: it copies output to
// the log and to attached clients, and hands clients the way to its input.
type ioset struct {
	poll     *poller
	terminal bool
	// closeStdin tells that the end of the first client's input is the end of
	// the process's.
	stdinOnce bool
	sink      *sink // nil for execs
	// onDetach is told when a client used its detach keys, onStdinClosed when
	// the process's input was closed.
	onDetach, onStdinClosed func()
	// task and exec say whose streams these are; work and all are the supervisor's.
	task, exec string
	work       *gate
	all        *clientTable
	// draining is set when the process has ended: what it left is read whatever
	// happens.
	draining atomic.Bool

	mu      sync.Mutex
	streams []*stream
	live    int           // streams that have not ended
	drained chan struct{} // closed when live falls to 0
	stdin   int           // our end, -1 if closed; of a terminal: the console
	input   *os.File      // duplicate of stdin for writing, made when needed
	clients []*client
	ended   bool
}

// stream is one readable descriptor of a process.
type stream struct {
	set  *ioset
	kind logs.Stream
	fd   int
	tok  token

	// Guarded by ioset.mu. gen counts the goroutines that read it: when one is
	// held up by the log another takes over, and gets what the former has read
	// and not yet sent to the clients.
	busy, closed bool
	gen          int
	wide         bool // the pipe was made larger
	unsent       []byte
}

const (
	// A stream that gave this much (bytes) before it ran dry is left alone for
	// a moment: taking each line as it comes would cost both sides more time
	// than the lines do.
	busyStream = 16 << 10
	busyPause  = 300 * time.Microsecond
	// widePipe is the size of a busy stream's pipe (bytes).
	widePipe = 256 << 10
)

// pipes are the descriptors of a process's streams: ours, and the process's.
type pipes struct {
	stdin, stdout, stderr int // ours, -1 if there is none
	proc                  [3]*os.File
}

// makePipes makes the streams of a process without a terminal.
func makePipes(openStdin bool) (*pipes, error) {
	p := &pipes{-1, -1, -1, [3]*os.File{}}
	ours := []*int{&p.stdin, &p.stdout, &p.stderr}
	for i := range ours {
		if i == 0 && !openStdin {
			continue
		}
		var fds [2]int
		if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
			p.closeProc()
			p.closeOurs()
			return nil, err
		}
		mine, theirs := fds[0], fds[1]
		if i == 0 {
			mine, theirs = fds[1], fds[0]
		}
		_ = unix.SetNonblock(mine, true)
		*ours[i] = mine
		p.proc[i] = os.NewFile(uintptr(theirs), "stdio")
	}
	return p, nil
}

// own gives the process's ends to root of its user namespace, who could not open
// /dev/stdout otherwise.
func (p *pipes) own(l *specs.Linux) error {
	uid, gid := ocirun.HostRoot(l)
	for _, f := range p.proc {
		if f == nil {
			continue
		}
		if err := f.Chown(uid, gid); err != nil {
			return fmt.Errorf("give a stream to user %d: %w", uid, err)
		}
	}
	return nil
}

func (p *pipes) closeProc() {
	for i, f := range p.proc {
		if f != nil {
			_ = f.Close()
			p.proc[i] = nil
		}
	}
}

func (p *pipes) closeOurs() {
	for _, fd := range []*int{&p.stdin, &p.stdout, &p.stderr} {
		if *fd >= 0 {
			_ = unix.Close(*fd)
			*fd = -1
		}
	}
}

// newIOSet takes over our ends; of a terminal only stdout is given, the console.
func newIOSet(poll *poller, std task.Stdio, p *pipes, sink *sink) *ioset {
	s := &ioset{poll: poll, terminal: std.Terminal, stdinOnce: std.StdinOnce, sink: sink, stdin: p.stdin, drained: make(chan struct{})}
	if std.Terminal {
		s.stdin = p.stdout
	}
	for i, fd := range []int{p.stdout, p.stderr} {
		if fd >= 0 {
			s.streams = append(s.streams, &stream{set: s, kind: logs.Stream(i + 1), fd: fd})
			s.live++
		}
	}
	if s.live == 0 {
		close(s.drained)
	}
	return s
}

// newIOSet makes the streams of a task's process, or of an exec's.
func (s *Supervisor) newIOSet(id, execID string, std task.Stdio, p *pipes, sink *sink) *ioset {
	set := newIOSet(s.poll, std, p, sink)
	set.task, set.exec, set.work, set.all = id, execID, &s.work, &s.clients
	if sink != nil {
		sink.onStall = set.takeOver
	}
	return set
}

// watch begins to copy output.
func (s *ioset) watch() error {
	s.mu.Lock() // a stream that is ready at once waits for its token
	defer s.mu.Unlock()
	for _, st := range s.streams {
		var err error
		if st.tok, err = s.poll.add(st.fd, unix.EPOLLIN, st.ready); err != nil {
			return err
		}
	}
	return nil
}

// resume reads on after a time in which nothing was to be read.
func (s *ioset) resume() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, st := range s.streams {
		if !st.closed {
			go st.ready(0)
		}
	}
}

// withFiles calls f with our ends and their names, for the keeper; none of them
// is closed meanwhile.
func (s *ioset) withFiles(f func(fds []int, names []string)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var fds []int
	var names []string
	for _, st := range s.streams {
		if !st.closed {
			fds, names = append(fds, st.fd), append(names, [...]string{"", "stdout", "stderr"}[st.kind])
		}
	}
	if s.stdin >= 0 && !s.terminal {
		fds, names = append(fds, s.stdin), append(names, "stdin")
	}
	f(fds, names)
}

// ready copies what a stream has and goes to sleep again.
func (st *stream) ready(uint32) {
	s := st.set
	s.mu.Lock()
	if st.closed || st.busy || !s.work.try(s.draining.Load()) {
		s.mu.Unlock()
		return
	}
	defer s.work.leave()
	st.busy = true
	gen := st.gen
	s.mu.Unlock()
	st.serve(gen)
}

// serve copies what there is. Called by the one goroutine that reads the stream.
func (st *stream) serve(gen int) {
	s := st.set
	got, ended, away := st.pump(gen)
	s.mu.Lock()
	if away {
		s.mu.Unlock()
		return
	}
	st.busy = false
	if ended {
		s.end(st)
	} else if st.closed { // while we were reading
		s.poll.remove(st.fd, st.tok)
		_ = unix.Close(st.fd)
		st.fd = -1
	} else if got >= busyStream && !s.terminal {
		if !st.wide {
			st.wide = true
			_, _ = unix.FcntlInt(uintptr(st.fd), unix.F_SETPIPE_SZ, widePipe)
		}
		time.AfterFunc(busyPause, func() { st.ready(0) })
	} else if err := s.poll.rearm(st.fd, st.tok, unix.EPOLLIN); err != nil {
		s.end(st)
	}
	s.mu.Unlock()
}

// pump reads until there is nothing more for now, and tells how much there was
// and whether the stream has ended. The buffer is borrowed while it runs.
// Away is set if another goroutine reads it by now.
func (st *stream) pump(gen int) (got int, ended, away bool) {
	buf := st.set.sink.borrow()
	defer buf.giveBack()
	for {
		if st.set.work.closing() && !st.set.draining.Load() {
			return got, false, false // the rest is the next program's
		}
		n, err := buf.read(st.fd, st.kind)
		switch {
		case err == unix.EINTR:
		case err == unix.EAGAIN:
			return got, false, false
		case err != nil || n <= 0: // EIO: nobody holds the terminal any more
			return got, true, false
		default:
			got += n
			if !st.deliver(gen, buf, n) {
				return got, false, true
			}
		}
	}
}

// end closes a stream. Called with s.mu held.
func (s *ioset) end(st *stream) {
	if st.fd < 0 {
		return
	}
	s.poll.remove(st.fd, st.tok)
	if !s.terminal || st.closed {
		_ = unix.Close(st.fd)
		st.fd = -1
	} // a console is input too, and sets the size: it stays until close
	if !st.closed {
		st.closed = true
		s.live--
		if s.live == 0 {
			close(s.drained)
		}
	}
}

// deliver logs output and sends it to the clients that want it. False if that
// took so long that another goroutine reads the stream by now.
func (st *stream) deliver(gen int, b *chunk, n int) bool {
	s := st.set
	s.mu.Lock()
	st.unsent = b.mem[:n]
	s.mu.Unlock()
	s.sink.write(st.kind, b, n)
	s.mu.Lock()
	away := st.gen != gen
	if !away {
		st.unsent = nil
	}
	clients := s.clients // replaced, never changed in place
	s.mu.Unlock()
	if away {
		return false
	}
	for _, c := range clients {
		c.send(st.kind, b.mem[:n])
	}
	b.reset()
	return true
}

// takeOver reads a stream on whose goroutine is held up by the log.
func (s *ioset) takeOver(kind logs.Stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, st := range s.streams {
		if st.kind != kind || !st.busy {
			continue
		}
		st.gen++
		gen, unsent, clients := st.gen, append([]byte(nil), st.unsent...), s.clients
		st.unsent = nil
		s.work.try(true)
		go func() {
			defer s.work.leave()
			for _, c := range clients {
				c.send(kind, unsent)
			}
			st.serve(gen)
		}()
	}
}

// waitDrained returns when all output was copied, or after a while if someone
// else than the process holds the streams open.
func (s *ioset) waitDrained(patience time.Duration) {
	if s.draining.Store(true); s.work.closing() {
		s.resume()
	}
	s.mu.Lock()
	clients := s.clients
	s.mu.Unlock()
	for _, c := range clients {
		c.flush() // what is left in a pipe is bounded; no client shall hold it up
	}
	for range maxDrain {
		t := time.NewTimer(patience)
		select {
		case <-s.drained:
			t.Stop()
			return
		case <-t.C:
		}
		if s.sink == nil || !s.isBusy() {
			return // not the log holds it up, but a process that has the streams, too
		}
	}
}

// maxDrain is how often the patience begins anew while output is being copied.
const maxDrain = 15

// isBusy tells whether output is being copied this moment.
func (s *ioset) isBusy() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, st := range s.streams {
		if st.busy && !st.closed {
			return true
		}
	}
	return false
}

// close ends everything: no output follows, clients are told so.
func (s *ioset) close() {
	s.mu.Lock()
	s.ended = true
	for _, st := range s.streams {
		st.set.stop(st)
	}
	if s.stdin >= 0 && !s.terminal {
		_ = unix.Close(s.stdin)
	}
	s.stdin = -1
	input, clients := s.input, s.clients
	s.input, s.clients = nil, nil
	s.mu.Unlock()
	if input != nil {
		_ = input.Close()
	}
	for _, c := range clients {
		c.finish()
	}
}

// stop closes a stream that may still be read. Called with s.mu held.
func (s *ioset) stop(st *stream) {
	if st.fd < 0 {
		return
	}
	if !st.closed {
		st.closed = true
		s.live--
		if s.live == 0 {
			close(s.drained)
		}
	}
	if st.busy {
		return // its goroutine closes it
	}
	s.poll.remove(st.fd, st.tok)
	_ = unix.Close(st.fd)
	st.fd = -1
}

var errNoStdin = errors.New("the process has no input")

// openInput returns the file through which clients write to the process.
func (s *ioset) openInput() (*os.File, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stdin < 0 {
		return nil, errNoStdin
	}
	if s.input == nil {
		fd, err := unix.FcntlInt(uintptr(s.stdin), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return nil, err
		}
		s.input = os.NewFile(uintptr(fd), "stdin")
	}
	return s.input, nil
}

// closeInput is the end of input: the process reads end of file, once every
// duplicate is closed, the keeper's included.
func (s *ioset) closeInput() {
	s.mu.Lock()
	if s.terminal || s.stdin < 0 {
		s.mu.Unlock()
		return
	}
	_ = unix.Close(s.stdin)
	s.stdin = -1
	input := s.input
	s.input = nil
	s.mu.Unlock()
	if input != nil {
		_ = input.Close()
	}
	if s.onStdinClosed != nil {
		s.onStdinClosed()
	}
}

// resize sets the terminal's size.
func (s *ioset) resize(width, height int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.terminal || s.stdin < 0 {
		return nil
	}
	return unix.IoctlSetWinsize(s.stdin, unix.TIOCSWINSZ, &unix.Winsize{Row: uint16(height), Col: uint16(width)})
}

// attach adds a client; false if the process has ended.
func (s *ioset) attach(c *client) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return false
	}
	s.clients = append(append([]*client(nil), s.clients...), c)
	return true
}

// detach removes a client.
func (s *ioset) detach(c *client) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var rest []*client
	for _, x := range s.clients {
		if x != c {
			rest = append(rest, x)
		}
	}
	s.clients = rest
}
