// Package rtnl sends batches of route netlink messages (links, addresses,
// routes) in one system call. It knows the wire format and nothing of what the
// messages are for. A Conn belongs to the network namespace it was dialled in.
package rtnl

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// timeout bounds the wait for an answer of the kernel, in seconds.
const timeout = 20

// Conn is a route netlink socket, safe for concurrent use.
type Conn struct {
	mu sync.Mutex
	fd int
}

// answers are buffers for what the kernel says at once. Most sockets are asked
// a few times only, so they have none of their own.
var answers = sync.Pool{New: func() any { return new([64 << 10]byte) }}

// seq numbers the messages of the whole process.
var seq atomic.Uint32

// Dial opens a socket in the network namespace of the calling thread.
func Dial() (*Conn, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open route netlink socket: %w", err)
	}
	err = errors.Join(
		unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: timeout}))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("set up route netlink socket: %w", err), unix.Close(fd))
	}
	// Answers that repeat the request only cost; old kernels lack the option.
	_ = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1)
	return &Conn{fd: fd}, nil
}

// Close closes the socket.
func (c *Conn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fd < 0 {
		return nil
	}
	fd := c.fd
	c.fd = -1
	return unix.Close(fd)
}

// Do sends the batch and waits until the kernel has worked it off. The
// messages are independent: one that fails does not stop those after it. All
// failures are returned, each a *Error.
func (c *Conn) Do(b *Batch) error { return c.exchange(b, nil) }

// Dump is Do for a batch that asks: it hands every answer's type and payload
// to fn, in the order of the questions.
func (c *Conn) Dump(b *Batch, fn func(typ uint16, payload []byte)) error { return c.exchange(b, fn) }

func (c *Conn) exchange(b *Batch, fn func(typ uint16, payload []byte)) error {
	if len(b.at) == 0 {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	first := b.seal()
	if err := unix.Sendto(c.fd, b.buf, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("send netlink batch: %w", err)
	}
	last := first + uint32(len(b.at)) - 1
	var errs []error
	for {
		done, err := c.receive(first, last, func(seq uint32, errno unix.Errno) {
			if errno != 0 {
				errs = append(errs, &Error{Op: b.ops[seq-first], Errno: errno})
			}
		}, fn)
		if err != nil {
			return errors.Join(append(errs, err)...)
		}
		if done {
			return errors.Join(errs...)
		}
	}
}

// receive reads one datagram; done tells that the answer to last was in it, or
// the end of the answer if that has several parts.
func (c *Conn) receive(first, last uint32, ack func(uint32, unix.Errno), data func(uint16, []byte)) (done bool, err error) {
	buf := answers.Get().(*[64 << 10]byte)
	defer answers.Put(buf)
	n, _, err := unix.Recvfrom(c.fd, buf[:], 0)
	for err == unix.EINTR {
		n, _, err = unix.Recvfrom(c.fd, buf[:], 0)
	}
	if err != nil {
		return false, fmt.Errorf("receive netlink answer: %w", err)
	}
	for rest := buf[:n]; len(rest) >= unix.SizeofNlMsghdr; {
		size := int(binary.NativeEndian.Uint32(rest))
		typ, flags := binary.NativeEndian.Uint16(rest[4:]), binary.NativeEndian.Uint16(rest[6:])
		num := binary.NativeEndian.Uint32(rest[8:])
		if size < unix.SizeofNlMsghdr || size > len(rest) {
			return false, errors.New("malformed netlink answer")
		}
		body := rest[unix.SizeofNlMsghdr:size]
		rest = rest[min(align(size), len(rest)):]
		if num < first || num > last {
			continue // left over from a request that timed out
		}
		switch typ {
		case unix.NLMSG_ERROR:
			ack(num, unix.Errno(-int32(binary.NativeEndian.Uint32(body))))
			done = done || num == last
		case unix.NLMSG_DONE:
			done = true
		default:
			if data != nil {
				data(typ, body)
			}
			done = done || num == last && flags&unix.NLM_F_MULTI == 0
		}
	}
	return done, nil
}

// Error is the refusal of one message.
type Error struct {
	Op    string // what was asked, such as "add route"
	Errno unix.Errno
}

func (e *Error) Error() string { return e.Op + ": " + e.Errno.Error() }

// Unwrap gives the errno.
func (e *Error) Unwrap() error { return e.Errno }

func align(n int) int { return (n + 3) &^ 3 }
