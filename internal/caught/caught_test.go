package caught

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// again tells a program of this test what it is to do.
const again = "WHERRY_CAUGHT"

func TestMain(m *testing.M) {
	switch os.Getenv(again) {
	case "":
		os.Exit(m.Run())
	case "all":
		all()
	case "storm":
		storm()
	case "fault":
		fault()
	}
}

var caughtOnes = []syscall.Signal{
	syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTRAP, syscall.SIGABRT, syscall.SIGUSR1, syscall.SIGUSR2,
	syscall.SIGALRM, syscall.SIGCONT, syscall.SIGXCPU, syscall.SIGXFSZ, syscall.SIGVTALRM, syscall.SIGPROF,
	syscall.SIGIO, syscall.SIGPWR, syscall.SIGSYS, syscall.SIGTERM,
}

// all says which signals it gets, and ends at TERM.
func all() {
	ch := make(chan os.Signal, 64)
	if err := Notify(ch, caughtOnes...); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("ready")
	for s := range ch {
		fmt.Println(s)
		if s == syscall.SIGTERM {
			os.Exit(3)
		}
	}
}

func program(t *testing.T, what string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Env = append(os.Environ(), again+"="+what)
	return cmd
}

// TestEach sends every signal, one after the other.
func TestEach(t *testing.T) {
	cmd := program(t, "all")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line := func() string {
		var b [1]byte
		var text strings.Builder
		for {
			if _, err := out.Read(b[:]); err != nil || b[0] == '\n' {
				return text.String()
			}
			text.WriteByte(b[0])
		}
	}
	if got := line(); got != "ready" {
		t.Fatal(got)
	}
	for _, s := range caughtOnes { // the last of them ends it
		if err := cmd.Process.Signal(s); err != nil {
			t.Fatal(err)
		}
		if got := line(); got != s.String() {
			t.Fatalf("after %s it said %q", s, got)
		}
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 3 {
		t.Error(err)
	}
}

// storm gets signals on all threads while they grow stacks, collect garbage,
// start programs and run on several processors.
func storm() {
	ch := make(chan os.Signal, 1)
	if err := Notify(ch, syscall.SIGUSR1, syscall.SIGUSR2); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	end := time.Now().Add(time.Second)
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for time.Now().Before(end) {
				if got := deep(200); got != 200 {
					panic(got)
				}
				runtime.GC()
			}
		})
		all.Go(func() {
			for time.Now().Before(end) {
				if out, err := exec.Command("/bin/true").CombinedOutput(); err != nil {
					panic(string(out) + err.Error())
				}
			}
		})
		all.Go(func() {
			for time.Now().Before(end) {
				_ = syscall.Kill(os.Getpid(), syscall.SIGUSR1)
				_ = syscall.Kill(os.Getpid(), syscall.SIGUSR2)
			}
		})
	}
	var n atomic.Int64
	go func() {
		for range ch {
			n.Add(1)
		}
	}()
	all.Wait()
	if n.Load() == 0 {
		panic("no signal arrived")
	}
	fmt.Println("done")
}

//go:noinline
func deep(n int) int {
	var room [512]byte
	if n == 0 {
		return int(room[0])
	}
	return deep(n-1) + 1 + int(room[n%512])
}

func TestStorm(t *testing.T) {
	out, err := program(t, "storm").CombinedOutput()
	if err != nil || string(out) != "done\n" {
		t.Errorf("%v\n%s", err, out)
	}
}

// fault makes a system call that a filter answers with SIGSYS.
func fault() {
	if err := Notify(make(chan os.Signal, 1), syscall.SIGSYS); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	runtime.LockOSThread()
	const load, equal, ret = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, unix.BPF_RET | unix.BPF_K
	filter := []unix.SockFilter{
		{Code: load}, // the number, at offset 0 of struct seccomp_data
		{Code: equal, Jf: 1, K: unix.SYS_GETPPID},
		{Code: ret, K: 0x30000}, // SECCOMP_RET_TRAP
		{Code: ret, K: 0x7fff0000},
	}
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	err := errors.Join(unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
		unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&prog)), 0, 0))
	fmt.Println("ready", err)
	fmt.Println("goes on", os.Getppid())
}

// TestFault: what the kernel sends for a thread's own doing ends the program.
func TestFault(t *testing.T) {
	cmd := program(t, "fault")
	out, _ := cmd.CombinedOutput()
	if code := cmd.ProcessState.ExitCode(); code != 128+int(syscall.SIGSYS) || string(out) != "ready <nil>\n" {
		t.Errorf("exit code %d, %q", code, out)
	}
}

// TestBlocked: a signal that is blocked is left to os/signal.
func TestBlocked(t *testing.T) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: the thread ends
		var set unix.Sigset_t
		set.Val[0] = 1 << (syscall.SIGUSR2 - 1)
		if err := unix.PthreadSigmask(unix.SIG_BLOCK, &set, nil); err != nil {
			t.Error(err)
			return
		}
		ch := make(chan os.Signal, 1)
		if err := Notify(ch, syscall.SIGUSR2); err == nil {
			t.Error("a blocked signal is said to be caught")
		}
	}()
	<-done
}
