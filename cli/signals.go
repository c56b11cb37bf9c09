package cli

import (
	"context"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"github.com/wherry-engine/wherry/internal/caught"
)

// signalError is the cause of a context that a signal cancelled.
type signalError struct{ sig syscall.Signal }

func (e signalError) Error() string { return "terminated by " + e.sig.String() }

// signals delivers what the terminal and others send. Until a session takes
// over with forward, interrupt and terminate cancel the program's context.
type signals struct {
	cancel context.CancelCauseFunc

	mu      sync.Mutex
	ch      chan os.Signal
	all     bool // are caught
	forward func(syscall.Signal)
}

// watch starts delivery. Only what has something to clean up calls it: others
// may as well die of the signal.
func (s *signals) watch() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ch != nil {
		return
	}
	s.ch = make(chan os.Signal, 64)
	s.catch(syscall.SIGINT, syscall.SIGTERM)
	go s.loop() // for the rest of the program
}

// catch sends signals to the channel. Called with mu held.
func (s *signals) catch(list ...syscall.Signal) {
	if caught.Notify(s.ch, list...) == nil {
		return
	}
	for _, n := range list {
		signal.Notify(s.ch, n)
	}
}

// watchAll starts delivery of all signals that a session forwards.
func (s *signals) watchAll() {
	s.watch()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all {
		return
	}
	s.all = true
	s.catch(forwarded()...)
}

func (s *signals) loop() {
	again := 0
	for sig := range s.ch {
		n, ok := sig.(syscall.Signal)
		if !ok {
			continue
		}
		s.mu.Lock()
		forward := s.forward
		s.mu.Unlock()
		switch {
		case forward != nil:
			forward(n)
			continue
		case n == syscall.SIGCONT: // the only one that does not end a program
			continue
		}
		if s.cancel(signalError{n}); again == 2 { // somebody is in a hurry
			os.Exit(128 + int(n))
		}
		again++
	}
}

// take sends all signals that a session forwards to f from now on. The returned
// function gives them back.
func (s *signals) take(f func(syscall.Signal)) (release func()) {
	s.mu.Lock()
	s.forward = f
	s.mu.Unlock()
	s.watchAll()
	return func() {
		s.mu.Lock()
		s.forward = nil
		s.mu.Unlock()
	}
}

// forwarded lists the signals that are passed on beside INT and TERM:
// all but SIGCHLD, SIGURG (the Go scheduler's), SIGPIPE, SIGWINCH, terminal
// stops, and those that cannot be caught.
func forwarded() []syscall.Signal {
	return []syscall.Signal{
		syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2,
		syscall.SIGCONT, syscall.SIGALRM, syscall.SIGABRT, syscall.SIGIO,
		syscall.SIGPROF, syscall.SIGPWR, syscall.SIGSYS, syscall.SIGTRAP,
		syscall.SIGVTALRM, syscall.SIGXCPU, syscall.SIGXFSZ,
	}
}
