// Package systemd asks the system's service manager for the scope units that
// containers of the systemd cgroup driver live in, over D-Bus. It speaks as much
// of that as four calls need: the libraries for it would double the start of the
// runtime.
package systemd

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// sockets of the manager: its own, which needs no bus daemon, and the system bus.
const (
	privateSocket = "/run/systemd/private"
	busSocket     = "/run/dbus/system_bus_socket"
)

// timeout of one answer, in seconds: a manager may be slow, not silent.
const timeout = 25

// bus is one connection.
type bus struct {
	fd      int
	serial  uint32
	signals []message // that came while an answer was awaited
}

// connect reaches the manager. Unavailable if there is none.
func connect() (*bus, error) {
	if _, err := os.Stat("/run/systemd/system"); err != nil {
		return nil, fmt.Errorf("systemd is not the service manager of this system: %w", errdefs.ErrUnavailable)
	}
	b, err := dial(privateSocket)
	if err == nil {
		return b, nil
	}
	b, berr := dial(busSocket)
	if berr != nil {
		return nil, fmt.Errorf("connect to systemd: %w", errors.Join(err, berr, errdefs.ErrUnavailable))
	}
	if err := b.introduce(); err != nil {
		return nil, errors.Join(fmt.Errorf("connect to systemd: %w", err), b.close())
	}
	return b, nil
}

func dial(path string) (*bus, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	b := &bus{fd: fd}
	limit := unix.Timeval{Sec: timeout}
	err = errors.Join(unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit), unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &limit))
	if err == nil {
		err = unix.Connect(fd, &unix.SockaddrUnix{Name: path})
	}
	if err == nil {
		err = b.authenticate()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", path, err), b.close())
	}
	return b, nil
}

func (b *bus) close() error { return unix.Close(b.fd) }

// authenticate by the user id that the kernel vouches for. BEGIN does not wait
// for the answer: the manager leaves a message alone that it reads together with
// a BEGIN, until more comes.
func (b *bus) authenticate() error {
	uid := hex.EncodeToString([]byte(strconv.Itoa(os.Geteuid())))
	if err := b.write([]byte("\x00AUTH EXTERNAL " + uid + "\r\nBEGIN\r\n")); err != nil {
		return err
	}
	var line []byte
	for !strings.HasSuffix(string(line), "\r\n") {
		c, err := b.read(1)
		if err != nil {
			return err
		}
		if line = append(line, c...); len(line) > 512 {
			return errors.New("no end of the answer to the authentication")
		}
	}
	if !strings.HasPrefix(string(line), "OK ") {
		return fmt.Errorf("authentication: %q", strings.TrimSpace(string(line)))
	}
	return nil
}

// introduce is what the bus daemon wants first; then signals of the manager.
func (b *bus) introduce() error {
	daemon := func(member string, args ...any) error {
		_, err := b.call("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", member, args...)
		return err
	}
	if err := daemon("Hello"); err != nil {
		return err
	}
	if err := daemon("AddMatch", "type='signal',interface='"+managerInterface+"',member='JobRemoved'"); err != nil {
		return err
	}
	_, err := b.manager("Subscribe")
	return err
}

func (b *bus) write(p []byte) error {
	for len(p) > 0 {
		n, err := unix.SendmsgN(b.fd, p, nil, nil, unix.MSG_NOSIGNAL)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		p = p[n:]
	}
	return nil
}

func (b *bus) read(n int) ([]byte, error) {
	buf := make([]byte, n)
	for at := 0; at < n; {
		got, err := unix.Read(b.fd, buf[at:])
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN):
			return nil, fmt.Errorf("no answer within %d s: %w", timeout, errdefs.ErrUnavailable)
		case err != nil:
			return nil, err
		case got == 0:
			return nil, errors.New("the connection was closed")
		}
		at += got
	}
	return buf, nil
}

const (
	managerName      = "org.freedesktop.systemd1"
	managerPath      = "/org/freedesktop/systemd1"
	managerInterface = "org.freedesktop.systemd1.Manager"
)

// manager calls a method of systemd and returns the body of the answer.
func (b *bus) manager(member string, args ...any) (*decoder, error) {
	return b.call(managerName, managerPath, managerInterface, member, args...)
}

// Error is one that the manager answered.
type Error struct{ Name, Text string }

func (e *Error) Error() string { return "systemd: " + e.Text + " (" + e.Name + ")" }

func (b *bus) call(destination, path, iface, member string, args ...any) (*decoder, error) {
	b.serial++
	if err := b.write(method(b.serial, destination, path, iface, member, args)); err != nil {
		return nil, fmt.Errorf("call %s: %w", member, err)
	}
	for {
		m, err := b.receive()
		if err != nil {
			return nil, fmt.Errorf("call %s: %w", member, err)
		}
		switch {
		case m.typ == typeSignal:
			b.signals = append(b.signals, m)
		case m.replyTo != b.serial:
		case m.typ == typeError:
			text, _ := m.body.text()
			return nil, &Error{m.errorName, text}
		default:
			return m.body, nil
		}
	}
}

// await waits until a job is done.
func (b *bus) await(job string) error {
	for {
		var m message
		if len(b.signals) > 0 {
			m, b.signals = b.signals[0], b.signals[1:]
		} else {
			var err error
			if m, err = b.receive(); err != nil {
				return fmt.Errorf("wait for systemd's job: %w", err)
			}
		}
		if m.typ != typeSignal || m.member != "JobRemoved" {
			continue
		}
		_, err := m.body.number() // the job's number, path, unit and result
		path, perr := m.body.text()
		_, uerr := m.body.text()
		result, rerr := m.body.text()
		if err := errors.Join(err, perr, uerr, rerr); err != nil {
			return err
		}
		if path != job {
			continue
		}
		if result != "done" {
			return fmt.Errorf("systemd's job ended as %q", result)
		}
		return nil
	}
}

// receive reads one message.
func (b *bus) receive() (message, error) {
	head, err := b.read(16)
	if err != nil {
		return message{}, err
	}
	var order binary.ByteOrder = binary.LittleEndian
	if head[0] == 'B' {
		order = binary.BigEndian
	}
	body, fields := order.Uint32(head[4:]), order.Uint32(head[12:])
	if body > maxMessage || fields > maxMessage {
		return message{}, fmt.Errorf("a message of %d bytes", uint64(body)+uint64(fields))
	}
	rest, err := b.read(align(int(fields), 8) + int(body))
	if err != nil {
		return message{}, err
	}
	m := message{typ: head[1]}
	d := &decoder{b: append(head, rest...), at: 16, order: order}
	if err := m.header(d, 16+int(fields)); err != nil {
		return m, err
	}
	m.body = &decoder{b: rest[align(int(fields), 8):], order: order}
	return m, nil
}

const maxMessage = 1 << 20
