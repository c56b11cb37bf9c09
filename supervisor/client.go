package supervisor

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/logs"
	"github.com/wherry-engine/wherry/task"
)

const (
	// clientQueue is how much output waits for a client (bytes) before the
	// process that makes it has to wait too.
	clientQueue = 4 << 20
	// clientPatience is how long a client that came later, by attach, may hold
	// the process up; then output is left out for it, until it has taken half of
	// what waits. The client that a process was started for owns its output and
	// may stop it for ever, as a pipe would.
	clientPatience = time.Second
	// farewell is how long a client may take to close its side at the end, and one
	// that came later may pause while it takes what is left.
	farewell = 5 * time.Second
)

// client is an attached connection. One goroutine reads from it; output is
// written directly by the streams, and by a second goroutine while the
// connection is slower than they are.
type client struct {
	set   *ioset
	req   task.AttachRequest
	owner bool // the process was started for it
	fd    int  // of f, whose Fd method would make it blocking
	f     *os.File
	raw   syscall.RawConn
	keys  *keyMatcher

	mu       sync.Mutex
	room     sync.Cond
	queue    [][]byte
	queued   int
	draining bool
	ending   bool // nothing is sent any more
	dead     bool
	readDone bool
	// skipping leaves output out, of which skipped bytes are not mentioned yet.
	skipping bool
	skipped  uint64
	// unbounded lets the queue grow.
	unbounded bool
	hup       token
	// parked stops the goroutines, which leave everything as it is for those
	// of a next program, or for unpark. pending is input that they had taken.
	parked  bool
	pending []byte
	running sync.WaitGroup
}

// newClient takes over a connection, also on error, and sends the preface.
func newClient(fd int, req task.AttachRequest, owner bool) (*client, error) {
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	c := &client{req: req, owner: owner, fd: fd, f: os.NewFile(uintptr(fd), "client")}
	c.room.L = &c.mu
	raw, err := c.f.SyscallConn()
	if err != nil {
		return nil, errors.Join(err, c.f.Close())
	}
	c.raw = raw
	c.keys = newKeyMatcher(req.DetachKeys)
	if len(req.Preface) > 0 {
		c.write(req.Preface, nil)
		c.req.Preface = nil
	}
	return c, nil
}

// join makes the client one of the set's and begins to read from it.
func (c *client) join(s *ioset) bool {
	c.mu.Lock()
	c.set = s
	c.mu.Unlock()
	s.all.add(c)
	if !s.attach(c) {
		return false
	}
	c.running.Go(c.read)
	return true
}

// send passes output on. It waits while too much waits for the client.
func (c *client) send(kind logs.Stream, p []byte) {
	if (kind == logs.Stdout && !c.req.Stdout) || (kind == logs.Stderr && !c.req.Stderr) {
		return
	}
	if !c.req.Framed {
		c.write(p, nil)
		return
	}
	var head [8]byte
	head[0] = byte(kind)
	binary.BigEndian.PutUint32(head[4:], uint32(len(p)))
	c.write(head[:], p)
}

// write sends a and b, of which the rest is queued that the socket does not take.
func (c *client) write(a, b []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dead || c.ending {
		return
	}
	if c.skipping {
		if c.queued > clientQueue/2 && !c.unbounded {
			if b == nil {
				b = a // without a header
			}
			c.skipped += uint64(len(b))
			return
		}
		c.mentionLocked()
	}
	if !c.draining {
		n, err := c.try(a, b)
		if err != nil {
			c.kill()
			return
		}
		if n == len(a)+len(b) {
			return
		}
		if n < len(a) {
			a = a[n:]
		} else {
			a, b = nil, b[n-len(a):]
		}
	}
	c.enqueueLocked(append(append(make([]byte, 0, len(a)+len(b)), a...), b...))
	c.waitForRoom()
}

func (c *client) enqueueLocked(p []byte) {
	c.queue = append(c.queue, p)
	c.queued += len(p)
	c.drainLocked()
}

