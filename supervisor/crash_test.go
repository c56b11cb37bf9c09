package supervisor

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/task"
)

// counted is the output of a script that counts.
func counted(n int) string {
	var b strings.Builder
	for i := 1; i <= n; i++ {
		b.WriteString(strconv.Itoa(i))
		b.WriteByte('\n')
	}
	return b.String()
}

// firstDifference describes where two texts part.
func firstDifference(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range w {
		if i >= len(g) || g[i] != w[i] {
			lo, hi := max(i-2, 0), i+3
			return fmt.Sprintf("line %d of %d (got %d): got %q, want %q", i+1, len(w), len(g), g[lo:min(hi, len(g))], w[lo:min(hi, len(w))])
		}
	}
	return fmt.Sprintf("%d lines too many", len(g)-len(w))
}

func TestSupervisorKilled(t *testing.T) {
	b := newBox(t)
	const n = 400
	counting := b.request(fmt.Sprintf("for i in $(seq 1 %d); do echo $i; usleep 5000; done; ", n) + b.untilTold("counting") + "exit 7")
	b.start(counting, task.StartFiles{})
	echoing := b.request("while read x; do echo got $x; done; echo end; exit 8")
	echoing.Stdio = task.Stdio{OpenStdin: true, StdinOnce: true}
	b.start(echoing, task.StartFiles{})
	tty := b.request("read x; stty size; exit 9")
	tty.Stdio = task.Stdio{Terminal: true, OpenStdin: true, Width: 80, Height: 24}
	b.start(tty, task.StartFiles{})
	always := b.request("usleep 300000; exit 1")
	always.Restart = task.RestartPolicy{Name: "always"}
	b.start(always, task.StartFiles{})
	owned := b.request("sleep 1000")
	owned.DieWithOwner = true
	b.start(owned, task.StartFiles{})
	ex := task.ExecRequest{ID: echoing.ID, ExecID: "x", Process: &specs.Process{Args: []string{"/bin/sh", "-c", "sleep 1; yes | head -c 200000; exit 4"}, Cwd: "/", Env: []string{"PATH=/bin"}},
		Attach: task.AttachRequest{Stdout: true}}
	_, server := socketPair(t)
	if _, err := b.client.Exec(b.ctx, ex, server); err != nil {
		t.Fatal(err)
	}
	server.Close()

	waiter, server := socketPair(t)
	if err := b.client.HandWait(b.ctx, counting.ID, task.WaitNextExit, server); err != nil {
		t.Fatal(err)
	}
	server.Close()
	forgotten, server := socketPair(t)
	if err := b.client.HandWait(b.ctx, "never-started", task.WaitRemoved, server); err != nil {
		t.Fatal(err)
	}
	server.Close()
	for range 3 {
		kill(t, b.inv.SupervisorPid)
		b.reconnect()
		time.Sleep(100 * time.Millisecond)
	}
	if want := []string{"never-started"}; !slices.Equal(b.inv.Waits, want) {
		t.Errorf("waits for unknown tasks: %v, want %v", b.inv.Waits, want)
	}
	if err := b.client.Delete(b.ctx, "never-started", true); err != nil {
		t.Error(err)
	}
	if got := string(readAll(t, forgotten)); !strings.Contains(got, `{"StatusCode":0}`) {
		t.Errorf("the wait for what was never started was answered by %q", got)
	}
	for _, st := range b.inv.Tasks {
		if st.ID == counting.ID && st.State != task.Running {
			t.Errorf("the counting task is %+v", st)
		}
	}
	b.tell("counting")
	client, server := socketPair(t)
	if err := b.client.Attach(b.ctx, echoing.ID, task.AttachRequest{Stdin: true, Stdout: true}, server); err != nil {
		t.Fatal(err)
	}
	server.Close()
	if _, err := io.WriteString(client, "this\n"); err != nil {
		t.Fatal(err)
	}
	readUntil(t, client, "got this\n")
	b.await("end of the exec", func(e task.Event) bool {
		return e.Kind == task.EventExecDied && e.Exec.ExecID == "x" && e.Exec.ExitCode == 4
	})
	if err := client.CloseWrite(); err != nil { // the end of input reaches the process through no other duplicate
		t.Fatal(err)
	}
	if st := b.awaitExit(echoing.ID); st.ExitCode != 8 {
		t.Errorf("the echoing task: %+v", st)
	}
	client, server = socketPair(t)
	if err := b.client.Attach(b.ctx, tty.ID, task.AttachRequest{Stdin: true, Stdout: true}, server); err != nil {
		t.Fatal(err)
	}
	server.Close()
	if _, err := io.WriteString(client, "go\n"); err != nil {
		t.Fatal(err)
	}
	readUntil(t, client, "24 80")
	if st := b.awaitExit(tty.ID); st.ExitCode != 9 {
		t.Errorf("the terminal task: %+v", st)
	}
	b.await("restart", func(e task.Event) bool { return e.Kind == task.EventStarted && e.Status.ID == always.ID })
	if st := b.awaitExit(owned.ID); st.ExitCode != 137 {
		t.Errorf("the owned task: %+v", st)
	}
	if st := b.awaitExit(counting.ID); st.ExitCode != 7 || st.ExitUnknown {
		t.Errorf("the counting task: %+v", st)
	}
	if got := string(readAll(t, waiter)); !strings.Contains(got, `{"StatusCode":7}`) {
		t.Errorf("the wait was answered by %q", got)
	}
	if got := b.log(counting); got != counted(n) {
		t.Error("the log is not complete: ", firstDifference(got, counted(n)))
	}
}

