package keeper

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/keeper/exits"
	"github.com/wherry-engine/wherry/keeper/fdstore"
	"github.com/wherry-engine/wherry/keeper/successor"
)

const (
	// stateVersion is that of what a keeper leaves when it becomes another
	// program; oldestState is the oldest that is gone on with.
	stateVersion = 1
	oldestState  = 1

	resumeFlag = "resume-fd"
	// quiet is how long connections may take to come to rest.
	quiet = 3 * time.Second
	// Retire is the signal by which net is told that another one takes over.
	Retire = unix.SIGUSR1
	// netState is the version of what net leaves; see package dataplane.
	netState = 1
	// retirement is how long net may take to let go of its sockets.
	retirement = 3 * time.Second
)

// upgrade is a request to become a program.
type upgrade struct {
	program string
	conn    *conn
}

// resumed is what one keeper leaves to the next, which is the same process:
// descriptors keep their numbers.
type resumed struct {
	Version  int                    `json:"version"`
	Listener int                    `json:"listener"`
	Lock     int                    `json:"lock"`
	Roles    map[string]resumedRole `json:"roles"`
	// Strangers are connections that have not said who they are.
	Strangers []int `json:"strangers,omitempty"`
	// Answer is for the supervisor, who asked.
	Answer []successor.Outcome `json:"answer"`
}

type resumedRole struct {
	process
	Adopted bool         `json:"adopted,omitempty"`
	Retired []int        `json:"retired,omitempty"`
	Conn    int          `json:"conn"` // -1: not connected
	Sets    []resumedSet `json:"sets,omitempty"`
}

type resumedSet struct {
	Name  string          `json:"name"`
	Meta  json.RawMessage `json:"meta,omitempty"`
	Files []int           `json:"files,omitempty"`
}

// upgrade replaces net, then the keeper itself. It returns if that fails, or if
// there was nothing to do. Only loop calls it, so nobody is reaped meanwhile.
func (k *keeper) upgrade(u upgrade) {
	out := []successor.Outcome{k.upgradeNet(u.program)}
	own := successor.Outcome{Helper: "keeper"}
	same, err := successor.Runs(0, u.program)
	if err == nil && !same {
		if err = successor.Ask(context.Background(), u.program, "keeper", stateVersion); err == nil {
			err = k.become(u.program, append(out, successor.Outcome{Helper: "keeper", Replaced: true}))
		}
	}
	if err != nil {
		own.Refused = err.Error()
	}
	k.answer(u.conn, append(out, own))
}

func (k *keeper) answer(c *conn, out []successor.Outcome) {
	b, err := json.Marshal(out)
	if err == nil {
		err = c.send(fdstore.Message{Op: "upgraded", Meta: b})
	}
	if err != nil {
		k.log.Warn("cannot tell how the upgrade went", "err", err)
	}
}