// waitForRoom holds the process up. Called with c.mu held.
func (c *client) waitForRoom() {
	full := func() bool { return c.queued > clientQueue && !c.dead && !c.ending && !c.unbounded }
	if !full() {
		return
	}
	if c.owner {
		for full() {
			c.room.Wait()
		}
		return
	}
	end := time.Now().Add(clientPatience)
	late := time.AfterFunc(clientPatience, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.room.Broadcast()
	})
	defer late.Stop()
	for full() && time.Now().Before(end) {
		c.room.Wait()
	}
	c.skipping = full()
}

// mentionLocked tells the client what it was not sent.
func (c *client) mentionLocked() {
	if c.skipped > 0 {
		text := fmt.Sprintf("[wherry] %d bytes of output are left out here: they were not read in time", c.skipped)
		switch {
		case !c.req.Framed:
			c.enqueueLocked([]byte("\r\n" + text + "\r\n"))
		case c.req.Stderr:
			head := [8]byte{byte(logs.Stderr)}
			binary.BigEndian.PutUint32(head[4:], uint32(len(text)+2))
			c.enqueueLocked([]byte(string(head[:]) + "\n" + text + "\n"))
		}
	}
	c.skipping, c.skipped = false, 0
}

// try writes without waiting.
func (c *client) try(a, b []byte) (n int, err error) {
	bufs := make([][]byte, 0, 2)
	for _, p := range [][]byte{a, b} {
		if len(p) > 0 {
			bufs = append(bufs, p)
		}
	}
	werr := c.raw.Write(func(fd uintptr) bool {
		for {
			n, err = unix.SendmsgBuffers(int(fd), bufs, nil, nil, unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT)
			if err != unix.EINTR {
				return true
			}
		}
	})
	if err == unix.EAGAIN {
		return 0, nil
	}
	return max(n, 0), errors.Join(werr, err)
}

// drainLocked begins to write what is queued.
func (c *client) drainLocked() {
	if !c.draining && !c.parked {
		c.draining = true
		c.running.Go(c.drain)
	}
}

// drain writes what is queued, at the client's pace.
func (c *client) drain() {
	for {
		c.mu.Lock()
		if c.dead || c.parked || len(c.queue) == 0 {
			c.draining = false
			if c.dead || !c.parked {
				c.queue = nil
			}
			if c.ending && !c.dead {
				c.hangUp()
			}
			c.mu.Unlock()
			return
		}
		p := c.queue[0]
		c.mu.Unlock()
		n, err := c.writeSome(p)
		c.mu.Lock()
		if !c.dead {
			c.queued -= n
			if c.queue[0] = p[n:]; n == len(p) {
				c.queue = c.queue[1:]
			}
			if err != nil && !c.parked {
				c.kill()
			}
		}
		c.room.Broadcast()
		c.mu.Unlock()
	}
}

// writeSome writes p. At the end a client that came later may not pause for too long.
func (c *client) writeSome(p []byte) (int, error) {
	done := 0
	for done < len(p) {
		c.hurry()
		if c.isParked() { // looked at after the deadline was set, before which it ends
			return done, errParked
		}
		n, err := c.f.Write(p[done:])
		done += n
		if err != nil && (n == 0 || !errors.Is(err, os.ErrDeadlineExceeded)) {
			return done, err
		}
	}
	return done, nil
}

// hurry bounds the next write of a client that came later, at the end.
func (c *client) hurry() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.owner && c.ending && !c.parked {
		_ = c.f.SetWriteDeadline(time.Now().Add(farewell))
	}
}

// kill gives the connection up. Called with c.mu held.
func (c *client) kill() {
	if c.dead {
		return
	}
	c.dead = true
	c.queue, c.queued = nil, 0
	c.room.Broadcast()
	if c.set != nil {
		c.unwatch()
	}
	_ = c.f.Close()
	if c.set != nil {
		c.set.detach(c)
		c.set.all.remove(c)
	}
}

// flush lets everything that is still to come be queued: the process has ended.
func (c *client) flush() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.unbounded = true
	c.room.Broadcast()
}

// abandon closes a connection on which nothing was promised yet.
func (c *client) abandon() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.kill()
}

