package ocirun

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// childrenOf lists the processes whose parent is this one, by command line.
func childrenOf(t *testing.T) map[int]string {
	t.Helper()
	out := map[int]string{}
	procs, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range procs {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		stat, err := os.ReadFile("/proc/" + e.Name() + "/stat")
		if err != nil {
			continue
		}
		_, rest, _ := strings.Cut(string(stat), ") ")
		if f := strings.Fields(rest); len(f) > 1 && f[1] == strconv.Itoa(os.Getpid()) {
			args, _ := os.ReadFile("/proc/" + e.Name() + "/cmdline")
			out[pid] = f[0] + " " + strings.ReplaceAll(string(args), "\x00", " ")
		}
	}
	return out
}

// TestForkersDie kills inits that stand by, and those they have just forked,
// while containers and execs are made: what was not killed itself works, and
// nothing is left.
func TestForkersDie(t *testing.T) {
	r := newRuntime(t)
	root := busyboxRoot(t)
	mainReq := sh(root, "exec sleep 600")
	c := start(t, r, mainReq)
	before := len(childrenOf(t)) - r.standby.all
	stop := make(chan struct{})
	var killer, workers sync.WaitGroup
	killed := 0
	killer.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(7 * time.Millisecond):
			}
			for pid, what := range childrenOf(t) {
				if strings.Contains(what, "init 4 standby") && pid != c.Pid {
					_ = unix.Kill(pid, unix.SIGKILL)
					killed++
					break
				}
			}
		}
	})
	var mu sync.Mutex
	failed := 0
	fail := func(what string, err error) {
		mu.Lock()
		defer mu.Unlock()
		failed++
		if failed < 3 {
			t.Log(what, err)
		}
	}
	deadline := time.Now().Add(4 * time.Second)
	made := 0
	for w := range 3 {
		workers.Go(func() {
			for i := 0; time.Now().Before(deadline); i++ {
				mu.Lock()
				made++
				mu.Unlock()
				if w == 2 {
					if res, err := execIn(t, r, c, mainReq.Spec, nil, "echo", "x"); err != nil {
						fail("exec", err)
					} else if res.out != "x\n" && res.code != 137 {
						fail("exec", fmt.Errorf("%+v", res))
					}
					continue
				}
				o, err := r.Create(context.Background(), &CreateRequest{ID: fmt.Sprintf("%s-%d-%d", c.ID, w, i), Spec: testSpec(root, "true")})
				if err != nil {
					fail("create", err)
					continue
				}
				if err := o.Start(); err != nil {
					fail("start", err)
				}
				_ = unix.PidfdSendSignal(int(o.PidFD.Fd()), unix.SIGKILL, nil, 0)
				wait(t, o.PidFD)
				o.PidFD.Close()
				remove(t, r, o)
			}
		})
	}
	workers.Wait()
	close(stop)
	killer.Wait()
	t.Logf("%d made, %d killed, %d failed", made, killed, failed)
	// An init that was killed itself cannot succeed; each kill hits one at most.
	if failed > killed || made < 10 || killed < 3 {
		t.Errorf("%d made, %d killed, %d failed", made, killed, failed)
	}
	unready(r)
	for began := time.Now(); len(childrenOf(t)) != before && time.Since(began) < time.Minute; {
		time.Sleep(20 * time.Millisecond)
	}
	if left := childrenOf(t); len(left) != before {
		t.Errorf("%d children became %d: %v", before, len(left), left)
	}
}

// TestForkerGivenUp: an exec is abandoned at any moment of it, and what it made is
// gone.
func TestForkerGivenUp(t *testing.T) {
	r := newRuntime(t)
	root := busyboxRoot(t)
	req := sh(root, "exec sleep 600")
	c := start(t, r, req)
	p := *req.Spec.Process
	p.Args = []string{"sleep", "599"}
	gaveUp := 0
	for i := range 60 {
		standBy(r)
		ctx, cancel := context.WithTimeout(context.Background(), time.Duration(i)*30*time.Microsecond)
		proc, err := r.Exec(ctx, &ExecRequest{Pid: c.Pid, PidFD: c.PidFD, Spec: req.Spec, Process: &p, Cgroup: c.Cgroup})
		cancel()
		if err == nil {
			_ = unix.PidfdSendSignal(int(proc.PidFD.Fd()), unix.SIGKILL, nil, 0)
			wait(t, proc.PidFD)
			proc.PidFD.Close()
			continue
		}
		gaveUp++
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
	}
	if gaveUp == 0 {
		t.Error("every exec was quick enough")
	}
	if pids, err := r.Pids(c.Cgroup); err != nil || len(pids) != 1 {
		t.Errorf("left in the container: %v %v", pids, err)
	}
}

// TestForkerMemory: what inits leave in the memory they borrow does not add up.
func TestForkerMemory(t *testing.T) {
	r := newRuntime(t)
	root := busyboxRoot(t)
	req := sh(root, "exec sleep 600")
	c := start(t, r, req)
	resident := func() int {
		r.standby.mu.Lock()
		defer r.standby.mu.Unlock()
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", r.standby.ready[0].pid))
		if err != nil {
			t.Fatal(err)
		}
		n, _ := strconv.Atoi(strings.Fields(string(b))[1])
		return n * os.Getpagesize() >> 10
	}
	exec := func(n int) {
		for range n {
			if res, err := execIn(t, r, c, req.Spec, nil, "true"); err != nil || res.code != 0 {
				t.Fatal(res, err)
			}
		}
	}
	exec(50)
	first := resident()
	exec(200)
	last := resident()
	t.Logf("%d KiB, then %d KiB", first, last)
	if last > first+first/2 {
		t.Errorf("%d KiB became %d KiB", first, last)
	}
}
