// Package fdstore is how a helper leaves duplicates of its descriptors with
// the keeper, and gets them back when it is started again. The store of each
// role ("supervisor", "net") is separate.
//
// A helper calls Dial when it starts, All to take over what its predecessor
// had, then Put and Drop as things come and go. When Done is closed the keeper
// has died: the helper calls Redial, which waits for the new keeper (started
// by the supervisor), and puts everything again.
//
// Messages are JSON on a unix seqpacket socket, descriptors beside them.
package fdstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/keeper/exits"
	"github.com/wherry-engine/wherry/keeper/successor"
)

const (
	// Version of the messages.
	Version = 1
	// Socket is the keeper's socket below the exec root.
	Socket = "keeper.sock"
	// SupervisorLock is the file there that the one supervisor has locked (flock(2)).
	SupervisorLock = "supervisor.lock"
	// MaxFiles bounds the descriptors of a set.
	MaxFiles = 64
	// MaxMeta bounds the description of a set (bytes).
	MaxMeta = 16 << 10

	maxMessage = 64 << 10
)

// Message is what travels in both directions. Op is one of
//
//	to the keeper:   hello, put, drop, all, shutdown, upgrade (Name is a program)
//	from the keeper: set (answers to all), end, exit, upgraded (Meta is a list of
//	successor.Outcome)
type Message struct {
	Op      string          `json:"op"`
	Version int             `json:"version,omitempty"`
	Role    string          `json:"role,omitempty"`
	Name    string          `json:"name,omitempty"`
	Meta    json.RawMessage `json:"meta,omitempty"`
	Exit    *exits.Exit     `json:"exit,omitempty"`
	Files   []int           `json:"-"`
}

// Set is a named group of descriptors. Meta is JSON of the helper's own.
type Set struct {
	Name  string
	Meta  json.RawMessage
	Files []int
}

// Client is a helper's connection to the keeper.
type Client struct {
	c    *net.UnixConn
	done chan struct{}
	exit func(exits.Exit)

	mu       sync.Mutex // one All at a time
	sets     chan Message
	upgraded chan Message
}

// Dial connects to the keeper of an exec root. onExit, if not nil, is called
// for each orphan that the keeper reaps; it must not block.
func Dial(execRoot, role string, onExit func(exits.Exit)) (*Client, error) {
	c, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: filepath.Join(execRoot, Socket), Net: "unixpacket"})
	if err != nil {
		return nil, err
	}
	cl := &Client{c: c, done: make(chan struct{}), exit: onExit, sets: make(chan Message, 16), upgraded: make(chan Message, 1)}
	if err := Write(c, Message{Op: "hello", Version: Version, Role: role}); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	go cl.read()
	return cl, nil
}

// Redial connects to the next keeper as soon as it listens, without polling.
func Redial(ctx context.Context, execRoot, role string, onExit func(exits.Exit)) (*Client, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "inotify")
	defer f.Close()
	stop := context.AfterFunc(ctx, func() { _ = f.Close() })
	defer stop()
	if _, err := unix.InotifyAddWatch(fd, execRoot, unix.IN_CREATE|unix.IN_MOVED_TO); err != nil {
		return nil, fmt.Errorf("watch %s: %w", execRoot, err)
	}
	buf := make([]byte, 4096)
	for {
		c, err := Dial(execRoot, role, onExit)
		if err == nil {
			return c, nil
		}
		if _, err := f.Read(buf); err != nil {
			return nil, errors.Join(ctx.Err(), err)
		}
	}
}

// Done is closed when the keeper is gone.
func (c *Client) Done() <-chan struct{} { return c.done }

// Close ends the connection. The keeper keeps the sets.
func (c *Client) Close() error { return c.c.Close() }

// Put leaves duplicates of the descriptors under a name; a set of that name is
// replaced. It does not wait for the keeper. Meta must be JSON or empty.
func (c *Client) Put(name string, meta []byte, files ...int) error {
	if len(files) > MaxFiles || len(meta) > MaxMeta {
		return fmt.Errorf("set %s is too large", name)
	}
	return Write(c.c, Message{Op: "put", Name: name, Meta: meta, Files: files})
}

