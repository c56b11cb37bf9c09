package supervisor

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/wherry-engine/wherry/keeper/successor"
	"github.com/wherry-engine/wherry/task"
)

// otherBuild is wherry-runtime with another version in it; overlay, from paths
// below the module's root to text, changes its source.
func otherBuild(t *testing.T, version string, overlay map[string]func(string) string) string {
	t.Helper()
	dir := t.TempDir()
	bin := filepath.Join(dir, "wherry-runtime")
	args := []string{"build", "-ldflags", "-X github.com/wherry-engine/wherry/internal/version.Version=" + version, "-o", bin}
	if len(overlay) > 0 {
		replace := map[string]string{}
		for path, change := range overlay {
			from, err := filepath.Abs(filepath.Join("..", path))
			if err != nil {
				t.Fatal(err)
			}
			b, err := os.ReadFile(from)
			if err != nil {
				t.Fatal(err)
			}
			changed := change(string(b))
			if changed == string(b) {
				t.Fatalf("nothing to change in %s", path)
			}
			to := filepath.Join(dir, strings.ReplaceAll(path, "/", "_"))
			if err := os.WriteFile(to, []byte(changed), 0o600); err != nil {
				t.Fatal(err)
			}
			replace[from] = to
		}
		b, err := json.Marshal(map[string]any{"Replace": replace})
		if err != nil {
			t.Fatal(err)
		}
		list := filepath.Join(dir, "overlay.json")
		if err := os.WriteFile(list, b, 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, "-overlay", list)
	}
	out, err := exec.Command("go", append(args, "github.com/wherry-engine/wherry/cmd/wherry-runtime")...).CombinedOutput()
	if err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return bin
}

// upgrade makes the helpers another build.
func (b *box) upgrade(program string) {
	b.t.Helper()
	opts := b.opts
	opts.Runtime = program
	c, err := b.client.Upgrade(b.ctx, opts)
	if err != nil {
		b.t.Fatal("upgrade: ", err)
	}
	_ = c.Close()
	b.connect()
}

func runsProgram(t *testing.T, pid int, program string) bool {
	t.Helper()
	same, err := successor.Runs(pid, program)
	if err != nil {
		t.Fatal(err)
	}
	return same
}

