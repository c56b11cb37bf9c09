package initproc

import (
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/ocirun/wire"
)

// States of the hand-over of a seccomp listener; descriptors are above.
const (
	handOverStarts = -iota - 1
	handOverReady
	handOverDone
)

// loadNotify loads a filter that asks an agent and hands the listener to the
// runtime, for the agent. From the moment it is loaded, every system call of
// this thread may wait for an answer of an agent that does not have the listener
// yet. So another thread, on which the filter does not lie, sends it, and the two
// meet in memory, without a system call on this side.
func (s *setup) loadNotify(prog *sockFprog) error {
	var state atomic.Int32
	state.Store(handOverStarts)
	runtime.GOMAXPROCS(2) // one for each: this goroutine does not give its own away
	go s.handOver(&state)
	for state.Load() != handOverReady {
		_ = unix.Nanosleep(&unix.Timespec{Nsec: handOverPoll}, nil)
	}
	fd, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, uintptr(s.cfg.Process.FilterFlags), uintptr(unsafe.Pointer(prog)))
	if errno != 0 {
		if errno == unix.EINVAL && s.cfg.Process.FilterFlags&unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV != 0 {
			return fmt.Errorf("load seccomp filter: SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV needs Linux 5.19: %w", errno)
		}
		return fmt.Errorf("load seccomp filter with a listener: %w", errno)
	}
	state.Store(int32(fd))
	for state.Load() != handOverDone { //nolint:revive // no call may be made here
	}
	return nil
}

const handOverPoll = 20_000 // nanoseconds

// handOver is the other thread. If nobody takes the listener, the container
// does not run.
func (s *setup) handOver(state *atomic.Int32) {
	runtime.LockOSThread()
	state.Store(handOverReady)
	for state.Load() < 0 {
		_ = unix.Nanosleep(&unix.Timespec{Nsec: handOverPoll}, nil)
	}
	fd := int(state.Load())
	if err := s.conn.Send(wire.KindListener, nil, fd); err != nil {
		unix.Exit(1)
	}
	m, err := s.conn.Receive()
	if err == nil && m.Kind != wire.KindContinue {
		err = errors.New("unexpected message")
	}
	if err != nil {
		unix.Exit(1)
	}
	unix.Close(fd)
	state.Store(handOverDone)
}
