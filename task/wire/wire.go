// Package wire is the protocol between the daemon and the supervisor: frames on
// a unix stream socket that carry JSON and descriptors. It knows how messages
// travel, not what they do; task/remote is its client and supervisor its server.
//
// A frame is a header of 24 bytes (little endian) and a body:
//
//	0  uint32  length of the body
//	4  uint8   kind: request, reply, failure, event, cancel
//	5  uint8   operation (requests)
//	6  uint16  number of descriptors, sent with the first byte of the frame
//	8  uint64  request id, chosen by the client; the reply repeats it
//	16 uint64  epoch of the sender (see task.Service)
package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"

	"golang.org/x/sys/unix"
)

// Kind of a frame.
type Kind uint8

// Kinds.
const (
	Request Kind = 1 + iota
	Reply        // the body is the operation's answer
	Failure      // the body is an Error
	Event        // the body is a task.Event
	Cancel       // the client no longer waits for the request of this id
)

// Op is what a request asks for.
type Op uint8

// Operations, one for each method of task.Service. Numbers are never reused.
const (
	OpHello Op = 1 + iota
	OpStart
	OpExec
	OpSignal
	OpStop
	OpUpdate
	OpPause
	OpResume
	OpResize
	OpAttach
	OpHandWait
	OpStatus
	OpExecStatus
	OpOpenRoot
	OpCloseRoot
	OpNetNS
	OpDelete
	OpEvents
	OpAck
	OpShutdown
	// OpUpgrade asks the helpers to become another build; it needs no Hello.
	OpUpgrade
	// OpAttachExec is OpAttach with an exec's ID, which older supervisors overlook.
	OpAttachExec
	OpNewNetNS
)

const (
	headerSize = 24
	// MaxBody bounds a body (bytes).
	MaxBody = 32 << 20
	// MaxFiles bounds the descriptors of one frame.
	MaxFiles = 16

	readBuffer = 32 << 10
)

// Header of a frame; the length and the number of descriptors are implied.
type Header struct {
	Kind  Kind
	Op    Op
	ID    uint64
	Epoch uint64
}

// Frame is one message. The receiver owns the descriptors, which are close-on-exec.
type Frame struct {
	Header
	Body  []byte
	Files []int
}

// Close closes the descriptors that nobody took (those not set to -1).
func (f *Frame) Close() {
	for i, fd := range f.Files {
		if fd >= 0 {
			_ = unix.Close(fd)
			f.Files[i] = -1
		}
	}
}

// Take returns descriptor i, which the caller owns from now on; -1 if there is none.
func (f *Frame) Take(i int) int {
	if i < 0 || i >= len(f.Files) {
		return -1
	}
	fd := f.Files[i]
	f.Files[i] = -1
	return fd
}

// Conn sends and receives frames. Writes may be concurrent; reads have one owner.
type Conn struct {
	c *net.UnixConn

	wmu  sync.Mutex
	wbuf []byte

	buf        []byte
	start, end int
	fds        []int
	oob        []byte
}

// NewConn wraps a connected unix stream socket.
func NewConn(c *net.UnixConn) *Conn { return &Conn{c: c} }

// Close ends the connection; a blocked Read returns.
func (c *Conn) Close() error { return c.c.Close() }

// Unix returns the socket.
func (c *Conn) Unix() *net.UnixConn { return c.c }

// Write sends one frame. The descriptors remain the caller's.
func (c *Conn) Write(h Header, body []byte, fds ...int) error {
	if len(body) > MaxBody || len(fds) > MaxFiles {
		return fmt.Errorf("message of %d bytes and %d descriptors is too large", len(body), len(fds))
	}
	c.wmu.Lock()
	defer c.wmu.Unlock()
	b := append(c.wbuf[:0], make([]byte, headerSize)...)
	binary.LittleEndian.PutUint32(b, uint32(len(body)))
	b[4], b[5] = byte(h.Kind), byte(h.Op)
	binary.LittleEndian.PutUint16(b[6:], uint16(len(fds)))
	binary.LittleEndian.PutUint64(b[8:], h.ID)
	binary.LittleEndian.PutUint64(b[16:], h.Epoch)
	b = append(b, body...)
	if cap(b) <= readBuffer {
		c.wbuf = b[:0]
	}
	if len(fds) == 0 {
		_, err := c.c.Write(b)
		return err
	}
	n, _, err := c.c.WriteMsgUnix(b, unix.UnixRights(fds...), nil)
	if err == nil && n < len(b) {
		_, err = c.c.Write(b[n:])
	}
	return err
}

// Read returns the next frame. The body is the caller's.
func (c *Conn) Read() (*Frame, error) {
	if c.buf == nil {
		c.buf = make([]byte, readBuffer)
		c.oob = make([]byte, unix.CmsgSpace(4*MaxFiles))
	}
	for c.end-c.start < headerSize {
		if err := c.fill(); err != nil {
			return nil, err
		}
	}
	b := c.buf[c.start:c.end]
	size := int(binary.LittleEndian.Uint32(b))
	files := int(binary.LittleEndian.Uint16(b[6:]))
	f := &Frame{Header: Header{
		Kind: Kind(b[4]), Op: Op(b[5]),
		ID: binary.LittleEndian.Uint64(b[8:]), Epoch: binary.LittleEndian.Uint64(b[16:]),
	}}
	if size > MaxBody || files > MaxFiles {
		return nil, errors.New("malformed frame")
	}
	c.start += headerSize
	f.Body = make([]byte, size)
	n := copy(f.Body, c.buf[c.start:c.end])
	c.start += n
	for n < size {
		m, err := c.recv(f.Body[n:])
		if err != nil {
			return nil, unexpected(err)
		}
		n += m
	}
	if files > len(c.fds) {
		return nil, fmt.Errorf("frame announces %d descriptors, %d came", files, len(c.fds))
	}
	if files > 0 {
		f.Files = append([]int(nil), c.fds[:files]...)
		c.fds = c.fds[:copy(c.fds, c.fds[files:])]
	}
	return f, nil
}

// Discard closes descriptors that arrived and belong to no complete frame.
func (c *Conn) Discard() {
	for _, fd := range c.fds {
		_ = unix.Close(fd)
	}
	c.fds = nil
}

func (c *Conn) fill() error {
	if c.start > 0 {
		c.end = copy(c.buf, c.buf[c.start:c.end])
		c.start = 0
	}
	n, err := c.recv(c.buf[c.end:])
	if err != nil && c.end > 0 {
		err = unexpected(err)
	}
	c.end += n
	return err
}

func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// recv reads once and queues the descriptors that came along.
func (c *Conn) recv(p []byte) (int, error) {
	n, oobn, flags, _, err := c.c.ReadMsgUnix(p, c.oob)
	if oobn > 0 {
		if perr := c.keep(c.oob[:oobn]); perr != nil && err == nil {
			err = perr
		}
	}
	if err != nil {
		return n, err
	}
	if flags&unix.MSG_CTRUNC != 0 {
		return n, errors.New("descriptors were lost: too many, or the limit of open files is reached")
	}
	if n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

func (c *Conn) keep(oob []byte) error {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return err
	}
	for i := range msgs {
		fds, err := unix.ParseUnixRights(&msgs[i])
		if err != nil {
			continue // credentials or the like
		}
		c.fds = append(c.fds, fds...)
	}
	return nil
}