// finish ends the connection when everything queued was sent.
func (c *client) finish() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dead || c.ending {
		return
	}
	c.mentionLocked()
	c.ending = true
	c.room.Broadcast()
	if !c.draining {
		c.hangUp()
	} else if !c.owner && !c.parked {
		_ = c.f.SetWriteDeadline(time.Now().Add(farewell)) // of the write under way
	}
}

// hangUp closes our direction, and all of it once the client closed its own:
// closing before would let it see a reset. Called with c.mu held.
func (c *client) hangUp() {
	if c.parked {
		return
	}
	if c.readDone {
		c.kill()
		return
	}
	_ = unix.Shutdown(c.fd, unix.SHUT_WR)
	_ = c.f.SetReadDeadline(time.Now().Add(farewell))
}

// read copies input until the client ends it.
func (c *client) read() {
	in := c.input()
	size := 512 // nothing but the end is expected
	if in != nil {
		size = 32 << 10
	}
	err := c.giveInput(in, c.takePending())
	if err == nil {
		b := c.req.Buffered
		c.req.Buffered = nil
		err = c.copyInput(in, b)
	}
	buf := make([]byte, size)
	for err == nil {
		var n int
		n, err = c.f.Read(buf)
		if n > 0 {
			err = errors.Join(c.copyInput(in, buf[:n]), err)
		}
	}
	if c.isParked() && (errors.Is(err, errParked) || errors.Is(err, os.ErrDeadlineExceeded)) {
		return
	}
	if errors.Is(err, errDetached) {
		if c.set.onDetach != nil {
			c.set.onDetach()
		}
		c.set.detach(c)
		c.finish()
		return
	}
	c.inputEnded(in != nil, err)
}

// input is the process's, if the client may write to it.
func (c *client) input() *os.File {
	if !c.req.Stdin {
		return nil
	}
	f, err := c.set.openInput()
	if err != nil {
		return nil
	}
	return f
}

var (
	errDetached = errors.New("detached")
	errParked   = errors.New("parked")
)

// copyInput writes what the client sent; nowhere if the process takes nothing.
func (c *client) copyInput(in *os.File, p []byte) error {
	if in == nil || len(p) == 0 {
		return nil
	}
	detached := false
	if c.set.terminal && c.keys != nil {
		p, detached = c.keys.filter(p)
	}
	if detached {
		_, _ = in.Write(p)
		return errDetached
	}
	return c.giveInput(in, p)
}

// giveInput writes to the process, unless the client is parked meanwhile.
func (c *client) giveInput(in *os.File, p []byte) error {
	if in == nil || len(p) == 0 {
		return nil
	}
	// Another error is the process's end of reading, which is no concern of the client.
	n, err := in.Write(p)
	if errors.Is(err, os.ErrDeadlineExceeded) && c.isParked() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.pending = append([]byte(nil), p[n:]...)
		return errParked
	}
	return nil
}

func (c *client) takePending() []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.pending
	c.pending = nil
	return p
}

// inputEnded is the client's end of writing, or of the connection.
func (c *client) inputEnded(hadInput bool, err error) {
	if hadInput {
		if c.set.stdinOnce && !c.set.terminal && !c.cutOff() {
			c.set.closeInput()
		} else {
			c.set.detach(c)
			c.finish()
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.readDone = true
	if c.dead {
		return
	}
	if !errors.Is(err, io.EOF) || (c.ending && !c.draining) {
		c.kill()
		return
	}
	c.watchHangUp()
}

// cutOff tells whether a relayed client's daemon is gone.
func (c *client) cutOff() bool {
	if !c.req.Relayed {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	p := []unix.PollFd{{Fd: int32(c.fd)}}
	n, err := unix.Poll(p, 0)
	return !c.dead && err == nil && n == 1 && p[0].Revents&unix.POLLHUP != 0
}

// watchHangUp is for a client that is half closed: output goes on until it
// closes the rest. Called with c.mu held.
func (c *client) watchHangUp() {
	var err error
	c.hup, err = c.set.poll.add(c.fd, 0, func(uint32) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.kill()
	})
	if err != nil {
		c.kill()
	}
}

func (c *client) unwatch() {
	if c.hup != 0 {
		c.set.poll.remove(c.fd, c.hup)
		c.hup = 0
	}
}
