// Package supervisor is the parent of all containers of one daemon: it starts
// them through ocirun, holds their streams, writes their logs, serves attached
// clients, collects exit codes and restarts what is to be restarted, whether
// the daemon is there or not. The daemon talks to it as package task says.
//
// Everything it must not lose lies outside of it: start requests and outcomes
// in the exec root (see journal), duplicates of descriptors with the keeper.
// Killed at any moment and started again it goes on where it was.
package supervisor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"

	"github.com/containerd/errdefs"

	"github.com/wherry-engine/wherry/task"
)

// Socket is the supervisor's socket below the exec root.
const Socket = "supervisor.sock"

// hidden is its name while another program is about to be executed.
const hidden = Socket + ".hidden"

// options of a Supervisor.
type options struct {
	execRoot, dataRoot string
	log                *slog.Logger
	rt                 runtime
}

// Supervisor is the process's state.
type Supervisor struct {
	options
	poll    *poller
	keep    *keeperLink
	journal *journal
	events  *eventLog
	spool   *spool
	roots   *roots
	waits   *waits
	seccomp *profileCache

	mu    sync.Mutex
	tasks map[string]*taskEntry
	epoch uint64
	// lagging are the channels closed when what is left of a task's last life
	// is cleaned up, by ID; the task itself may be gone.
	lagging map[string]chan struct{}
	// closing refuses new tasks: the helpers end.
	closing bool
	// replaced: a supervisor before us has been killed.
	replaced bool
	conns    map[*conn]struct{}

	// work is what an upgrade waits for; clients are all connections.
	work      gate
	clients   clientTable
	upgrading sync.Mutex // one at a time

	// cleaning counts what goes on behind tasks that have ended.
	cleaning sync.WaitGroup
}

func newSupervisor(o options) (*Supervisor, error) {
	s := &Supervisor{options: o, tasks: map[string]*taskEntry{}, lagging: map[string]chan struct{}{}, conns: map[*conn]struct{}{}, seccomp: newProfileCache()}
	var err error
	if s.poll, err = newPoller(); err != nil {
		return nil, fmt.Errorf("epoll: %w", err)
	}
	if s.journal, err = openJournal(o.execRoot); err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	if s.events, err = openEventLog(o.execRoot); err != nil {
		return nil, fmt.Errorf("event log: %w", err)
	}
	s.keep = &keeperLink{s: s, exited: newExitTable()}
	s.roots = &roots{rt: o.rt, keep: s.keep, m: map[string]*root{}}
	s.waits = &waits{poll: s.poll, keep: s.keep, m: map[string][]*wait{}}
	return s, nil
}

// run serves until the context ends.
func (s *Supervisor) run(ctx context.Context, ready func()) error {
	ctx, s.keep.ended = context.WithCancel(ctx)
	defer s.keep.ended()
	go func() {
		if err := s.poll.run(); err != nil {
			s.log.Error("poller", "err", err)
			os.Exit(1) // the keeper starts another
		}
	}()
	if err := s.keep.connect(ctx); err != nil {
		return fmt.Errorf("keeper: %w", err)
	}
	if err := s.recover(ctx); err != nil {
		return fmt.Errorf("recover: %w", err)
	}
	l, err := s.listen()
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	ready()
	for {
		c, err := l.AcceptUnix()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		go newConn(ctx, s, c).serve()
	}
}

// listen replaces the socket in one step: who finds it finds us serving.
func (s *Supervisor) listen() (*net.UnixListener, error) {
	path := filepath.Join(s.execRoot, Socket)
	tmp := path + ".new"
	_ = os.Remove(tmp)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: tmp, Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false)
	_ = os.Remove(filepath.Join(s.execRoot, hidden)) // that of the program before
	if err := errors.Join(os.Chmod(tmp, 0o600), os.Rename(tmp, path)); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// hide takes the socket away, and show brings it back. Who connected to a
// program that is about to be replaced would be cut off: the kernel closes our
// descriptors one by one, the listener perhaps after the connection whose end
// the daemon waits for.
func (s *Supervisor) hide() error { return s.renameSocket(Socket, hidden) }

func (s *Supervisor) show() error { return s.renameSocket(hidden, Socket) }

func (s *Supervisor) renameSocket(from, to string) error {
	return os.Rename(filepath.Join(s.execRoot, from), filepath.Join(s.execRoot, to))
}

// get returns a task.
func (s *Supervisor) get(id string) (*taskEntry, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.tasks[id]
	if t == nil {
		return nil, fmt.Errorf("no task %s: %w", id, errdefs.ErrNotFound)
	}
	return t, nil
}

func (s *Supervisor) list() []*taskEntry {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]*taskEntry, 0, len(s.tasks))
	for _, t := range s.tasks {
		all = append(all, t)
	}
	return all
}

// hello makes the caller the owner.
func (s *Supervisor) hello() task.Inventory {
	s.mu.Lock()
	s.epoch++
	inv := task.Inventory{Protocol: task.Protocol, Epoch: s.epoch, SupervisorPid: os.Getpid(), KeeperPid: s.keep.pid(), Replaced: s.replaced}
	s.replaced = false // once told
	s.mu.Unlock()
	for _, t := range s.list() {
		st, execs := t.snapshot()
		if st.State == "" {
			continue // being started; the answer goes to whoever asked
		}
		inv.Tasks = append(inv.Tasks, st)
		inv.Execs = append(inv.Execs, execs...)
	}
	for _, id := range s.waits.old() {
		if _, err := s.get(id); err != nil {
			inv.Waits = append(inv.Waits, id)
		}
	}
	return inv
}

func (s *Supervisor) checkEpoch(e uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e != s.epoch {
		return fmt.Errorf("another daemon took over this supervisor: %w", errdefs.ErrFailedPrecondition)
	}
	return nil
}

// emit records an event.
func (s *Supervisor) emit(e task.Event) {
	if err := s.events.add(e); err != nil {
		s.log.Error("cannot record an event", "task", e.Status.ID, "err", err)
	}
}
