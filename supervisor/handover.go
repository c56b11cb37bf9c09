package supervisor

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/keeper/fdstore"
	"github.com/wherry-engine/wherry/keeper/successor"
	"github.com/wherry-engine/wherry/task"
)

// What an upgrade leaves with the keeper beside what is there anyway: attached
// connections with all that is on its way through them, and what is known of
// execs that have ended. A supervisor that was killed leaves none of this.

const (
	clientPrefix = "client/"
	handoverSet  = "handover"
	// parkPatience is how long a connection's goroutines may take to stop.
	parkPatience = 3 * time.Second
)

// clientTable is every connection that belongs to a process.
type clientTable struct {
	mu sync.Mutex
	m  map[*client]struct{}
}

func (t *clientTable) add(c *client) {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.m == nil {
		t.m = map[*client]struct{}{}
	}
	t.m[c] = struct{}{}
}

func (t *clientTable) remove(c *client) {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.m, c)
}

func (t *clientTable) list() []*client {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := make([]*client, 0, len(t.m))
	for c := range t.m {
		all = append(all, c)
	}
	return all
}

// clientSet describes a connection to the next supervisor. The second
// descriptor, if there is one, holds Input bytes for the process, then output
// for the client.
type clientSet struct {
	Task     string             `json:"task"`
	Exec     string             `json:"exec,omitempty"`
	Req      task.AttachRequest `json:"req"`
	Owner    bool               `json:"owner,omitempty"`
	Ending   bool               `json:"ending,omitempty"`
	ReadDone bool               `json:"readDone,omitempty"`
	Keys     int                `json:"keys,omitempty"`
	Input    int                `json:"input,omitempty"`
}

// handover is what else only this process knows.
type handover struct {
	Epoch    uint64 `json:"epoch"`
	Upgraded bool   `json:"upgraded"`
	// Execs have ended, oldest first.
	Execs []task.ExecStatus `json:"execs,omitempty"`
}

func (c *client) isParked() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.parked
}

// park stops reading from the client and writing to it.
func (c *client) park() error {
	c.mu.Lock()
	c.parked = true
	c.mu.Unlock()
	past := time.Unix(1, 0)
	_ = c.f.SetDeadline(past) // of a dead one: closed
	c.set.deadline(past)
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.running.Wait()
	}()
	late := time.NewTimer(parkPatience)
	defer late.Stop()
	select {
	case <-done:
		return nil
	case <-late.C:
		return errors.New("an attached connection does not stop")
	}
}

// unpark goes on.
func (c *client) unpark() {
	c.set.deadline(time.Time{})
	_ = c.f.SetDeadline(time.Time{})
	c.running.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.parked = false
	c.goOnLocked()
}

// goOnLocked starts what the state of the client calls for.
func (c *client) goOnLocked() {
	if c.dead {
		return
	}
	if !c.readDone {
		c.running.Go(c.read)
	} else if c.hup == 0 {
		c.watchHangUp()
	}
	if len(c.queue) > 0 {
		c.drainLocked()
	} else if c.ending {
		c.hangUp()
	}
}

// deadline makes writing to the process's input end, or lasts as long as it takes.
func (s *ioset) deadline(t time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.input != nil {
		_ = s.input.SetWriteDeadline(t)
	}
}

// leave gives a parked client to the keeper under a name.
func (c *client) leave(k keeperStore, name string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dead {
		return nil
	}
	meta := clientSet{
		Task: c.set.task, Exec: c.set.exec, Req: c.req, Owner: c.owner, Ending: c.ending, ReadDone: c.readDone, Input: len(c.pending),
	}
	if c.keys != nil {
		meta.Keys = c.keys.have
	}
	content := append([]byte(nil), c.pending...)
	if len(c.req.Buffered) > 0 { // not looked at yet: the next one has not either
		content = append(content, c.req.Buffered...)
		meta.Input += len(c.req.Buffered)
		meta.Req.Buffered = nil
	}
	for _, p := range c.queue {
		content = append(content, p...)
	}
	if len(content) == 0 {
		k.put(name, meta, c.fd)
		return nil
	}
	f, err := successor.Memory("wherry-client", content)
	if err != nil {
		return err
	}
	defer f.Close()
	k.put(name, meta, c.fd, int(f.Fd()))
	return nil
}

// leaveClients gives all connections and the rest to the keeper, and returns
// how many sets that are.
func (s *Supervisor) leaveClients() ([]string, error) {
	var names []string
	for i, c := range s.clients.list() {
		name := fmt.Sprintf("%s%d", clientPrefix, i)
		if err := c.leave(s.keep, name); err != nil {
			return names, err
		}
		names = append(names, name)
	}
	s.mu.Lock()
	h := handover{Epoch: s.epoch, Upgraded: true}
	s.mu.Unlock()
	for _, t := range s.list() {
		t.mu.Lock()
		for _, id := range t.order {
			if e := t.execs[id]; e != nil {
				h.Execs = append(h.Execs, e.status())
			}
		}
		t.mu.Unlock()
	}
	b, err := json.Marshal(h)
	if err != nil {
		return names, err
	}
	f, err := successor.Memory("wherry-handover", b)
	if err != nil {
		return names, err
	}
	defer f.Close()
	s.keep.put(handoverSet, nil, int(f.Fd()))
	return append(names, handoverSet), nil
}

// left is what an upgrade has left, for recover.
type left struct {
	clients map[string][]leftClient // by task and exec
	handover
}