// Drop closes the keeper's duplicates.
func (c *Client) Drop(name string) error { return Write(c.c, Message{Op: "drop", Name: name}) }

// Shutdown makes the keeper end all helpers and itself.
func (c *Client) Shutdown() error { return Write(c.c, Message{Op: "shutdown"}) }

// Upgrade makes the keeper and the helpers that are not its client another
// build. The connection stays.
func (c *Client) Upgrade(ctx context.Context, program string) ([]successor.Outcome, error) {
	if err := Write(c.c, Message{Op: "upgrade", Name: program}); err != nil {
		return nil, err
	}
	select {
	case m := <-c.upgraded:
		var out []successor.Outcome
		return out, json.Unmarshal(m.Meta, &out)
	case <-c.done:
		return nil, errors.New("the keeper is gone")
	case <-ctx.Done():
		return nil, fmt.Errorf("the keeper does not answer: %w", ctx.Err())
	}
}

// All returns every set; the descriptors are the caller's.
func (c *Client) All() ([]Set, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := Write(c.c, Message{Op: "all"}); err != nil {
		return nil, err
	}
	var sets []Set
	for {
		select {
		case m := <-c.sets:
			if m.Op == "end" {
				return sets, nil
			}
			sets = append(sets, Set{m.Name, m.Meta, m.Files})
		case <-c.done:
			return nil, errors.New("the keeper is gone")
		}
	}
}

func (c *Client) read() {
	defer close(c.done)
	defer c.c.Close()
	r := NewReader(c.c)
	for {
		m, err := r.Read()
		if err != nil {
			return
		}
		switch m.Op {
		case "set", "end":
			c.sets <- m
		case "upgraded":
			select {
			case c.upgraded <- m:
			default: // nobody waits for it any more
			}
		case "exit":
			if c.exit != nil && m.Exit != nil {
				c.exit(*m.Exit)
			}
		}
	}
}

// Write sends one message.
func Write(c *net.UnixConn, m Message) error {
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	var oob []byte
	if len(m.Files) > 0 {
		oob = unix.UnixRights(m.Files...)
	}
	_, _, err = c.WriteMsgUnix(b, oob, nil)
	return err
}

// Reader receives messages.
type Reader struct {
	c        *net.UnixConn
	buf, oob []byte
}

// NewReader reads from c.
func NewReader(c *net.UnixConn) *Reader {
	return &Reader{c: c, buf: make([]byte, maxMessage), oob: make([]byte, unix.CmsgSpace(4*MaxFiles))}
}

// Read returns the next message; its descriptors are the caller's.
func (r *Reader) Read() (Message, error) {
	n, oobn, flags, _, err := r.c.ReadMsgUnix(r.buf, r.oob)
	if err != nil {
		return Message{}, err
	}
	var m Message
	if oobn > 0 {
		msgs, err := unix.ParseSocketControlMessage(r.oob[:oobn])
		if err != nil {
			return Message{}, err
		}
		for i := range msgs {
			if fds, err := unix.ParseUnixRights(&msgs[i]); err == nil {
				m.Files = append(m.Files, fds...)
			}
		}
	}
	if n == 0 {
		return Message{}, errors.New("connection closed")
	}
	if flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 {
		closeAll(m.Files)
		return Message{}, errors.New("truncated message")
	}
	if err := json.Unmarshal(r.buf[:n], &m); err != nil {
		closeAll(m.Files)
		return Message{}, err
	}
	return m, nil
}

func closeAll(fds []int) {
	for _, fd := range fds {
		_ = unix.Close(fd)
	}
}

// KeeperPid returns the keeper's process id, 0 if unknown.
func (c *Client) KeeperPid() int { return PeerPid(c.c) }

// PeerPid returns the id of the process at the other end of a connection, 0 if unknown.
func PeerPid(c *net.UnixConn) int {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0
	}
	pid := 0
	_ = raw.Control(func(fd uintptr) {
		if cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			pid = int(cred.Pid)
		}
	})
	return pid
}
