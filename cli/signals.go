package cli

import (
	"context"
	"os"
	"os/signal"
	"sync"
	"syscall"
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
	done    chan struct{}
	forward func(syscall.Signal)
}

// watch starts delivery; commands that talk to a daemon call it.
func (s *signals) watch() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ch != nil {
		return
	}
	s.ch, s.done = make(chan os.Signal, 64), make(chan struct{})
	signal.Notify(s.ch, syscall.SIGINT, syscall.SIGTERM)
	go s.loop()
}

func (s *signals) loop() {
	defer close(s.done)
	again := 0
	for sig := range s.ch {
		n, ok := sig.(syscall.Signal)
		if !ok {
			continue
		}
		s.mu.Lock()
		forward := s.forward
		s.mu.Unlock()
		if forward != nil {
			forward(n)
			continue
		}
		if n != syscall.SIGINT && n != syscall.SIGTERM {
			continue
		}
		if s.cancel(signalError{n}); again == 2 {
			os.Exit(128 + int(n))
		}
		again++
	}
}

// take sends all signals to f from now on, except those that say nothing to a
// remote process. The returned function gives them back.
func (s *signals) take(f func(syscall.Signal)) (release func()) {
	s.watch()
	s.mu.Lock()
	s.forward = f
	s.mu.Unlock()
	signal.Notify(s.ch, forwarded()...)
	return func() {
		s.mu.Lock()
		s.forward = nil
		s.mu.Unlock()
		signal.Stop(s.ch)
		signal.Notify(s.ch, syscall.SIGINT, syscall.SIGTERM)
	}
}

// forwarded lists the signals that are passed on: all but SIGCHLD, SIGURG
// (the Go scheduler's), SIGPIPE, SIGWINCH, terminal stops, and those that
// cannot be caught.
func forwarded() []os.Signal {
	return []os.Signal{
		syscall.SIGABRT, syscall.SIGALRM, syscall.SIGCONT, syscall.SIGHUP,
		syscall.SIGINT, syscall.SIGIO, syscall.SIGPROF, syscall.SIGPWR,
		syscall.SIGQUIT, syscall.SIGSYS, syscall.SIGTERM, syscall.SIGTRAP,
		syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGVTALRM, syscall.SIGXCPU,
		syscall.SIGXFSZ,
	}
}

// stop ends delivery.
func (s *signals) stop() {
	s.mu.Lock()
	ch := s.ch
	s.mu.Unlock()
	if ch == nil {
		return
	}
	signal.Stop(ch)
	close(ch)
	<-s.done
}
