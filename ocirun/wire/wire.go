// Package wire is the protocol between the runtime and the init of a container:
// all messages, their order and their transport. It knows nothing of what the
// messages mean to either side.
//
//	runtime                                         init
//	   │ clone, exec of the sealed binary ────────────▶│  (socket is a descriptor given as argument)
//	   │◀──────────────────────── Forked ──────────────│  only if another init forked it
//	   │ Config, all descriptors ─────────────────────▶│
//	   │                                               │ namespaces, mounts
//	   │◀──────────────────────── Hooks ───────────────│  only if Config.HostHooks
//	   │ Continue ────────────────────────────────────▶│  after prestart and createRuntime hooks
//	   │                                               │ root, user, look-up of the program
//	   │◀──────────────────────── Ready, [tty master] ─│  not from an exec without a terminal
//	   │ Continue ────────────────────────────────────▶│  Start; an exec does not wait for it
//	   │                                               │ seccomp, execve
//	   │◀──────────────────────── end of file ─────────│  the program runs
//
// At any point init may send Failure instead and exit. End of file from the
// runtime makes init exit: a container whose creator died does not run. With
// Process.ListenFD the runtime may end after Ready; then Continue comes from
// whoever connects to that socket, and what follows goes there.
// An init that stands by gets no Config but a Fork for every init it is to make,
// whose socket and streams come along; it answers nothing, except on that socket
// a Failure if it could not.
// There is one version: both ends are the same file.
package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"reflect"

	"golang.org/x/sys/unix"
)

// Kind of a message.
type Kind byte

// Kinds, in the order they appear.
const (
	KindFork Kind = iota + 1
	KindForked
	KindConfig
	KindHooks
	KindContinue
	KindReady
	// KindListener brings seccomp's listener, if Process.Notify is set: the filter
	// is loaded, the program not executed. Continue answers it.
	KindListener
	KindFailure
)

// maxMessage bounds a message: an environment may be 2 MiB.
const maxMessage = 16 << 20

// maxFiles is the kernel's limit of descriptors in one message.
const maxFiles = 253

// headerSize: kind, length.
const headerSize = 5

// Conn is one end of the socket pair.
type Conn struct{ FD int }

// Ready tells what the init has done so far.
type Ready struct{ Steps []Step }

// Step is one of them, with the microseconds it took.
type Step struct {
	Name   string
	Micros int64
}

// Failure is why a container or process could not be made.
type Failure struct {
	// Stage names what init was doing.
	Stage string
	// Msg is the whole text, errno included.
	Msg string
	// Errno is the kernel's, or 0.
	Errno int32
	// Code is 126 or 127 if the user's program is to blame, else 0.
	Code int32
}

// Fork asks an init that stands by for another one. Its descriptors are ForkFDs:
// the new init's socket and standard streams; then those asked for.
type Fork struct {
	// Flags are the CLONE_NEW flags of the namespaces to make.
	Flags uint64
	// PidNS: a PID namespace to be born in, or a pidfd of a process there.
	PidNS bool
	// Cgroup: a v2 cgroup to be born in.
	Cgroup bool
}

// ForkFDs is the number of descriptors that come with every Fork.
const ForkFDs = 4

// Forked is the first word of an init that another one forked: its process id as
// the runtime sees it.
type Forked struct{ Pid int32 }

// Send writes one message; v is a pointer to the body or nil.
func (c Conn) Send(kind Kind, v any, fds ...int) error {
	b := make([]byte, headerSize, 4096)
	if v != nil {
		b = encode(b, reflect.ValueOf(v).Elem())
	}
	if len(fds) > maxFiles {
		return fmt.Errorf("wire: %d descriptors in one message, at most %d are possible", len(fds), maxFiles)
	}
	b[0] = byte(kind)
	binary.LittleEndian.PutUint32(b[1:], uint32(len(b)-headerSize))
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	for len(b) > 0 {
		n, err := unix.SendmsgN(c.FD, b, oob, nil, unix.MSG_NOSIGNAL)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		b, oob = b[n:], nil
	}
	return nil
}

// Message is a received message, not yet decoded.
type Message struct {
	Kind Kind
	FDs  []int
	body []byte
}

// Decode fills v, a pointer to the body's structure.
func (m *Message) Decode(v any) error {
	d := decoder{m.body}
	return d.decode(reflect.ValueOf(v).Elem())
}

// Receive reads one message; io.EOF if the other end closed the socket.
func (c Conn) Receive() (*Message, error) {
	head := make([]byte, headerSize)
	oob := make([]byte, unix.CmsgSpace(maxFiles*4))
	n, oobn, err := c.recv(head, oob)
	if err != nil {
		return nil, err
	}
	m := &Message{}
	if oobn > 0 {
		if m.FDs, err = parseRights(oob[:oobn]); err != nil {
			return nil, err
		}
	}
	if err := c.fill(head[n:]); err != nil {
		return nil, err
	}
	m.Kind = Kind(head[0])
	size := binary.LittleEndian.Uint32(head[1:])
	if size > maxMessage {
		return nil, fmt.Errorf("wire: message of %d bytes", size)
	}
	m.body = make([]byte, size)
	return m, c.fill(m.body)
}

func (c Conn) recv(b, oob []byte) (n, oobn int, err error) {
	for {
		n, oobn, _, _, err = unix.Recvmsg(c.FD, b, oob, unix.MSG_CMSG_CLOEXEC)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.ECONNRESET):
			return 0, 0, io.EOF
		case err != nil:
			return 0, 0, err
		case n == 0:
			return 0, 0, io.EOF
		}
		return n, oobn, nil
	}
}

func (c Conn) fill(b []byte) error {
	for len(b) > 0 {
		n, _, err := c.recv(b, nil)
		if errors.Is(err, io.EOF) {
			return io.ErrUnexpectedEOF
		}
		if err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

func parseRights(oob []byte) ([]int, error) {
	scms, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, err
	}
	var fds []int
	for i := range scms {
		got, err := unix.ParseUnixRights(&scms[i])
		if err != nil {
			return nil, err
		}
		fds = append(fds, got...)
	}
	return fds, nil
}
