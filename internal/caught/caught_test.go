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