// TestLogIsCompleteAcrossKills kills the supervisor while it is busy with
// output of all kinds: nothing may be missing, nothing be there twice.
func TestLogIsCompleteAcrossKills(t *testing.T) {
	b := newBox(t)
	const n = 700000
	for _, tt := range []struct {
		name, script, driver string
		options              map[string]string
		terminal             bool
		want                 func() string
	}{
		{"flat out", fmt.Sprintf("seq 1 %d", n), "json-file", nil, false, func() string { return counted(n) }},
		{"local", fmt.Sprintf("seq 1 %d", n), "local", nil, false, func() string { return counted(n) }},
		{"rotating", fmt.Sprintf("seq 1 %d", n), "json-file", map[string]string{"max-size": "3m", "max-file": "100"}, false, func() string { return counted(n) }},
		{"compressing", fmt.Sprintf("seq 1 %d", n), "local", map[string]string{"max-size": "1m", "max-file": "100"}, false, func() string { return counted(n) }},
		{"unfinished lines", "i=0; while [ $i -lt 3000 ]; do i=$((i+1)); printf $i; usleep 100; printf ' x\n'; done", "json-file", nil, false, func() string {
			return strings.ReplaceAll(counted(3000), "\n", " x\n")
		}},
		{"terminal", fmt.Sprintf("seq 1 %d", n/20), "json-file", nil, true, func() string { return strings.ReplaceAll(counted(n/20), "\n", "\r\n") }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			req := b.request(tt.script + "; exit 3")
			req.Log.Driver, req.Log.Options, req.Stdio.Terminal = tt.driver, tt.options, tt.terminal
			b.start(req, task.StartFiles{})
			kills := 0
			for range 12 {
				time.Sleep(time.Duration(5+rand.IntN(30)) * time.Millisecond)
				if st, err := b.client.Status(b.ctx, req.ID); err != nil || st.State != task.Running {
					break
				}
				kill(t, b.inv.SupervisorPid)
				b.reconnect()
				kills++
			}
			if st := b.awaitExit(req.ID); st.ExitCode != 3 {
				t.Errorf("status is %+v", st)
			}
			got, want := b.log(req), tt.want()
			if got != want {
				t.Errorf("after %d kills the log differs: %s", kills, firstDifference(got, want))
			}
		})
	}
}

func TestExitWhileSupervisorIsAway(t *testing.T) {
	b := newBox(t)
	req := b.request("usleep 200000; exit 21")
	again := b.request("usleep 200000; exit 22")
	again.Restart = task.RestartPolicy{Name: "on-failure", MaxRetries: 1}
	b.start(req, task.StartFiles{})
	b.start(again, task.StartFiles{})
	kp := b.inv.KeeperPid
	stopped(t, kp) // so that there is none for a while
	kill(t, b.inv.SupervisorPid)
	time.Sleep(400 * time.Millisecond)
	if err := unix.Kill(kp, unix.SIGCONT); err != nil {
		t.Fatal(err)
	}
	b.reconnect()
	if st := b.awaitExit(req.ID); st.ExitCode != 21 || st.ExitUnknown {
		t.Errorf("status is %+v", st)
	}
	if st := b.awaitExit(again.ID); st.ExitCode != 22 || st.Restarts != 1 {
		t.Errorf("status is %+v", st)
	}
}

func TestKeeperKilled(t *testing.T) {
	b := newBox(t)
	req := b.request("for i in $(seq 1 200); do echo $i; usleep 10000; done; exit 3")
	b.start(req, task.StartFiles{})
	first := b.inv.KeeperPid
	kill(t, first)
	waitFor(t, "another keeper", func() bool {
		b.reconnect()
		return b.inv.KeeperPid != first && b.inv.KeeperPid != 0
	})
	waitFor(t, "everything to be left with it", func() bool { return holds(b.inv.KeeperPid, "wherry-spool") }) // which is left last
	kill(t, b.inv.SupervisorPid)
	b.reconnect()
	if st := b.awaitExit(req.ID); st.ExitCode != 3 {
		t.Errorf("status is %+v", st)
	}
	if got := b.log(req); got != counted(200) {
		t.Error("the log is not complete: ", firstDifference(got, counted(200)))
	}
}

