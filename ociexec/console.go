package ociexec

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// console is the socket through which a runtime hands over the terminal, as
// runc's --console-socket does: one message with one descriptor.
type console struct {
	path string
	l    *net.UnixListener
	got  chan terminal
}

type terminal struct {
	master *os.File
	err    error
}

// listen makes a socket that no container sees, and waits there. The terminal
// is given its size, in cells, at once: not every runtime does that.
func (c *Container) listen(width, height uint16) (*console, error) {
	dir, err := os.MkdirTemp(c.SocketDir, "tty")
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, errors.Join(err, os.Remove(dir))
	}
	con := &console{path, l, make(chan terminal, 1)}
	go func() {
		master, err := con.accept()
		if err == nil && width > 0 && height > 0 {
			_ = unix.IoctlSetWinsize(int(master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: height, Col: width})
		}
		con.got <- terminal{master, err}
	}()
	return con, nil
}

// close ends the waiting; a terminal that nobody received is closed.
func (c *console) close() {
	_ = c.l.Close()
	_ = os.RemoveAll(filepath.Dir(c.path))
	if t, ok := <-c.got; ok && t.master != nil {
		_ = t.master.Close()
	}
}

// receive returns the terminal of a runtime that has done its work.
func (c *console) receive() (*os.File, error) {
	_ = c.l.SetDeadline(time.Now().Add(patience))
	t := <-c.got
	close(c.got)
	if t.err != nil {
		return nil, fmt.Errorf("the runtime gave no terminal: %w", t.err)
	}
	return t.master, nil
}

func (c *console) accept() (*os.File, error) {
	conn, err := c.l.AcceptUnix()
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return nil, err
	}
	name, oob := make([]byte, 4096), make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := conn.ReadMsgUnix(name, oob)
	if err != nil {
		return nil, err
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(msgs) != 1 {
		return nil, errors.Join(errors.New("a message without a descriptor"), err)
	}
	fds, err := unix.ParseUnixRights(&msgs[0])
	if err != nil || len(fds) != 1 {
		return nil, errors.Join(errors.New("a message without a descriptor"), err)
	}
	return os.NewFile(uintptr(fds[0]), "console"), nil
}