func TestUpgradeInPlace(t *testing.T) {
	b := newBox(t)
	const n = 150000
	flood := b.request(fmt.Sprintf("seq 1 %d; exit 3", n))
	flood.Stdio = task.Stdio{OpenStdin: true, StdinOnce: true}
	floodClient, server := socketPair(t)
	b.start(flood, task.StartFiles{Attach: server, AttachRequest: task.AttachRequest{Stdin: true, Stdout: true, Stderr: true, Framed: true}})
	server.Close()
	slow := b.request(fmt.Sprintf("seq 1 %d; exit 4", n))
	slowClient, server := socketPair(t)
	b.start(slow, task.StartFiles{Attach: server, AttachRequest: task.AttachRequest{Stdout: true}}) // not read until the end
	server.Close()
	tty := b.request("while read x; do echo got $x; done; exit 5")
	tty.Stdio = task.Stdio{Terminal: true, OpenStdin: true, Width: 80, Height: 24}
	ttyClient, server := socketPair(t)
	b.start(tty, task.StartFiles{Attach: server, AttachRequest: task.AttachRequest{Stdin: true, Stdout: true, DetachKeys: []byte{16, 17}}})
	server.Close()
	busy := b.request("sleep 0.5; wc -c; exit 6") // its input is full meanwhile
	busy.Stdio = task.Stdio{OpenStdin: true, StdinOnce: true}
	busyClient, server := socketPair(t)
	b.start(busy, task.StartFiles{Attach: server, AttachRequest: task.AttachRequest{Stdin: true, Stdout: true}})
	server.Close()
	queued := b.request("for i in $(seq 1 300); do echo $i; usleep 3000; done; printf end; exit 7")
	queued.Log.Options = map[string]string{"mode": "non-blocking"}
	b.start(queued, task.StartFiles{})
	again := b.request("usleep 50000; exit 1")
	again.Restart = task.RestartPolicy{Name: "always"}
	b.start(again, task.StartFiles{})
	quick := b.request("usleep 300000; exit 8")
	b.start(quick, task.StartFiles{})
	ex := task.ExecRequest{ID: tty.ID, ExecID: "x", Process: &specs.Process{Args: []string{"/bin/sh", "-c", "while read x; do echo exec $x; done; exit 9"}, Cwd: "/", Env: []string{"PATH=/bin"}},
		Stdio: task.Stdio{OpenStdin: true}, Attach: task.AttachRequest{Stdin: true, Stdout: true}}
	execClient, server := socketPair(t)
	if _, err := b.client.Exec(b.ctx, ex, server); err != nil {
		t.Fatal(err)
	}
	server.Close()
	ex.ExecID, ex.Process.Args = "ended", []string{"/bin/sh", "-c", "exit 10"}
	if _, err := b.client.Exec(b.ctx, ex, nil); err != nil {
		t.Fatal(err)
	}
	b.await("the end of an exec", func(e task.Event) bool { return e.Kind == task.EventExecDied && e.Exec.ExecID == "ended" })
	waiter, server := socketPair(t)
	if err := b.client.HandWait(b.ctx, flood.ID, task.WaitNextExit, server); err != nil {
		t.Fatal(err)
	}
	server.Close()
	input := bytes.Repeat([]byte("0123456789abcdef"), 64<<10)
	sent := make(chan error, 1)
	go func() {
		_, err := busyClient.Write(input)
		sent <- err
		_ = busyClient.CloseWrite()
	}()
	flooded := make(chan []byte, 1)
	go func() {
		all, _ := io.ReadAll(floodClient)
		flooded <- all
	}()
	if _, err := io.WriteString(ttyClient, "one\n"); err != nil {
		t.Fatal(err)
	}
	readUntil(t, ttyClient, "got one\r\n")

	helpers := []int{b.inv.SupervisorPid, b.inv.KeeperPid}
	builds := []string{otherBuild(t, "9.0.0", nil), otherBuild(t, "9.0.1", nil)}
	for i := range 4 {
		build := builds[i%2]
		b.upgrade(build)
		for j, pid := range []int{b.inv.SupervisorPid, b.inv.KeeperPid} {
			if pid != helpers[j] || !runsProgram(t, pid, build) {
				t.Errorf("upgrade %d: helper %d has pid %d, first %d, and runs the new build: %t", i, j, pid, helpers[j], runsProgram(t, pid, build))
			}
		}
		time.Sleep(30 * time.Millisecond)
	}

	if _, err := io.WriteString(ttyClient, "two\n"); err != nil {
		t.Fatal(err)
	}
	readUntil(t, ttyClient, "got two\r\n")
	if _, err := io.WriteString(execClient, "three\n"); err != nil {
		t.Fatal(err)
	}
	readUntil(t, execClient, "exec three\n")
	if err := execClient.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	b.await("the end of the exec", func(e task.Event) bool {
		return e.Kind == task.EventExecDied && e.Exec.ExecID == "x" && e.Exec.ExitCode == 9
	})
	if st, err := b.client.ExecStatus(b.ctx, tty.ID, "ended"); err != nil || st.Running || st.ExitCode != 10 {
		t.Errorf("the exec that ended before: %+v, %v", st, err)
	}
	if err := <-sent; err != nil {
		t.Error("input: ", err)
	}
	if got := string(readAll(t, busyClient)); got != fmt.Sprintf("%d\n", len(input)) {
		t.Errorf("of %d bytes of input %q arrived", len(input), got)
	}
	out, _ := demux(t, <-flooded)
	if out != counted(n) {
		t.Error("the attached client: ", firstDifference(out, counted(n)))
	}
	if got := string(readAll(t, slowClient)); got != counted(n) {
		t.Error("the slow client: ", firstDifference(got, counted(n)))
	}
	if got := string(readAll(t, waiter)); !strings.Contains(got, `{"StatusCode":3}`) {
		t.Errorf("the wait was answered by %q", got)
	}
	for _, e := range []struct {
		req  task.StartRequest
		code int
	}{{flood, 3}, {slow, 4}, {busy, 6}, {queued, 7}, {quick, 8}} {
		if st := b.awaitExit(e.req.ID); st.ExitCode != e.code || st.ExitUnknown {
			t.Errorf("exit code %d was expected: %+v", e.code, st)
		}
	}
	for _, req := range []task.StartRequest{flood, slow} {
		if got := b.log(req); got != counted(n) {
			t.Error("the log is not complete: ", firstDifference(got, counted(n)))
		}
	}
	if got := b.log(queued); got != counted(300)+"end" {
		t.Error("the log in non-blocking mode is not complete: ", firstDifference(got, counted(300)+"end"))
	}
	if _, err := io.WriteString(ttyClient, "\x10\x11"); err != nil {
		t.Fatal(err)
	}
	b.await("detach keys", func(e task.Event) bool { return e.Kind == task.EventDetached && e.Status.ID == tty.ID })
	b.await("a restart", func(e task.Event) bool {
		return e.Kind == task.EventStarted && e.Status.ID == again.ID && e.Status.Restarts > 2
	})
}