func TestBothKilled(t *testing.T) {
	b := newBox(t)
	quiet, gone := b.request(b.untilTold("quiet")+"exit 5"), b.request("sleep 0.3; exit 6")
	ns := newNetNS(t)
	quiet.Spec.Linux.Namespaces = append(quiet.Spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.NetworkNamespace})
	b.start(quiet, task.StartFiles{NetNS: ns})
	b.start(gone, task.StartFiles{})
	sup, kp := b.inv.SupervisorPid, b.inv.KeeperPid
	stopped(t, kp) // so that it does not start another supervisor in between
	kill(t, sup)
	kill(t, kp)
	time.Sleep(600 * time.Millisecond)
	b.reconnect()
	if st := b.awaitExit(gone.ID); !st.ExitUnknown && st.ExitCode != 6 {
		t.Errorf("the one that ended meanwhile: %+v", st)
	}
	if st, err := b.client.Status(b.ctx, quiet.ID); err != nil || st.State != task.Running {
		t.Errorf("the one that runs: %+v, %v", st, err)
	}
	if got, err := b.client.NetNS(b.ctx, quiet.ID); err != nil {
		t.Error("its network namespace: ", err)
	} else {
		a, err1 := ns.Stat()
		c, err2 := got.Stat()
		if err := errors.Join(err1, err2, got.Close()); err != nil || !os.SameFile(a, c) {
			t.Errorf("its network namespace is another one: %v", err)
		}
	}
	b.tell("quiet")
	if st := b.awaitExit(quiet.ID); !st.ExitUnknown && st.ExitCode != 5 {
		t.Errorf("the one that ended later: %+v", st)
	}
}

// newNetNS makes a network namespace, on a thread that ends in it.
func newNetNS(t *testing.T) *os.File {
	t.Helper()
	type made struct {
		f   *os.File
		err error
	}
	ch := make(chan made)
	go func() {
		goruntime.LockOSThread()
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err != nil {
			ch <- made{nil, err}
			return
		}
		f, err := os.Open("/proc/thread-self/ns/net")
		ch <- made{f, err}
	}()
	m := <-ch
	if m.err != nil {
		t.Fatal(m.err)
	}
	t.Cleanup(func() { _ = m.f.Close() })
	return m.f
}

// TestBothKilledInAnyOrder kills both without a pause; the daemon finds new
// ones quickly.
func TestBothKilledInAnyOrder(t *testing.T) {
	b := newBox(t)
	req := b.request("sleep 1000")
	b.start(req, task.StartFiles{})
	for i := range 6 {
		first, second := b.inv.SupervisorPid, b.inv.KeeperPid
		if i%2 == 1 {
			first, second = second, first
		}
		_ = unix.Kill(first, unix.SIGKILL)
		go func() {
			time.Sleep(time.Duration(i/2) * 2 * time.Millisecond)
			_ = unix.Kill(second, unix.SIGKILL)
		}()
		waitFor(t, "helpers", func() bool {
			b.reconnect()
			return alive(b.inv.SupervisorPid) && alive(b.inv.KeeperPid) && b.inv.SupervisorPid != first && b.inv.SupervisorPid != second &&
				b.inv.KeeperPid != first && b.inv.KeeperPid != second
		})
		if st, err := b.client.Status(b.ctx, req.ID); err != nil || st.State != task.Running {
			t.Errorf("round %d: %+v, %v", i, st, err)
		}
	}
	if st, err := b.client.Stop(b.ctx, req.ID, 15, 100*time.Millisecond); err != nil || st.State != task.Exited {
		t.Errorf("stop: %+v, %v", st, err)
	}
}

// TestUnknownSupervisor: a keeper was killed before it had written down which
// supervisor it had started, and the next one starts another.
func TestUnknownSupervisor(t *testing.T) {
	b := newBox(t)
	req := b.request("sleep 1000")
	b.start(req, task.StartFiles{})
	stopped(t, b.inv.KeeperPid)
	stray := exec.Command(b.opts.Runtime, "supervisor", "--exec-root", b.opts.ExecRoot, "--data-root", b.opts.DataRoot)
	if err := stray.Start(); err != nil {
		t.Fatal(err)
	}
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		_ = stray.Wait()
	}()
	waitFor(t, "the stray supervisor to wait for the lock", func() bool {
		locks, err := os.ReadFile("/proc/locks")
		return err == nil && strings.Contains(string(locks), fmt.Sprintf(" %d ", stray.Process.Pid))
	})
	kill(t, b.inv.SupervisorPid)
	_ = unix.Kill(b.inv.KeeperPid, unix.SIGCONT)
	waitFor(t, "the stray supervisor to serve", func() bool {
		b.reconnect()
		return b.inv.SupervisorPid == stray.Process.Pid
	})
	if st, err := b.client.Status(b.ctx, req.ID); err != nil || st.State != task.Running {
		t.Errorf("its task: %+v, %v", st, err)
	}
	b.shutdown()
	select {
	case <-gone:
	case <-time.After(patience):
		t.Error("the stray supervisor goes on after the end of the helpers")
		_ = stray.Process.Kill()
	}
}

