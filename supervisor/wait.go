package supervisor

import (
	"fmt"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/task"
)

// waits are the connections of wait requests, by task. They may come before
// the task is started, and stay when it is started again. The keeper has
// duplicates: a wait survives us.
type waits struct {
	poll *poller
	keep keeperStore

	mu sync.Mutex
	m  map[string][]*wait
}

type wait struct {
	cond task.WaitCondition
	fd   int
	tok  token
	set  string // of the keeper
	old  bool   // taken over from an earlier supervisor
}

// waitSet describes a connection to a later supervisor.
type waitSet struct {
	Task string             `json:"task"`
	Cond task.WaitCondition `json:"cond"`
}

const waitPrefix = "wait/"

// add takes a connection. If the client goes away first it is forgotten.
func (ws *waits) add(id string, cond task.WaitCondition, fd int, old bool) error {
	w := &wait{cond: cond, fd: fd, set: fmt.Sprintf("%s%s/%d", waitPrefix, id, nextBatch()), old: old}
	ws.mu.Lock()
	defer ws.mu.Unlock()
	var err error
	w.tok, err = ws.poll.add(fd, unix.EPOLLRDHUP, func(uint32) { ws.gone(id, w) })
	if err != nil {
		return err
	}
	ws.m[id] = append(ws.m[id], w)
	ws.keep.put(w.set, waitSet{id, cond}, fd)
	return nil
}

// old lists the tasks that somebody waits for since before this supervisor.
func (ws *waits) old() []string {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	var ids []string
	for id, l := range ws.m {
		if slices.ContainsFunc(l, func(w *wait) bool { return w.old }) {
			ids = append(ids, id)
		}
	}
	return ids
}

// leaveAll gives a new keeper everything.
func (ws *waits) leaveAll() {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	for id, l := range ws.m {
		for _, w := range l {
			ws.keep.put(w.set, waitSet{id, w.cond}, w.fd)
		}
	}
}

// gone handles a client that hung up.
func (ws *waits) gone(id string, w *wait) {
	if ws.take(id, func(x *wait) bool { return x == w }) != nil {
		_ = unix.Close(w.fd)
	}
}

// take removes the connections that match.
func (ws *waits) take(id string, match func(*wait) bool) []*wait {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	var taken, rest []*wait
	for _, w := range ws.m[id] {
		if match(w) {
			ws.poll.remove(w.fd, w.tok)
			ws.keep.drop(w.set)
			taken = append(taken, w)
		} else {
			rest = append(rest, w)
		}
	}
	if len(rest) == 0 {
		delete(ws.m, id)
	} else {
		ws.m[id] = rest
	}
	return taken
}

// answer tells all waiting clients whose condition is met the exit code. final
// is false if a restart follows.
func (ws *waits) answer(id string, code int, met func(task.WaitCondition) bool) int {
	taken := ws.take(id, func(w *wait) bool { return met(w.cond) })
	for _, w := range taken {
		writeWaitResult(w.fd, code)
	}
	return len(taken)
}

// writeWaitResult sends the body of a wait response in chunked encoding, whose
// head was sent before, and closes the connection.
func writeWaitResult(fd, code int) {
	body := fmt.Sprintf("{\"StatusCode\":%d}\n", code)
	msg := fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(body), body)
	_ = unix.SetNonblock(fd, true)
	// Some tens of bytes fit any socket that nothing else was written to.
	_ = unix.Sendto(fd, []byte(msg), unix.MSG_NOSIGNAL, nil)
	_ = unix.Shutdown(fd, unix.SHUT_WR)
	_ = unix.Close(fd)
}
