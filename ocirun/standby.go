package ocirun

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

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
	wanted []chan *spawned
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

// patience is how long one waits for an init if there are as many as may be: to
// start another one takes more of the processors.
const patience = 20 * time.Millisecond

// take returns an init that stands by, or nil.
func (s *standby) take() *spawned {
	s.mu.Lock()
	defer s.mu.Unlock()
	if last := len(s.ready) - 1; last >= 0 {
		got := s.ready[last]
		s.ready = s.ready[:last]
		s.used++
		return got
	}
	if s.closed || s.all < standbys() {
		return nil
	}
	got := make(chan *spawned, 1)
	s.wanted = append(s.wanted, got)
	s.mu.Unlock()
	select {
	case f := <-got:
		s.mu.Lock()
		return f
	case <-time.After(patience):
	}
	s.mu.Lock()
	if i := slices.Index(s.wanted, got); i >= 0 {
		s.wanted = slices.Delete(s.wanted, i, i+1)
		return nil
	}
	return <-got
}

// put makes an init ready; false if it is not wanted any more.
func (s *standby) put(f *spawned) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	if len(s.wanted) > 0 {
		s.wanted[0] <- f
		s.wanted = s.wanted[1:]
		s.used++
		return true
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
		made, err := r.spawnForker()
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

func (r *Runtime) spawnForker() (*spawned, error) {
	word, file, err := newChildWord()
	if err != nil {
		return nil, err
	}
	defer file.Close()
	s, err := r.spawn(&birth{standby: true, extra: []*os.File{file}})
	if err != nil {
		word.close()
		return nil, err
	}
	s.child = word
	return s, nil
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
	f.child.close()
	s.forget()
}

// discard is end in the background.
func (r *Runtime) discard(f *spawned) {
	s := &r.standby
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed { // close may be waiting already
		go s.end(f)
		return
	}
	s.work.Go(func() { s.end(f) })
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
// are made with it; it is alone in its PID namespace.
func forkable(req *CreateRequest, p *plan) bool {
	l, c := req.Spec.Linux, &p.cfg
	return p.userNS == nil && p.clone&unix.CLONE_NEWUSER == 0 && p.clone&unix.CLONE_NEWPID != 0 && !c.Process.Notify &&
		req.StartSocket == nil && !req.SystemdCgroup && l.IntelRdt == nil && len(l.NetDevices) == 0 &&
		req.Spec.Hooks == nil && !limitsMemory(req.Spec.Process)
}

// execForkable tells the same of an exec, which is not alone: who has CAP_SYS_PTRACE
// there could get hold of the memory that it shares.
func execForkable(req *ExecRequest, cfg *wire.Config) bool {
	return !cfg.Process.Notify && !limitsMemory(req.Process) && !traces(req.Process) && !traces(req.Spec.Process)
}

// limitsMemory: a limit on address space or data would hold for memory that is
// another's in part.
func limitsMemory(p *specs.Process) bool {
	return slices.ContainsFunc(p.Rlimits, func(l specs.POSIXRlimit) bool { return l.Type == "RLIMIT_AS" || l.Type == "RLIMIT_DATA" })
}

// traces tells whether processes like p can have CAP_SYS_PTRACE.
func traces(p *specs.Process) bool {
	return p != nil && p.Capabilities != nil && slices.Contains(p.Capabilities.Bounding, "CAP_SYS_PTRACE")
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

// errForkerDied: the init that was to make another one is gone, and what it may
// have made has not begun.
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
		f.child.clear()
		err = f.conn.Send(wire.KindFork, req, fds...)
	}
	runtime.KeepAlive(b)
	if err != nil {
		unix.Close(pair[0])
		return nil, err
	}
	return &spawned{conn: wire.Conn{FD: pair[0]}, forker: f}, nil
}

// born waits until the init is known, which it is at once if nobody forked it.
func (s *spawned) born(ctx context.Context) error {
	if s.forker == nil {
		return nil
	}
	// It cannot be abandoned before: nobody knows it.
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

// reuseAfterEnd lets an init that has told of a failure come to its end before:
// killed, it would take along the one that forked it.
func (r *Runtime) reuseAfterEnd(s *spawned) {
	if s.forker != nil {
		_, _ = unix.Poll([]unix.PollFd{{Fd: int32(s.pidfd.Fd()), Events: unix.POLLIN}}, int(bornInVain.Milliseconds()))
	}
	r.reuse(s)
}

// bornInVain is how long an init that is of no use may take.
const bornInVain = time.Second

// dropForker ends the init that was to make s, and finds out what it has made,
// which may have had no time, or no leave of a frozen cgroup, to tell.
func (r *Runtime) dropForker(s *spawned) {
	f := s.forker
	s.forker = nil
	f.signalKill()
	f.reap()
	// It is there until it is reaped, with a descriptor to be had or not.
	if pid := int(f.child.get()); s.pidfd == nil && pid != 0 && s.know(pid) != nil {
		_ = unix.Kill(pid, unix.SIGKILL)
		_, _ = unix.Wait4(pid, nil, 0, nil)
	}
	r.standby.end(f)
}

// childWord is a word of memory that an init that stands by shares with us. The
// kernel writes the process id of its last child there before that runs.
type childWord struct{ page []byte }

// newChildWord returns it with the file that the init maps.
func newChildWord() (childWord, *os.File, error) {
	fd, err := unix.MemfdCreate("wherry-child", unix.MFD_CLOEXEC)
	if err != nil {
		return childWord{}, nil, fmt.Errorf("memfd_create: %w", err)
	}
	f := os.NewFile(uintptr(fd), "wherry-child")
	if err := f.Truncate(int64(os.Getpagesize())); err != nil {
		return childWord{}, nil, errors.Join(err, f.Close())
	}
	page, err := unix.Mmap(fd, 0, os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return childWord{}, nil, errors.Join(fmt.Errorf("map: %w", err), f.Close())
	}
	return childWord{page}, f, nil
}

func (w childWord) word() *int32 { return (*int32)(unsafe.Pointer(&w.page[0])) }
func (w childWord) get() int32   { return atomic.LoadInt32(w.word()) }
func (w childWord) clear()       { atomic.StoreInt32(w.word(), 0) }
func (w childWord) close()       { _ = unix.Munmap(w.page) }

// hasNamespace tells whether a specification makes or joins one of the type.
func hasNamespace(s *specs.Spec, typ specs.LinuxNamespaceType) bool {
	return slices.ContainsFunc(s.Linux.Namespaces, func(ns specs.LinuxNamespace) bool { return ns.Type == typ })
}
