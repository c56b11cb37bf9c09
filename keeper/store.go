package keeper

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/keeper/exits"
	"github.com/wherry-engine/wherry/keeper/fdstore"
)

// sendTimeout bounds how long a helper that does not read can hold the keeper up.
const sendTimeout = time.Second

// conn is a connected helper.
type conn struct {
	c    *net.UnixConn
	role *role         // nil until it has said who it is; guarded by keeper.mu
	idle bool          // its messages are not read: an upgrade; guarded by keeper.mu
	gone chan struct{} // closed when it is no longer read
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
		if errors.Is(err, os.ErrDeadlineExceeded) {
			k.park(&k.acceptIdle)
			continue
		}
		if err != nil {
			return // closed at the end
		}
		go k.handle(k.newConn(c, nil))
	}
}

func (k *keeper) newConn(uc *net.UnixConn, r *role) *conn {
	c := &conn{c: uc, role: r, gone: make(chan struct{})}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.conns[c] = struct{}{}
	if r != nil {
		r.conn = c
	}
	return c
}

// read returns the next message of a connection; an upgrade may come between.
func (k *keeper) read(c *conn, rd *fdstore.Reader) (fdstore.Message, error) {
	for {
		m, err := rd.Read()
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return m, err
		}
		k.park(&c.idle)
	}
}

// park waits while an upgrade is being tried, if one is, and says so in idle.
func (k *keeper) park(idle *bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if ch := k.parked; ch != nil {
		*idle = true
		k.mu.Unlock()
		<-ch
		k.mu.Lock()
		*idle = false
	}
}

// handle serves one helper until it disconnects. Its sets stay.
func (k *keeper) handle(c *conn) {
	defer close(c.gone)
	defer c.c.Close()
	rd := fdstore.NewReader(c.c)
	if c.role == nil && !k.greet(c, rd) {
		k.forget(c)
		return
	}
	for {
		m, err := k.read(c, rd)
		if err != nil {
			break
		}
		k.obey(c.role, c, m)
	}
	k.forget(c)
}

func (k *keeper) forget(c *conn) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.conns, c)
	if c.role != nil && c.role.conn == c {
		c.role.conn = nil
	}
}

// greet learns who it is. What a predecessor has sent is taken first.
func (k *keeper) greet(c *conn, rd *fdstore.Reader) bool {
	hello, err := k.read(c, rd)
	if err != nil || hello.Op != "hello" || hello.Version != fdstore.Version {
		return false
	}
	k.mu.Lock()
	r := k.roles[hello.Role]
	var before *conn
	if r != nil {
		before = r.conn
	}
	k.mu.Unlock()
	if r == nil {
		return false
	}
	if before != nil {
		select {
		case <-before.gone:
		case <-time.After(sendTimeout):
			_ = before.c.Close()
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	r.conn, c.role = c, r
	if r.name == supervisor {
		k.recognise(r, c.c)
	}
	return true
}

// recognise makes the supervisor that connects the one that is watched, and told to
// end. There is but one, which has the lock of the exec root: if it is not the one
// started last, a keeper was killed before it had written down whom it started, and
// the other one would wait for the lock for ever. Called with k.mu held.
func (k *keeper) recognise(r *role, c *net.UnixConn) {
	pid := fdstore.PeerPid(c)
	if pid <= 0 || pid == r.pid || !k.hasRoot(pid) {
		return
	}
	start, err := exits.StartTime(pid)
	if err != nil {
		return
	}
	pidfd, same := exits.Open(pid, start)
	if !same {
		return
	}
	if n, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, 0); n != 0 || err != nil {
		_ = unix.Close(pidfd) // it has been killed meanwhile
		return
	}
	k.log.Warn("a supervisor that nobody wrote down is taken over", "pid", pid, "another", r.pid)
	if r.pid > 0 {
		_ = unix.Kill(r.pid, unix.SIGKILL)
		if !r.adopted {
			r.retire(r.pid)
		}
	}
	r.pid, r.started, r.since, r.adopted = pid, start, time.Now(), true
	go k.watch(r, pidfd, pid)
	k.save()
	if k.stopping {
		_ = unix.Kill(pid, unix.SIGTERM)
	}
}

// hasRoot tells whether a process has the lock of the exec root (proc_locks(5)).
func (k *keeper) hasRoot(pid int) bool {
	var st unix.Stat_t
	if unix.Stat(filepath.Join(k.execRoot, fdstore.SupervisorLock), &st) != nil {
		return false
	}
	locks, err := os.ReadFile("/proc/locks")
	if err != nil {
		return false
	}
	holder, inode := strconv.Itoa(pid), ":"+strconv.FormatUint(st.Ino, 10)
	for line := range strings.Lines(string(locks)) {
		// A number, kind, type and access, the process, the device with the inode; an arrow comes before those who wait.
		f := strings.Fields(line)
		if len(f) > 5 && f[1] == "FLOCK" && f[4] == holder && strings.HasSuffix(f[5], inode) {
			return true
		}
	}
	return false
}

func (k *keeper) obey(r *role, c *conn, m fdstore.Message) {
	switch m.Op {
	case "put":
		k.replace(r, m.Name, &fdstore.Set{Name: m.Name, Meta: m.Meta, Files: m.Files})
	case "drop":
		k.replace(r, m.Name, nil)
	case "all":
		k.giveAll(r, c)
	case "upgrade":
		k.upgrades <- upgrade{program: m.Name, conn: c}
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
