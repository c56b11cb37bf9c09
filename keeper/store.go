package keeper

import (
	"net"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/keeper/fdstore"
)

// sendTimeout bounds how long a helper that does not read can hold the keeper up.
const sendTimeout = time.Second

// conn is a connected helper.
type conn struct {
	c *net.UnixConn
}

func (c *conn) send(m fdstore.Message) error {
	if err := c.c.SetWriteDeadline(time.Now().Add(sendTimeout)); err != nil {
		return err
	}
	return fdstore.Write(c.c, m)
}

func (k *keeper) accept(l *net.UnixListener) {
	for {
		c, err := l.AcceptUnix()
		if err != nil {
			return // closed at the end
		}
		go k.handle(&conn{c})
	}
}

// handle serves one helper until it disconnects. Its sets stay.
func (k *keeper) handle(c *conn) {
	defer c.c.Close()
	rd := fdstore.NewReader(c.c)
	hello, err := rd.Read()
	if err != nil || hello.Op != "hello" || hello.Version != fdstore.Version {
		return
	}
	k.mu.Lock()
	r := k.roles[hello.Role]
	if r != nil {
		if r.conn != nil {
			_ = r.conn.c.Close() // of a predecessor
		}
		r.conn = c
	}
	k.mu.Unlock()
	if r == nil {
		return
	}
	for {
		m, err := rd.Read()
		if err != nil {
			break
		}
		k.obey(r, c, m)
	}
	k.mu.Lock()
	if r.conn == c {
		r.conn = nil
	}
	k.mu.Unlock()
}

func (k *keeper) obey(r *role, c *conn, m fdstore.Message) {
	switch m.Op {
	case "put":
		k.replace(r, m.Name, &fdstore.Set{Name: m.Name, Meta: m.Meta, Files: m.Files})
	case "drop":
		k.replace(r, m.Name, nil)
	case "all":
		k.giveAll(r, c)
	case "shutdown":
		go k.stop()
	}
}

// replace stores a set, or none, under a name and closes what was there.
func (k *keeper) replace(r *role, name string, s *fdstore.Set) {
	k.mu.Lock()
	old := r.sets[name]
	if s != nil {
		r.sets[name] = *s
	} else {
		delete(r.sets, name)
	}
	k.mu.Unlock()
	for _, fd := range old.Files {
		_ = unix.Close(fd)
	}
}

// giveAll sends every set of the role. Only this connection's goroutine
// changes the sets meanwhile, so none is closed under us.
func (k *keeper) giveAll(r *role, c *conn) {
	k.mu.Lock()
	sets := make([]fdstore.Set, 0, len(r.sets))
	for _, s := range r.sets {
		sets = append(sets, s)
	}
	k.mu.Unlock()
	for _, s := range sets {
		if err := c.send(fdstore.Message{Op: "set", Name: s.Name, Meta: s.Meta, Files: s.Files}); err != nil {
			k.log.Error("cannot return descriptors", "role", r.name, "set", s.Name, "err", err)
			_ = c.c.Close()
			return
		}
	}
	if err := c.send(fdstore.Message{Op: "end"}); err != nil {
		_ = c.c.Close()
	}
}
