package supervisor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/keeper/successor"
	"github.com/wherry-engine/wherry/task/wire"
)

const (
	// stateVersion is that of everything a supervisor leaves for the next one: the
	// journal, the event log, the sets of the keeper, the spool. oldestState is
	// the oldest it goes on with.
	stateVersion = 1
	oldestState  = 1

	// workPatience is how long what is under way may take to end before an
	// upgrade is given up, logPatience how long a log may take to be written.
	workPatience = 10 * time.Second
	logPatience  = 5 * time.Second
)

// upgrade handles an Upgrade request: the keeper and net first, which do not
// need us for it, then we. All is ready to be handed over when it returns; the
// program is executed once the answer is on its way. The caller holds upgrading
// until then.
func (c *conn) upgrade(ctx context.Context, program string) wire.Upgraded {
	s := c.s
	var up wire.Upgraded
	for _, o := range append(s.keep.upgrade(ctx, program), s.prepareUpgrade(ctx, c, program)) {
		up.Helpers = append(up.Helpers, wire.UpgradedHelper(o))
		switch {
		case o.Refused != "":
			s.log.Error("a helper goes on as the older build", "role", o.Helper, "why", o.Refused)
		case o.Replaced:
			s.log.Info("a helper is replaced by another build", "role", o.Helper, "program", program)
		}
	}
	return up
}

func (s *Supervisor) prepareUpgrade(ctx context.Context, c *conn, program string) successor.Outcome {
	o := successor.Outcome{Helper: role}
	same, err := successor.Runs(0, program)
	if err == nil && !same {
		err = successor.Ask(ctx, program, role, stateVersion)
	}
	if err != nil || same {
		if err != nil {
			o.Refused = err.Error()
		}
		return o
	}
	if err := s.freeze(c); err != nil {
		o.Refused = err.Error()
		return o
	}
	if err := s.hide(); err != nil {
		s.goOn()
		o.Refused = err.Error()
		return o
	}
	c.successor = program
	o.Replaced = true
	return o
}

// freeze brings everything to a point from which another program can go on,
// or back if that does not succeed in time.
func (s *Supervisor) freeze(except *conn) (err error) {
	defer func() {
		if err != nil {
			s.goOn()
		}
	}()
	s.cancelWaits(except)
	s.work.shut.Store(true)
	for _, c := range s.clients.list() {
		c.flush() // nobody shall wait for a slow one
	}
	if !s.work.close(workPatience) {
		return errors.New("something under way does not end: " + s.stuck())
	}
	for _, c := range s.clients.list() {
		if err := c.park(); err != nil {
			return err
		}
	}
	for _, t := range s.list() {
		if err := t.settle(); err != nil {
			return err
		}
	}
	s.keep.dropNow()
	names, err := s.leaveClients()
	if err != nil {
		return err
	}
	return s.keep.confirm(names)
}

// goOn undoes freeze.
func (s *Supervisor) goOn() {
	for _, c := range s.clients.list() {
		if c.isParked() {
			c.unpark()
		}
	}
	s.dropHandover()
	s.work.open()
	for _, t := range s.list() {
		t.mu.Lock()
		sets := []*ioset{t.io}
		for _, e := range t.execs {
			sets = append(sets, e.io)
		}
		t.mu.Unlock()
		for _, set := range sets {
			if set != nil {
				set.sink.unsettle()
				set.resume()
			}
		}
	}
}

// become executes the program. It returns if that fails, and all goes on.
func (s *Supervisor) become(program string) {
	err := successor.Become(program, role, []string{"--exec-root", s.execRoot, "--data-root", s.dataRoot}, nil)
	s.log.Error("cannot become another build", "program", program, "err", err)
	if err := s.show(); err != nil {
		s.log.Error("cannot be reached any more", "err", err)
		os.Exit(1) // the keeper starts another
	}
	s.goOn()
}

// cancelWaits ends the requests that wait for something, such as a stop.
func (s *Supervisor) cancelWaits(except *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		c.mu.Lock()
		for _, stop := range c.pending {
			if c != except {
				stop()
			}
		}
		c.mu.Unlock()
	}
}

// stuck names what an upgrade waited for in vain, as far as it is known.
func (s *Supervisor) stuck() string {
	for _, t := range s.list() {
		t.mu.Lock()
		set := t.io
		t.mu.Unlock()
		if set != nil && set.sink.isStalled() {
			return fmt.Sprintf("the log of container %.12s cannot be written at the moment", t.id)
		}
	}
	return "a request, or the end of a container"
}

// settle writes down what only memory holds of a running task.
func (t *taskEntry) settle() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.io == nil {
		return nil
	}
	if err := t.io.sink.settle(); err != nil {
		return fmt.Errorf("the log of container %.12s: %w", t.id, err)
	}
	t.saveLocked()
	return nil
}

// confirm makes sure that the keeper has the sets: messages are taken in order,
// but not at once.
func (k *keeperLink) confirm(names []string) error {
	sets, err := k.all()
	if err != nil {
		return err
	}
	have := map[string]bool{}
	for _, set := range sets {
		have[set.Name] = true
		for _, fd := range set.Files {
			_ = unix.Close(fd)
		}
	}
	for _, name := range names {
		if !have[name] {
			return fmt.Errorf("the keeper did not take %s", name)
		}
	}
	return nil
}

// dropHandover takes back what leaveClients gave.
func (s *Supervisor) dropHandover() {
	sets, err := s.keep.all()
	if err != nil {
		return // the next keeper is not given these
	}
	for _, set := range sets {
		for _, fd := range set.Files {
			_ = unix.Close(fd)
		}
		if set.Name == handoverSet || strings.HasPrefix(set.Name, clientPrefix) {
			s.keep.drop(set.Name)
		}
	}
}
