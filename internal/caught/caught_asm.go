//go:build amd64 || arm64

package caught

import (
	"fmt"
	"os"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// pipe is where the handler writes to.
var pipe int32

// action is the kernel's struct sigaction, see rt_sigaction(2) and, for the
// restorer, sigreturn(2).
type action struct {
	handler  uintptr
	flags    uint64
	restorer uintptr
	mask     uint64
}

// Flags of asm/signal.h.
const (
	sigInfo     = 0x00000004
	onStack     = 0x08000000
	restart     = 0x10000000
	hasRestorer = 0x04000000
)

// addresses are those of the functions in caught_*.s. Where the kernel brings a
// restorer of its own, that is 0.
func addresses() (handler, faults, restorer uintptr)

var (
	once    sync.Once
	openErr error
	mu      sync.Mutex
	sinks   [65]chan<- os.Signal
)

// Notify sends signals to ch from now on, for good. One that ch has no room for
// is lost. On error nothing is caught that was not before; such is that a signal
// is blocked, as whoever started the program may have left it, which os/signal
// undoes.
func Notify(ch chan<- os.Signal, signals ...syscall.Signal) error {
	once.Do(func() { openErr = open() })
	if openErr != nil {
		return openErr
	}
	if err := blocked(signals); err != nil {
		return err
	}
	a := action{flags: sigInfo | onStack | restart, mask: ^uint64(0)}
	handler, faults, restorer := addresses()
	if a.restorer = restorer; restorer != 0 {
		a.flags |= hasRestorer
	}
	mu.Lock()
	defer mu.Unlock()
	for _, s := range signals {
		sinks[s] = ch
		if a.handler = handler; s == syscall.SIGTRAP || s == syscall.SIGSYS {
			a.handler = faults
		}
		_, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(s), uintptr(unsafe.Pointer(&a)), 0, unsafe.Sizeof(a.mask), 0, 0)
		if errno != 0 {
			return fmt.Errorf("catch %s: %w", unix.SignalName(s), errno)
		}
	}
	return nil
}

// blocked is an error if this thread, and so every one, blocks one of the signals.
func blocked(signals []syscall.Signal) error {
	var set unix.Sigset_t
	if err := unix.PthreadSigmask(unix.SIG_BLOCK, nil, &set); err != nil {
		return os.NewSyscallError("rt_sigprocmask", err)
	}
	for _, s := range signals {
		if set.Val[0]&(1<<(s-1)) != 0 {
			return fmt.Errorf("%s is blocked", unix.SignalName(s))
		}
	}
	return nil
}

// open makes the pipe. Nothing ever closes it.
func open() error {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return os.NewSyscallError("pipe2", err)
	}
	pipe = int32(p[1])
	go deliver(os.NewFile(uintptr(p[0]), "signals"))
	return nil
}

func deliver(r *os.File) {
	buf := make([]byte, 64)
	for {
		n, err := r.Read(buf)
		if err != nil {
			return
		}
		for _, b := range buf[:n] {
			mu.Lock()
			ch := sinks[b]
			mu.Unlock()
			select {
			case ch <- syscall.Signal(b):
			default:
			}
		}
	}
}