// TestKeeperKilledAtTheEnd kills the keeper before it ends the supervisor, as it was
// told to.
func TestKeeperKilledAtTheEnd(t *testing.T) {
	b := newBox(t)
	sup, err := unix.PidfdOpen(b.inv.SupervisorPid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(sup)
	stopped(t, b.inv.KeeperPid)
	told := make(chan error, 1)
	go func() { told <- b.client.Shutdown(b.ctx) }()
	time.Sleep(100 * time.Millisecond) // if it is told later, another keeper is
	kill(t, b.inv.KeeperPid)
	if err := <-told; err != nil {
		t.Error(err)
	}
	p := []unix.PollFd{{Fd: int32(sup), Events: unix.POLLIN}}
	if n, err := unix.Poll(p, int(patience/time.Millisecond)); n != 1 || err != nil {
		t.Errorf("the supervisor goes on: %v", err)
	}
	b.connect() // for the end of the test
}

// TestKilledAtRandom kills helpers under load and finds everything done and
// nothing left (see shutdown).
func TestKilledAtRandom(t *testing.T) {
	b := newBox(t)
	before := processes(t, b)
	rounds := 12
	if testing.Short() {
		rounds = 4
	}
	for round := range rounds {
		var started []task.StartRequest
		stop := make(chan struct{})
		done := make(chan struct{})
		go func() {
			defer close(done)
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				req := b.request(fmt.Sprintf("seq 1 2000; usleep %d; exit 11", rand.IntN(50000)))
				b.mu.Lock()
				c := b.client
				b.mu.Unlock()
				if _, err := c.Start(b.ctx, req, task.StartFiles{}); err == nil {
					started = append(started, req)
				} else {
					time.Sleep(5 * time.Millisecond)
				}
			}
		}()
		time.Sleep(time.Duration(rand.IntN(100)) * time.Millisecond)
		if round%3 == 1 {
			kill(t, b.inv.KeeperPid)
		} else {
			kill(t, b.inv.SupervisorPid)
		}
		time.Sleep(50 * time.Millisecond)
		b.reconnect()
		waitFor(t, "a keeper", func() bool {
			if b.inv.KeeperPid == 0 || !alive(b.inv.KeeperPid) {
				b.reconnect()
				return false
			}
			return true
		})
		time.Sleep(50 * time.Millisecond)
		close(stop)
		<-done
		b.reconnect()
		for _, req := range started {
			var st task.Status
			waitFor(t, "exit of "+req.ID, func() bool {
				var err error
				if st, err = b.client.Status(b.ctx, req.ID); err != nil {
					t.Fatalf("round %d: %s was started and is lost: %v", round, req.ID, err)
				}
				return st.State == task.Exited
			})
			if st.ExitCode != 11 {
				t.Errorf("round %d: %+v", round, st)
			}
			if got := b.log(req); got != counted(2000) {
				t.Errorf("round %d: %s: the log is not complete: %s", round, req.ID, firstDifference(got, counted(2000)))
			}
		}
		inv, err := b.client.Hello(b.ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, st := range inv.Tasks { // also those whose start was cut off
			if err := b.client.Delete(b.ctx, st.ID, true); err != nil {
				t.Errorf("delete: %v", err)
			}
		}
	}
	waitFor(t, "the end of all processes", func() bool { return processes(t, b) <= before })
}

// waitFor asks until something is so.
func waitFor(t testing.TB, what string, so func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !so(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("in vain: ", what)
		}
	}
}

// holds tells whether a process has a file of that name open.
func holds(pid int, name string) bool {
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	return slices.ContainsFunc(files, func(f string) bool {
		link, _ := os.Readlink(f)
		return strings.Contains(link, name)
	})
}

func alive(pid int) bool {
	_, err := os.Stat("/proc/" + strconv.Itoa(pid))
	return err == nil
}

// processes counts those in the containers' cgroups.
func processes(t testing.TB, b *box) int {
	t.Helper()
	n := 0
	files, _ := filepath.Glob("/sys/fs/cgroup/pids" + b.parent + "/*/cgroup.procs")
	more, _ := filepath.Glob("/sys/fs/cgroup" + b.parent + "/*/cgroup.procs")
	for _, f := range append(files, more...) {
		if p, err := os.ReadFile(f); err == nil {
			n += strings.Count(string(p), "\n")
		}
	}
	return n
}
