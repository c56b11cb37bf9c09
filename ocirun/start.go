package ocirun

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/ocirun/wire"
)

// Start lets the init execute the user's process. On a *StartError the init
// has exited (the caller, its parent, reaps it) and is of no further use. The
// handshake is closed in any case.
func (c *Container) Start() error {
	defer c.closeConn()
	if err := c.init.conn.Send(wire.KindContinue, nil); err != nil {
		return fmt.Errorf("start: init is gone: %w", err)
	}
	msg, err := receiveEnd(c.init.conn, c.agent)
	if errors.Is(err, io.EOF) {
		c.r.reuse(c.init)
		return nil // closed by the exec
	}
	if err != nil {
		return fmt.Errorf("start: %w", err)
	}
	if err := failureOf(msg); err != nil {
		c.r.reuseAfterEnd(c.init)
		return err
	}
	return fmt.Errorf("start: init sent an unexpected message %d", msg.Kind)
}

// receiveEnd reads what an init says last: nothing (io.EOF) or a Failure. A
// seccomp listener that comes first goes to the agent.
func receiveEnd(conn wire.Conn, agent *Agent) (*wire.Message, error) {
	msg, err := conn.Receive()
	if err != nil || msg.Kind != wire.KindListener {
		return msg, err
	}
	if err := agent.handOver(conn, msg); err != nil {
		return nil, err
	}
	return conn.Receive()
}

// StartBy starts a container that was created with a StartSocket, through a
// connection to that socket, which it closes. agent is nil or AgentOf the
// container; if it does not take the listener, the init exits.
func StartBy(conn *os.File, agent *Agent) error {
	fd, err := unix.FcntlInt(conn.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	conn.Close()
	if err != nil {
		return err
	}
	return (&Container{init: &spawned{conn: wire.Conn{FD: fd}}, agent: agent}).Start()
}

// Release lets go of a container that somebody else will start by its StartSocket.
func (c *Container) Release() { c.closeConn() }

// Abort ends a container that was created and never started: the init is
// killed, to be reaped by its parent. PidFD and Console stay the caller's.
func (c *Container) Abort() error {
	c.closeConn()
	err := unix.PidfdSendSignal(int(c.PidFD.Fd()), unix.SIGKILL, nil, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	return err
}

func (c *Container) closeConn() {
	c.once.Do(func() {
		unix.Close(c.init.conn.FD)
		if c.init.forker != nil {
			c.r.discard(c.init.forker)
		}
	})
}
