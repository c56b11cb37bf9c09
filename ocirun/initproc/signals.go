package initproc

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// sigaction is the kernel's structure; longer than on any architecture.
type sigaction struct {
	handler uintptr
	rest    [4]uint64
}

const (
	sigIgnored = 1  // SIG_IGN
	sigSetSize = 8  // bytes, as rt_sigaction(2) wants
	lastSignal = 64 // real-time ones included
)

// heedSignals gives every signal that our ancestors ignore its default action
// back: exec(2) would keep it ignored, and the program deaf to an interrupt
// from its terminal.
func heedSignals() {
	for sig := uintptr(1); sig <= lastSignal; sig++ {
		var act sigaction
		_, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, sig, 0, uintptr(unsafe.Pointer(&act)), sigSetSize, 0, 0)
		if errno != 0 || act.handler != sigIgnored {
			continue
		}
		act = sigaction{}
		// It fails for no signal that could be ignored.
		_, _, _ = unix.RawSyscall6(unix.SYS_RT_SIGACTION, sig, uintptr(unsafe.Pointer(&act)), 0, sigSetSize, 0, 0)
	}
}

// blockSignals keeps every signal but those that cannot be blocked from this
// thread and from those it forks.
func blockSignals() { setSignalMask(^uint64(0)) }

// unblockSignals empties this thread's mask, which exec(2) keeps as well.
func unblockSignals() { setSignalMask(0) }

func setSignalMask(mask uint64) {
	_, _, _ = unix.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&mask)), 0, sigSetSize, 0, 0)
}
