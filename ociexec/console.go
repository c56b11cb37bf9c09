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
}

// listen makes a socket that no container sees.
func (c *Container) listen() (*console, error) {
	dir, err := os.MkdirTemp(c.SocketDir, "tty")
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, errors.Join(err, os.Remove(dir))
	}
	return &console{path, l}, nil
}

func (c *console) close() {
	_ = c.l.Close()
	_ = os.RemoveAll(filepath.Dir(c.path))
}

// receive takes the terminal from a runtime that has done its work.
func (c *console) receive() (*os.File, error) {
	if err := c.l.SetDeadline(time.Now().Add(patience)); err != nil {
		return nil, err
	}
	conn, err := c.l.AcceptUnix()
	if err != nil {
		return nil, fmt.Errorf("the runtime gave no terminal: %w", err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return nil, err
	}
	name, oob := make([]byte, 4096), make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := conn.ReadMsgUnix(name, oob)
	if err != nil {
		return nil, fmt.Errorf("the runtime gave no terminal: %w", err)
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(msgs) != 1 {
		return nil, errors.Join(errors.New("the runtime gave no terminal"), err)
	}
	fds, err := unix.ParseUnixRights(&msgs[0])
	if err != nil || len(fds) != 1 {
		return nil, errors.Join(errors.New("the runtime gave no terminal"), err)
	}
	unix.CloseOnExec(fds[0])
	return os.NewFile(uintptr(fds[0]), "console"), nil
}
