package ocirun

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/ocirun/wire"
)

// standby keeps inits that have started and fork others, so that neither a
// container nor an exec has to wait for a Go program to start, or pay for it. Each
// makes one at a time, from the request until the program runs.
type standby struct {
	mu     sync.Mutex
	ready  []*spawned // the last one was used last, and its memory is warm
	all    int        // with those being started and those at work
	closed bool
	used   int // by tests
	work   sync.WaitGroup
	idle   *time.Timer // discards those that nobody takes
}

// keepStandby is how long inits stand by for work that does not come. Health
// checks are mostly half a minute apart.
const keepStandby = 45 * time.Second

// standbys is how many inits there are at most: more would not work faster.
func standbys() int { return min(2*runtime.GOMAXPROCS(0), 16) }

// take returns an init that stands by, or nil.
func (s *standby) take() *spawned {
	s.mu.Lock()
	defer s.mu.Unlock()
	last := len(s.ready) - 1
	if last < 0 {
		return nil
	}
	got := s.ready[last]
	s.ready = s.ready[:last]
	s.used++
	return got
}

// put makes an init ready; false if it is not wanted any more.
func (s *standby) put(f *spawned) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.ready = append(s.ready, f)
	if s.idle == nil {
		s.idle = time.AfterFunc(keepStandby, s.dismiss)
	} else {
		s.idle.Reset(keepStandby)
	}
	return true
}

// refill starts another one in the background: somebody wanted one in vain.
func (r *Runtime) refill() {
	s := &r.standby
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.all >= standbys() {
		return
	}
	s.all++
	s.work.Go(func() {
		made, err := r.spawn(&birth{standby: true})
		if err != nil {
			r.log.Debug("no init stands by", "err", err)
			s.forget()
			return
		}
		if !s.put(made) {
			s.end(made)
		}
	})
}

func (s *standby) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all--
}

// dismiss ends all that stand by.
func (s *standby) dismiss() {
	s.mu.Lock()
	ready := s.ready
	s.ready = nil
	s.mu.Unlock()
	for _, f := range ready {
		s.end(f)
	}
}

// end ends one of them, which is idle or works in vain.
func (s *standby) end(f *spawned) {
	unix.Close(f.conn.FD)
	f.signalKill()
	f.reap()
	f.pidfd.Close()
	s.forget()
}

// discard is end in the background.
func (r *Runtime) discard(f *spawned) {
	r.standby.work.Go(func() { r.standby.end(f) })
}

func (s *standby) close() {
	s.mu.Lock()
	s.closed = true
	if s.idle != nil {
		s.idle.Stop()
	}
	s.mu.Unlock()
	s.dismiss()
	s.work.Wait()
}

// forkable tells whether another init can fork that of a container: not if it is
// one of several threads or starts other programs, and only into namespaces that
// are made with it.
func forkable(req *CreateRequest, p *plan) bool {
	l, c := req.Spec.Linux, &p.cfg
	return p.userNS == nil && p.clone&unix.CLONE_NEWUSER == 0 && !c.Process.Notify &&
		req.StartSocket == nil && !req.SystemdCgroup && l.IntelRdt == nil && len(l.NetDevices) == 0 &&
		req.Spec.Hooks == nil
}

// forks tells whether a birth is one by a fork. The namespaces that exist are to
// be entered by the child, but for that of its process id.
func (b *birth) forks() bool {
	for _, ns := range b.enter {
		if ns.flag != unix.CLONE_NEWPID {
			return false
		}
	}
	return b.fork && !b.raw() && !b.newTime && len(b.affinity) == 0 && len(b.extra) == 0 && len(b.enter) <= 1
}

// errForkerDied: the init that was to make another one is gone; nothing was made.
var errForkerDied = errors.New("the init that stood by died")

// fork has an init that stands by make another one. It returns nil if there is
// none, and starts one for the next time.
func (r *Runtime) fork(b *birth) (*spawned, error) {
	if r.noStandby || !b.forks() {
		return nil, nil
	}
	f := r.standby.take()
	if f == nil {
		r.refill()
		return nil, nil
	}
	s, err := r.forkBy(f, b)
	if err != nil {
		r.discard(f)
	}
	if errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET) {
		return nil, nil // somebody killed it
	}
	return s, err
}

