package ocirun

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/ocirun/wire"
)

// standby keeps inits that have started and wait for a configuration, so that
// an exec need not wait for a Go program to start.
type standby struct {
	mu     sync.Mutex
	ready  []*spawned
	making int
	closed bool
	used   int // by tests
	work   sync.WaitGroup
	idle   *time.Timer // discards those that nobody takes
}

const (
	// standbys is how many inits stand by once there was an exec: the next one
	// often follows at once.
	standbys = 2
	// lingering is how long an init stays after its process runs: ending and
	// starting another one would take time from that process, and from the next
	// exec. It is the shorter one if no other stands by for that.
	lingering      = 20 * time.Millisecond
	shortLingering = 4 * time.Millisecond
	// keepStandby is how long inits stand by for an exec that does not come.
	// Health checks are mostly half a minute apart.
	keepStandby = 45 * time.Second
)

// take returns an init that stands by, or nil.
func (s *standby) take() *spawned {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.ready) == 0 {
		return nil
	}
	got := s.ready[0]
	s.ready = s.ready[1:]
	s.used++
	return got
}

func (s *standby) empty() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.ready) == 0
}

// refill starts others in the background.
func (r *Runtime) refill() {
	s := &r.standby
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || r.noStandby {
		return
	}
	for ; len(s.ready)+s.making < standbys; s.making++ {
		s.work.Go(func() {
			made, err := r.spawn(&birth{standby: true})
			s.mu.Lock()
			defer s.mu.Unlock()
			s.making--
			switch {
			case err != nil:
				r.log.Debug("no init stands by", "err", err)
			case s.closed:
				made.discard()
			default:
				s.ready = append(s.ready, made)
				if s.idle == nil {
					s.idle = time.AfterFunc(keepStandby, s.dismiss)
				} else {
					s.idle.Reset(keepStandby)
				}
			}
		})
	}
}

// dismiss ends all that stand by.
func (s *standby) dismiss() {
	s.mu.Lock()
	ready := s.ready
	s.ready = nil
	s.mu.Unlock()
	for _, init := range ready {
		init.discard()
	}
}

func (s *standby) close() {
	s.mu.Lock()
	s.closed = true
	if s.idle != nil {
		s.idle.Stop()
	}
	s.mu.Unlock()
	s.dismiss()
	// One that is frozen in a paused container ends when that is resumed.
	done := make(chan struct{})
	go func() {
		s.work.Wait()
		close(done)
	}()
	t := time.NewTimer(closeTimeout)
	defer t.Stop()
	select {
	case <-done:
	case <-t.C:
	}
}

const closeTimeout = time.Second

// discard ends an init and forgets it.
func (s *spawned) discard() {
	unix.Close(s.conn.FD)
	s.kill()
	s.pidfd.Close()
}

// errNoFork: another way is to be taken.
var errNoFork = errors.New("no init forks here")

// execByFork runs the process through the init that stands by, or else one
// that is started now, outside of the container. (This process must not put a
// thread of its own into a cgroup whose processor time may be used up: it would
// stand still with locks of the Go runtime.) It returns errNoFork for what an
// init in the container has to do, and if the one standing by had died.
func (r *Runtime) execByFork(ctx context.Context, req *ExecRequest, cfg *wire.Config) (*Process, error) {
	if cfg.UserNS || len(req.ExtraFiles) > 0 || !forkable(req, cfg) {
		return nil, errNoFork
	}
	if r.cgroups.V2 {
		// Cloned into a frozen cgroup, the process would stop before anybody
		// knows of it, and outlive the init if the exec is given up: unreaped, it
		// keeps the container's first process from ending.
		if err := r.thawed(req.Cgroup); err != nil {
			return nil, fmt.Errorf("exec: %w", err)
		}
	}
	s := r.standby.take()
	if s == nil {
		var err error
		if s, err = r.spawn(&birth{}); err != nil {
			return nil, fmt.Errorf("exec: %w", err)
		}
	}
	defer r.release(s)
	stop := s.watch(ctx)
	defer stop()
	fds, closeFDs, err := r.forkConfig(req, cfg)
	if err != nil {
		_ = unix.PidfdSendSignal(int(s.pidfd.Fd()), unix.SIGKILL, nil, 0)
		return nil, err
	}
	err = s.send(wire.KindConfig, cfg, fds...)
	closeFDs()
	runtime.KeepAlive(req)
	if err != nil {
		_ = unix.PidfdSendSignal(int(s.pidfd.Fd()), unix.SIGKILL, nil, 0)
		return nil, fmt.Errorf("configure exec: %w", err)
	}
	return s.forked(ctx)
}

// release lets an init go that has done its work, a little later, and has
// another one take its place.
func (r *Runtime) release(s *spawned) {
	r.standby.work.Add(1)
	delay := lingering
	if r.standby.empty() {
		delay = shortLingering
	}
	time.AfterFunc(delay, func() {
		defer r.standby.work.Done()
		unix.Close(s.conn.FD)
		r.refill()
		s.reap()
		s.pidfd.Close()
	})
}

// forkConfig completes the configuration and lists its descriptors.
func (r *Runtime) forkConfig(req *ExecRequest, cfg *wire.Config) (fds []int, done func(), err error) {
	done = func() {}
	cfg.Fork, cfg.JoinFD, cfg.JoinFlags, cfg.CgroupFD = true, 0, joinable|joinLater, -1
	fds = []int{int(req.PidFD.Fd())}
	for i, f := range []*os.File{req.Stdin, req.Stdout, req.Stderr} {
		if f == nil || req.Process.Terminal {
			f = r.null
		}
		cfg.StdioFD[i] = len(fds)
		fds = append(fds, int(f.Fd()))
	}
	for i := range r.cgroups.All {
		if h := &r.cgroups.All[i]; !h.Unified {
			cfg.CgroupTasks = append(cfg.CgroupTasks, h.Dir(req.Cgroup))
		}
	}
	cg, err := r.cgroups.OpenUnified(req.Cgroup)
	if err != nil {
		return nil, done, err
	}
	if cg >= 0 {
		cfg.CgroupFD = len(fds)
		fds = append(fds, cg)
		done = func() { unix.Close(cg) }
	}
	return fds, done, nil
}

// forked reads what became of the process.
func (s *spawned) forked(ctx context.Context) (*Process, error) {
	msg, err := s.conn.Receive()
	switch {
	case errors.Is(err, io.EOF) && ctx.Err() == nil:
		return nil, errNoFork // it had died before
	case err != nil:
		return nil, errors.Join(ctx.Err(), err)
	case msg.Kind != wire.KindForked:
		if err = failureOf(msg); err == nil {
			err = fmt.Errorf("init sent an unexpected message %d", msg.Kind)
		}
		return nil, err
	}
	var f wire.Forked
	if err := msg.Decode(&f); err != nil || len(msg.FDs) < 1 {
		return nil, fmt.Errorf("init sent a wrong message: %w", err)
	}
	p := &Process{Pid: int(f.Pid), PidFD: os.NewFile(uintptr(msg.FDs[0]), "pidfd")}
	msg.FDs = msg.FDs[1:]
	p.Console = consoleOf(msg)
	if !f.Failed {
		return p, nil
	}
	(&spawned{pid: p.Pid, pidfd: p.PidFD}).kill()
	p.PidFD.Close()
	closeFile(p.Console)
	if msg, err = s.conn.Receive(); err != nil {
		return nil, errors.Join(ctx.Err(), err)
	}
	return nil, failureOf(msg)
}