// upgradeNet starts another net helper beside the one there is, which lets go
// of everything but the connections that it carries, and ends with them.
func (k *keeper) upgradeNet(program string) successor.Outcome {
	out := successor.Outcome{Helper: "net"}
	k.mu.Lock()
	r := k.roles["net"]
	pid, adopted, c := r.pid, r.adopted, r.conn
	k.mu.Unlock()
	if pid == 0 {
		return out // the next one is started from what is on disk
	}
	same, err := successor.Runs(pid, program)
	if err == nil && !same {
		err = successor.Ask(context.Background(), program, "net", netState)
	}
	if err == nil && !same && c == nil {
		err = errors.New("it is not connected")
	}
	if err != nil || same {
		if err != nil {
			out.Refused = err.Error()
		}
		return out
	}
	if err := unix.Kill(pid, Retire); err != nil {
		out.Refused = err.Error()
		return out
	}
	select {
	case <-c.gone: // it has let go
	case <-time.After(retirement):
		out.Refused = "it does not let go of its sockets; perhaps it is too old to know how"
		return out
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if r.pid == pid {
		if !adopted {
			r.retire(pid)
		}
		r.pid, r.program = 0, program
		k.start(r)
	}
	out.Replaced = true
	return out
}

// become executes the program, which goes on with everything. It returns an
// error, and all is as before.
func (k *keeper) become(program string, answer []successor.Outcome) error {
	k.mu.Lock()
	if k.stopping {
		k.mu.Unlock()
		return errors.New("the helpers are ending")
	}
	parked := make(chan struct{})
	k.parked = parked
	k.mu.Unlock()
	defer func() {
		k.setDeadlines(time.Time{})
		k.mu.Lock()
		k.parked = nil
		k.mu.Unlock()
		close(parked)
	}()
	k.setDeadlines(time.Unix(1, 0))
	if !k.atRest() {
		return errors.New("a helper is in the middle of something")
	}
	st, keep, err := k.describe(answer)
	if err != nil {
		return err
	}
	b, err := json.Marshal(st)
	if err != nil {
		return err
	}
	f, err := successor.Memory("wherry-keeper", b)
	if err != nil {
		return err
	}
	defer f.Close()
	args := []string{"--exec-root", k.execRoot, "--data-root", k.dataRoot, "--" + resumeFlag, strconv.Itoa(int(f.Fd()))}
	return successor.Become(program, "keeper", args, append(keep, int(f.Fd())))
}

// setDeadlines wakes everybody who reads, or lets them read on.
func (k *keeper) setDeadlines(t time.Time) {
	_ = k.listener.SetDeadline(t)
	k.mu.Lock()
	defer k.mu.Unlock()
	for c := range k.conns {
		_ = c.c.SetReadDeadline(t)
	}
}

// atRest waits until no connection is read.
func (k *keeper) atRest() bool {
	for end := time.Now().Add(quiet); time.Now().Before(end); time.Sleep(time.Millisecond) {
		k.mu.Lock()
		busy := 0
		if !k.acceptIdle {
			busy++
		}
		for c := range k.conns {
			if !c.idle {
				busy++
				_ = c.c.SetReadDeadline(time.Unix(1, 0)) // it may have come just now
			}
		}
		k.mu.Unlock()
		if busy == 0 {
			return true
		}
	}
	return false
}

// describe says what there is, and which descriptors hold it.
func (k *keeper) describe(answer []successor.Outcome) (st resumed, keep []int, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	st = resumed{Version: stateVersion, Roles: map[string]resumedRole{}, Answer: answer}
	st.Lock = int(k.lockFile.Fd())
	if st.Listener, err = number(k.listener); err != nil {
		return st, nil, err
	}
	keep = append(keep, st.Lock, st.Listener)
	for c := range k.conns {
		if c.role == nil || c.role.conn != c {
			fd, err := number(c.c)
			if err != nil {
				return st, nil, err
			}
			st.Strangers = append(st.Strangers, fd)
			keep = append(keep, fd)
		}
	}
	for name, r := range k.roles {
		rr := resumedRole{process: process{r.pid, r.started}, Adopted: r.adopted, Conn: -1}
		for pid := range r.retired {
			rr.Retired = append(rr.Retired, pid)
		}
		if r.conn != nil {
			if rr.Conn, err = number(r.conn.c); err != nil {
				return st, nil, err
			}
			keep = append(keep, rr.Conn)
		}
		for _, s := range r.sets {
			rr.Sets = append(rr.Sets, resumedSet(s))
			keep = append(keep, s.Files...)
		}
		st.Roles[name] = rr
	}
	return st, keep, nil
}

// number is the descriptor of a connection or listener, which stays its.
func number(c syscall.Conn) (fd int, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return -1, err
	}
	err = raw.Control(func(n uintptr) { fd = int(n) })
	return fd, err
}

// resume goes on where another program, which this process was, has stopped.
func (k *keeper) resume(fd int) error {
	unix.CloseOnExec(fd)
	f := os.NewFile(uintptr(fd), "resume")
	b, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<40))
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	var st resumed
	if err := json.Unmarshal(b, &st); err != nil {
		return err
	}
	if err := successor.Takes("keeper", st.Version, oldestState, stateVersion); err != nil {
		return err
	}
	unix.CloseOnExec(st.Lock)
	k.lockFile = os.NewFile(uintptr(st.Lock), lockFile)
	defer k.lockFile.Close()
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("become subreaper: %w", err)
	}
	if k.exits, err = exits.NewRecorder(k.execRoot); err != nil {
		return fmt.Errorf("exit records: %w", err)
	}
	lf := os.NewFile(uintptr(st.Listener), "listener")
	l, err := net.FileListener(lf)
	if err = errors.Join(err, lf.Close()); err != nil {
		return err
	}
	k.listener = l.(*net.UnixListener)
	k.listener.SetUnlinkOnClose(false)
	for name, rr := range st.Roles {
		k.resumeRole(name, rr)
	}
	for _, fd := range st.Strangers {
		if uc, err := connOf(fd); err == nil {
			go k.handle(k.newConn(uc, nil))
		}
	}
	k.mu.Lock()
	c := k.roles[supervisor].conn
	k.mu.Unlock()
	if c != nil {
		k.answer(c, st.Answer)
	}
	return k.loop()
}

func (k *keeper) resumeRole(name string, rr resumedRole) {
	r := &role{name: name, pid: rr.Pid, started: rr.Start, since: time.Now(), adopted: rr.Adopted, sets: map[string]fdstore.Set{}, retired: map[int]bool{}}
	for _, pid := range rr.Retired {
		r.retired[pid] = true
	}
	for _, s := range rr.Sets {
		successor.CloseOnExec(s.Files)
		r.sets[s.Name] = fdstore.Set(s)
	}
	k.mu.Lock()
	k.roles[name] = r
	k.mu.Unlock()
	if r.adopted && r.pid > 0 {
		if fd, same := exits.Open(r.pid, r.started); same {
			go k.watch(r, fd, r.pid)
		} else {
			r.pid = 0
		}
	}
	if rr.Conn >= 0 {
		if uc, err := connOf(rr.Conn); err == nil {
			go k.handle(k.newConn(uc, r))
		}
	}
}

// connOf makes a connection of a descriptor that was let through.
func connOf(fd int) (*net.UnixConn, error) {
	f := os.NewFile(uintptr(fd), "helper")
	c, err := net.FileConn(f) // works on a duplicate
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	return c.(*net.UnixConn), nil
}