// TestUpgradeRefused: a program that does not understand what there is, or is
// none, is refused, and everything goes on.
func TestUpgradeRefused(t *testing.T) {
	b := newBox(t)
	req := b.request("while read x; do echo got $x; done; exit 5")
	req.Stdio = task.Stdio{OpenStdin: true, StdinOnce: true}
	client, server := socketPair(t)
	b.start(req, task.StartFiles{Attach: server, AttachRequest: task.AttachRequest{Stdin: true, Stdout: true}})
	server.Close()
	helpers := b.inv
	strict := func(s string) string {
		return strings.NewReplacer("stateVersion = 1", "stateVersion = 3", "oldestState  = 1", "oldestState  = 2").Replace(s)
	}
	text := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(text, []byte("agrees to nothing"), 0o700); err != nil {
		t.Fatal(err)
	}
	gone := filepath.Join(t.TempDir(), "gone") // once the supervisor has let go of everything
	if err := os.WriteFile(gone, []byte("#!/bin/sh\n[ $1 = supervisor ] && rm $0\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, program := range []string{
		otherBuild(t, "9.0.0", map[string]func(string) string{"supervisor/upgrade.go": strict, "keeper/upgrade.go": strict}),
		text, gone, filepath.Join(t.TempDir(), "missing"),
	} {
		b.upgrade(program)
		if b.inv.SupervisorPid != helpers.SupervisorPid || b.inv.KeeperPid != helpers.KeeperPid {
			t.Errorf("%s: the helpers were replaced", program)
		}
		if !runsProgram(t, b.inv.SupervisorPid, b.opts.Runtime) || !runsProgram(t, b.inv.KeeperPid, b.opts.Runtime) {
			t.Errorf("%s: the helpers are not what they were", program)
		}
		if _, err := io.WriteString(client, "this\n"); err != nil {
			t.Fatal(err)
		}
		readUntil(t, client, "got this\n")
	}
	said, err := os.ReadFile(filepath.Join(b.opts.ExecRoot, "helpers.log"))
	if err != nil || !strings.Contains(string(said), "goes on with state of version 2 to 3, not with version 1") {
		t.Errorf("the reason is not logged: %v\n%s", err, said)
	}
	if err := client.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if st := b.awaitExit(req.ID); st.ExitCode != 5 {
		t.Errorf("status is %+v", st)
	}
}

// builds are two that differ in name only: the program with something behind it
// is another one.
func (b *box) builds() (builds [2]string) {
	b.t.Helper()
	original, err := os.ReadFile(b.opts.Runtime)
	if err != nil {
		b.t.Fatal(err)
	}
	for i := range builds {
		builds[i] = filepath.Join(b.t.TempDir(), "wherry-runtime")
		if err := os.WriteFile(builds[i], append(original, byte(i)), 0o755); err != nil {
			b.t.Fatal(err)
		}
	}
	return builds
}

// TestUpgradedAnswers: the connection that an upgrade ends with is to the
// program that goes on, not to one that is about to be replaced.
func TestUpgradedAnswers(t *testing.T) {
	b := newBox(t)
	builds := b.builds()
	c := b.client
	for round := range 40 {
		opts := b.opts
		opts.Runtime = builds[round%2]
		var err error
		if c, err = c.Upgrade(b.ctx, opts); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		if _, err := c.Hello(b.ctx); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
	}
	_ = c.Close()
	b.connect()
}

// TestUpgradesUnderLoad: whatever is under way, nothing of it is lost.
func TestUpgradesUnderLoad(t *testing.T) {
	b := newBox(t)
	builds := b.builds()
	rounds := 12
	if testing.Short() {
		rounds = 4
	}
	type run struct {
		req    task.StartRequest
		output chan []byte
	}
	for round := range rounds {
		var runs []run
		stop, done := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(done)
			for {
				select {
				case <-stop:
					return
				default:
				}
				client, server := socketPair(t)
				r := run{b.request(fmt.Sprintf("seq 1 3000; usleep %d; seq 3001 3100; exit 11", 1+len(runs)*1000)), make(chan []byte, 1)}
				b.mu.Lock()
				c := b.client
				b.mu.Unlock()
				_, err := c.Start(b.ctx, r.req, task.StartFiles{Attach: server, AttachRequest: task.AttachRequest{Stdout: true}})
				server.Close()
				if err != nil {
					time.Sleep(time.Millisecond)
					continue
				}
				go func() {
					all, _ := io.ReadAll(client)
					r.output <- all
				}()
				runs = append(runs, r)
			}
		}()
		time.Sleep(time.Duration(round*7) * time.Millisecond)
		b.upgrade(builds[round%2])
		time.Sleep(20 * time.Millisecond)
		close(stop)
		<-done
		if len(runs) == 0 {
			t.Errorf("round %d: nothing was started", round)
		}
		for _, r := range runs {
			if st := b.awaitExit(r.req.ID); st.ExitCode != 11 || st.ExitUnknown {
				t.Errorf("round %d: %+v", round, st)
			}
			if got := string(<-r.output); got != counted(3100) {
				t.Errorf("round %d: the client: %s", round, firstDifference(got, counted(3100)))
			}
			if got := b.log(r.req); got != counted(3100) {
				t.Errorf("round %d: the log: %s", round, firstDifference(got, counted(3100)))
			}
			if err := b.client.Delete(b.ctx, r.req.ID, false); err != nil {
				t.Error(err)
			}
		}
		if !runsProgram(t, b.inv.SupervisorPid, builds[round%2]) {
			t.Errorf("round %d: the supervisor was not upgraded", round)
		}
	}
}