func (r *Runtime) forkBy(f *spawned, b *birth) (*spawned, error) {
	pair, err := socketPair()
	if err != nil {
		return nil, err
	}
	defer unix.Close(pair[1])
	req := &wire.Fork{Flags: uint64(b.clone)}
	fds := make([]int, 0, wire.ForkFDs+2)
	fds = append(fds, pair[1])
	for _, s := range b.stdio {
		if s == nil {
			s = r.null
		}
		fds = append(fds, int(s.Fd()))
	}
	if len(b.enter) > 0 {
		req.PidNS = true
		fds = append(fds, b.enter[0].fd)
	}
	cg := -1
	if b.cgroup != "" {
		cg, err = r.cgroups.OpenUnified(b.cgroup)
	}
	if cg >= 0 {
		req.Cgroup = true
		fds = append(fds, cg)
		defer unix.Close(cg)
	}
	if err == nil {
		err = f.conn.Send(wire.KindFork, req, fds...)
	}
	runtime.KeepAlive(b)
	if err != nil {
		unix.Close(pair[0])
		return nil, err
	}
	return &spawned{conn: wire.Conn{FD: pair[0]}, forker: f, cgroup: b.cgroup}, nil
}

// born waits until the init is known, which it is at once if nobody forked it.
func (s *spawned) born(ctx context.Context) error {
	if s.forker == nil {
		return nil
	}
	// It cannot be abandoned before, as nobody could reap it.
	if err := s.awaitInput(ctx); err != nil {
		return err
	}
	msg, err := s.conn.Receive()
	if errors.Is(err, io.EOF) {
		return errForkerDied
	}
	if err == nil {
		err = s.enroll(msg)
	}
	return err
}

// awaitInput waits for a message, and gives up only a while after ctx has ended.
func (s *spawned) awaitInput(ctx context.Context) error {
	for {
		ended := ctx.Err()
		poll := []unix.PollFd{{Fd: int32(s.conn.FD), Events: unix.POLLIN}}
		n, err := unix.Poll(poll, int(bornInVain.Milliseconds()))
		switch {
		case n > 0:
			return nil
		case err != nil && !errors.Is(err, unix.EINTR):
			return err
		case err == nil && ended != nil:
			return ended
		}
	}
}

// enroll reads a message Forked.
func (s *spawned) enroll(msg *wire.Message) error {
	if err := failureOf(msg); err != nil {
		return err
	}
	var f wire.Forked
	if err := msg.Decode(&f); err != nil || msg.Kind != wire.KindForked {
		return fmt.Errorf("init sent an unexpected message %d (%w)", msg.Kind, err)
	}
	return s.know(int(f.Pid))
}

// know notes the process id of our child, which is not reaped yet: the number
// cannot mean another process.
func (s *spawned) know(pid int) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return fmt.Errorf("open init %d: %w", pid, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pid, s.pidfd = pid, os.NewFile(uintptr(fd), "pidfd")
	if s.abandoned {
		s.abandonLocked()
	}
	return nil
}

// reuse lets the init that forked s go on with other work.
func (r *Runtime) reuse(s *spawned) {
	if s.forker == nil {
		return
	}
	if !r.standby.put(s.forker) {
		r.discard(s.forker)
	}
	s.forker = nil
}

// failed lets an init that has told of a failure come to its end: killed, it would
// take along the one that forked it.
func (s *spawned) failed() {
	if s.forker != nil {
		_, _ = unix.Poll([]unix.PollFd{{Fd: int32(s.pidfd.Fd()), Events: unix.POLLIN}}, int(bornInVain.Milliseconds()))
	}
}

// bornInVain is how long an init that is of no use may take to make itself known.
const bornInVain = time.Second

// dropForker ends the init that was to make s, and finds out what it has made.
func (r *Runtime) dropForker(s *spawned) {
	r.standby.end(s.forker)
	s.forker = nil
	if s.pidfd != nil {
		return
	}
	// The first thing it does; it comes to that, except in a frozen cgroup.
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	if s.awaitInput(ended) == nil {
		if msg, err := s.conn.Receive(); err == nil {
			_ = s.enroll(msg)
		}
		return
	}
	if s.cgroup == "" {
		return
	}
	pids, _ := r.cgroups.Pids(s.cgroup)
	for _, pid := range pids {
		if r.isInit(pid) && s.know(pid) == nil {
			return
		}
	}
}

// isInit tells whether a process is an init of ours that has not become the
// user's program.
func (r *Runtime) isInit(pid int) bool {
	dir := "/proc/" + strconv.Itoa(pid)
	exe, err := os.Readlink(dir + "/exe")
	if err != nil || !strings.HasPrefix(exe, "/memfd:wherry-runtime") {
		return false
	}
	stat, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return false
	}
	// PID (COMM) STATE PPID ..., see proc_pid_stat(5).
	_, rest, _ := strings.Cut(string(stat), ") ")
	f := strings.Fields(rest)
	return len(f) > 1 && f[1] == strconv.Itoa(os.Getpid())
}

// hasNamespace tells whether a specification makes or joins one of the type.
func hasNamespace(s *specs.Spec, typ specs.LinuxNamespaceType) bool {
	for i := range s.Linux.Namespaces {
		if s.Linux.Namespaces[i].Type == typ {
			return true
		}
	}
	return false
}