type leftClient struct {
	meta    clientSet
	fd      int
	content []byte
}

func processKey(id, execID string) string { return id + "/" + execID }

// takeHandover takes over what an upgrade has left.
func (s *Supervisor) takeHandover(sets map[string]*fdstore.Set) *left {
	l := &left{clients: map[string][]leftClient{}}
	for name, set := range sets {
		switch {
		case name == handoverSet:
			if b, err := readMemory(set, 0); err != nil || json.Unmarshal(b, &l.handover) != nil {
				s.log.Error("cannot read what the supervisor before knew", "err", err)
			}
		case strings.HasPrefix(name, clientPrefix):
			c := leftClient{fd: -1}
			var err error
			if err = json.Unmarshal(set.Meta, &c.meta); err == nil && len(set.Files) > 1 {
				c.content, err = readMemory(set, 1)
			}
			if err != nil || len(set.Files) == 0 || c.meta.Input > len(c.content) {
				s.log.Error("cannot go on with an attached connection", "err", err)
				break
			}
			c.fd, set.Files[0] = set.Files[0], -1
			key := processKey(c.meta.Task, c.meta.Exec)
			l.clients[key] = append(l.clients[key], c)
		default:
			continue
		}
		s.keep.drop(name)
	}
	return l
}

// readMemory reads the memory file that is descriptor i of a set, and closes it.
func readMemory(set *fdstore.Set, i int) ([]byte, error) {
	if len(set.Files) <= i {
		return nil, errors.New("a descriptor is missing")
	}
	f := os.NewFile(uintptr(set.Files[i]), "memory")
	set.Files[i] = -1
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	return io.ReadAll(io.NewSectionReader(f, 0, fi.Size()))
}

// rejoin goes on with the connections of a process.
func (s *Supervisor) rejoin(l *left, set *ioset) {
	if l == nil {
		return
	}
	key := processKey(set.task, set.exec)
	for _, lc := range l.clients[key] {
		if err := s.rejoinOne(lc, set); err != nil {
			s.log.Error("cannot go on with an attached connection", "task", set.task, "err", err)
		}
	}
	delete(l.clients, key)
}

// rejoinRest goes on with the connections whose processes have ended: they get
// what is left for them.
func (s *Supervisor) rejoinRest(l *left) {
	for _, list := range l.clients {
		for _, lc := range list {
			ended := newIOSet(s.poll, task.Stdio{}, &pipes{stdin: -1, stdout: -1, stderr: -1}, nil)
			ended.ended, ended.all, ended.work = true, &s.clients, &s.work
			lc.meta.Ending = true
			if err := s.rejoinOne(lc, ended); err != nil {
				s.log.Error("cannot finish an attached connection", "task", lc.meta.Task, "err", err)
			}
		}
	}
	l.clients = nil
}

func (s *Supervisor) rejoinOne(lc leftClient, set *ioset) error {
	c, err := newClient(lc.fd, lc.meta.Req, lc.meta.Owner)
	if err != nil {
		return err
	}
	if c.keys != nil && lc.meta.Keys < len(c.keys.keys) {
		c.keys.have = lc.meta.Keys
	}
	c.pending = lc.content[:lc.meta.Input]
	if out := lc.content[lc.meta.Input:]; len(out) > 0 {
		c.queue, c.queued = [][]byte{out}, len(out)
	}
	c.set, c.ending, c.readDone = set, lc.meta.Ending, lc.meta.ReadDone
	s.clients.add(c)
	if !c.ending {
		set.attach(c)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.goOnLocked()
	return nil
}

// rememberExecs enters the execs that have ended.
func (s *Supervisor) rememberExecs(l *left) {
	for _, st := range l.Execs {
		t, err := s.get(st.ID)
		if err != nil {
			continue
		}
		t.mu.Lock()
		if t.execs == nil {
			t.execs = map[string]*execEntry{}
		}
		if t.execs[st.ExecID] == nil {
			e := &execEntry{t: t, id: st.ExecID, code: st.ExitCode, done: true, pidfd: -1}
			t.execs[e.id] = e
			t.rememberLocked(e)
		}
		t.mu.Unlock()
	}
}

// reapOthers waits for children that are nobody's task, such as those that a
// program before had started for its own purposes.
func (s *Supervisor) reapOthers() {
	known := map[int]bool{}
	for _, t := range s.list() {
		t.mu.Lock()
		known[t.st.Pid] = true
		for _, e := range t.execs {
			known[e.pid] = true
		}
		t.mu.Unlock()
	}
	for _, pid := range children() {
		if known[pid] {
			continue
		}
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			continue
		}
		var tok token
		ready := make(chan struct{})
		tok, err = s.poll.add(fd, unix.EPOLLIN, func(uint32) {
			<-ready
			var ws unix.WaitStatus
			_, _ = unix.Wait4(pid, &ws, unix.WALL|unix.WNOHANG, nil)
			s.poll.remove(fd, tok)
			_ = unix.Close(fd)
		})
		close(ready)
		if err != nil {
			_ = unix.Close(fd)
		}
	}
}

// children are the pids of our own.
func children() (pids []int) {
	threads, _ := os.ReadDir("/proc/self/task")
	for _, th := range threads {
		b, err := os.ReadFile("/proc/self/task/" + th.Name() + "/children")
		if err != nil {
			continue
		}
		for _, f := range strings.Fields(string(b)) {
			pid := 0
			if _, err := fmt.Sscan(f, &pid); err == nil {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}
