package supervisor

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/wherry-engine/wherry/task"
)

// demux takes framed output apart.
func demux(t testing.TB, b []byte) (out, err string) {
	t.Helper()
	var streams [3]bytes.Buffer
	for len(b) > 0 {
		if len(b) < 8 || b[0] < 1 || b[0] > 2 {
			t.Fatalf("malformed frame: %q", b)
		}
		n := int(binary.BigEndian.Uint32(b[4:]))
		streams[b[0]].Write(b[8 : 8+n])
		b = b[8+n:]
	}
	return streams[1].String(), streams[2].String()
}

// TestSlowAttachedClient: a client that came by attach and does not read holds
// the process up for a moment only, and is told what it was not sent.
func TestSlowAttachedClient(t *testing.T) {
	b := newBox(t)
	const n = 3000000 // lines, more than any queue holds
	req := b.request(fmt.Sprintf("read x; seq 1 %d; exit 3", n))
	req.Stdio, req.Log.Driver = task.Stdio{OpenStdin: true}, "none"
	b.start(req, task.StartFiles{})
	var clients []*net.UnixConn
	for _, r := range []task.AttachRequest{{Stdin: true, Stdout: true, Stderr: true, Framed: true}, {Stdout: true}} {
		client, server := socketPair(t)
		if err := b.client.Attach(b.ctx, req.ID, r, server); err != nil {
			t.Fatal(err)
		}
		server.Close()
		clients = append(clients, client)
	}
	if _, err := io.WriteString(clients[0], "go\n"); err != nil {
		t.Fatal(err)
	}
	if st := b.awaitExit(req.ID); st.ExitCode != 3 { // though nobody reads
		t.Errorf("status is %+v", st)
	}
	second := make(chan []byte, 1)
	go func() {
		all, _ := io.ReadAll(clients[1])
		second <- all
	}()
	out, said := demux(t, readAll(t, clients[0]))
	left := 0
	for _, line := range strings.Split(said, "\n") {
		var some int
		if _, err := fmt.Sscanf(line, "[wherry] %d bytes of output are left out here", &some); err == nil {
			left += some
		}
	}
	if want := len(counted(n)); len(out)+left != want || left == 0 {
		t.Errorf("%d bytes were sent and %d mentioned as left out, of %d", len(out), left, want)
	}
	if raw := <-second; !bytes.Contains(raw, []byte("bytes of output are left out here")) {
		t.Errorf("the raw client was told nothing in %d bytes", len(raw))
	}
}

func TestAttachBeforeStart(t *testing.T) {
	// The connection's end waits for nobody. A busy machine may make it seem so, once.
	var took []time.Duration
	for range 5 {
		d := attachBeforeStart(t)
		if d < clientPatience {
			return
		}
		took = append(took, d)
	}
	t.Errorf("the connection's end took %v", took)
}

// attachBeforeStart returns how long the connection's end took.
func attachBeforeStart(t *testing.T) (took time.Duration) {
	b := newBox(t)
	req := b.request("cat; echo done >&2; exit 2")
	req.Stdio = task.Stdio{OpenStdin: true, StdinOnce: true}
	client, server := socketPair(t)
	b.start(req, task.StartFiles{Attach: server, AttachRequest: task.AttachRequest{
		Stdin: true, Stdout: true, Stderr: true, Framed: true, Preface: []byte("HEAD\r\n"), Buffered: []byte("early "),
	}})
	server.Close()
	if _, err := io.WriteString(client, "hello\n"); err != nil {
		t.Fatal(err)
	}
	if err := client.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	all := readAll(t, client)
	took = time.Since(began)
	rest, ok := bytes.CutPrefix(all, []byte("HEAD\r\n"))
	if !ok {
		t.Fatalf("no preface: %q", all)
	}
	out, stderr := demux(t, rest)
	if out != "early hello\n" || stderr != "done\n" {
		t.Errorf("out %q, err %q", out, stderr)
	}
	if st := b.awaitExit(req.ID); st.ExitCode != 2 {
		t.Errorf("status is %+v", st)
	}
	if got := b.log(req); !strings.Contains(got, "early hello\n") {
		t.Errorf("log is %q", got)
	}
	return took
}

// TestInputEndsWhileStarting ends the input at all moments of a start.
func TestInputEndsWhileStarting(t *testing.T) {
	b := newBox(t)
	for i := range 150 {
		req := b.request("cat")
		req.Stdio = task.Stdio{OpenStdin: true, StdinOnce: true}
		client, server := socketPair(t)
		go func() {
			time.Sleep(time.Duration(i) * 40 * time.Microsecond)
			_, _ = io.WriteString(client, "abc")
			_ = client.CloseWrite()
		}()
		b.start(req, task.StartFiles{Attach: server, AttachRequest: task.AttachRequest{Stdin: true, Stdout: true}})
		server.Close()
		if got := string(readAll(t, client)); got != "abc" {
			t.Fatalf("round %d: got %q", i, got)
		}
		b.awaitExit(req.ID)
		if err := b.client.Delete(b.ctx, req.ID, false); err != nil {
			t.Fatal(err)
		}
		client.Close()
	}
}

func TestAttachManyMegabytes(t *testing.T) {
	b := newBox(t)
	const size = 48 << 20
	req := b.request("yes 0123456789abcdef | head -c 50331648")
	req.Log.Driver = "none"
	client, server := socketPair(t)
	b.start(req, task.StartFiles{Attach: server, AttachRequest: task.AttachRequest{Stdout: true}})
	server.Close()
	time.Sleep(300 * time.Millisecond) // a slow reader: more waits than any buffer holds
	if got := len(readAll(t, client)); got != size {
		t.Errorf("%d bytes of %d came", got, size)
	}
}

func TestStuckLaterClientIsDropped(t *testing.T) {
	if testing.Short() {
		t.Skip("takes as long as a client's patience")
	}
	b := newBox(t)
	req := b.request("read x; yes 0123456789abcdef | head -c 50331648")
	req.Log.Driver = "none"
	req.Stdio = task.Stdio{OpenStdin: true, StdinOnce: true}
	in, server := socketPair(t)
	b.start(req, task.StartFiles{Attach: server, AttachRequest: task.AttachRequest{Stdin: true}})
	server.Close()
	_, stuck := socketPair(t)
	if err := b.client.Attach(b.ctx, req.ID, task.AttachRequest{Stdout: true}, stuck); err != nil {
		t.Fatal(err)
	}
	stuck.Close()
	if _, err := io.WriteString(in, "go\n"); err != nil {
		t.Fatal(err)
	}
	b.awaitExit(req.ID)
}

func TestTerminal(t *testing.T) {
	b := newBox(t)
	req := b.request("tty; stty size; read x; echo got $x; stty size; read y; exit 4")
	req.Stdio = task.Stdio{Terminal: true, OpenStdin: true, StdinOnce: true, Width: 100, Height: 30}
	client, server := socketPair(t)
	b.start(req, task.StartFiles{Attach: server, AttachRequest: task.AttachRequest{Stdin: true, Stdout: true, DetachKeys: []byte{16, 17}}})
	server.Close()
	if got := readUntil(t, client, "30 100"); !strings.Contains(got, "/dev/pts/0") && !strings.Contains(got, "/dev/console") {
		t.Errorf("tty said %q", got)
	}
	if err := b.client.Resize(b.ctx, req.ID, "", 120, 40); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(client, "one\n"); err != nil {
		t.Fatal(err)
	}
	readUntil(t, client, "40 120")
	if _, err := client.Write([]byte{16, 17}); err != nil {
		t.Fatal(err)
	}
	readAll(t, client)
	b.await("detached", func(e task.Event) bool { return e.Kind == task.EventDetached && e.Status.ID == req.ID })
	again, server := socketPair(t)
	if err := b.client.Attach(b.ctx, req.ID, task.AttachRequest{Stdin: true, Stdout: true}, server); err != nil {
		t.Fatal(err)
	}
	server.Close()
	if _, err := io.WriteString(again, "two\n"); err != nil {
		t.Fatal(err)
	}
	readAll(t, again)
	if st := b.awaitExit(req.ID); st.ExitCode != 4 {
		t.Errorf("status is %+v", st)
	}
	if got := b.log(req); !strings.Contains(got, "got one\r\n") {
		t.Errorf("log is %q", got)
	}
}

func TestExec(t *testing.T) {
	b := newBox(t)
	req := b.request("sleep 1000")
	b.start(req, task.StartFiles{})
	client, server := socketPair(t)
	ex := task.ExecRequest{
		ID: req.ID, ExecID: "e1", Process: &specs.Process{Args: []string{"/bin/sh", "-c", "cat; echo e >&2; exit 9"}, Cwd: "/", Env: []string{"PATH=/bin"}},
		Stdio: task.Stdio{OpenStdin: true}, Attach: task.AttachRequest{Stdin: true, Stdout: true, Stderr: true, Framed: true, Preface: []byte("P")},
	}
	st, err := b.client.Exec(b.ctx, ex, server)
	if err != nil {
		t.Fatal(err)
	}
	server.Close()
	if !st.Running || st.Pid == 0 {
		t.Errorf("status is %+v", st)
	}
	_, _ = io.WriteString(client, "in")
	_ = client.CloseWrite()
	out, stderr := demux(t, readAll(t, client)[1:])
	if out != "in" || stderr != "e\n" {
		t.Errorf("out %q, err %q", out, stderr)
	}
	if st, err = b.client.ExecStatus(b.ctx, req.ID, "e1"); err != nil || st.Running || st.ExitCode != 9 {
		t.Errorf("status is %+v, %v", st, err)
	}
	b.await("exec-died", func(e task.Event) bool {
		return e.Kind == task.EventExecDied && e.Exec.ExecID == "e1" && e.Exec.ExitCode == 9
	})

	ex.ExecID, ex.Process.Args = "e2", []string{"nonsense"}
	client, server = socketPair(t)
	if _, err := b.client.Exec(b.ctx, ex, server); !errdefs.IsInvalidArgument(err) {
		t.Errorf("exec of a missing program: %v", err)
	}
	server.Close()
	if got := readAll(t, client); len(got) > 0 {
		t.Errorf("a failed exec sent %q", got)
	}
	ex.ExecID, ex.Process.Args, ex.Detach, ex.Stdio = "e3", []string{"/bin/sh", "-c", "exit 3"}, true, task.Stdio{}
	if _, err := b.client.Exec(b.ctx, ex, nil); err != nil {
		t.Fatal(err)
	}
	b.await("exec-died", func(e task.Event) bool {
		return e.Kind == task.EventExecDied && e.Exec.ExecID == "e3" && e.Exec.ExitCode == 3
	})
	ex.ExecID, ex.Process.Args, ex.Stdio = "e4", []string{"/bin/sh", "-c", "stty size; read x; exit 5"}, task.Stdio{Terminal: true, OpenStdin: true, Width: 90, Height: 20}
	client, server = socketPair(t)
	if _, err := b.client.Exec(b.ctx, ex, server); err != nil {
		t.Fatal(err)
	}
	server.Close()
	readUntil(t, client, "20 90")
	if err := b.client.Resize(b.ctx, req.ID, "e4", 10, 10); err != nil {
		t.Error(err)
	}
	if err := b.client.Signal(b.ctx, req.ID, "e4", 9); err != nil {
		t.Error(err)
	}
	readAll(t, client)
	if st, err = b.client.ExecStatus(b.ctx, req.ID, "e4"); err != nil || st.ExitCode != 137 {
		t.Errorf("status is %+v, %v", st, err)
	}
}

func TestHandWait(t *testing.T) {
	b := newBox(t)
	req := b.request("exit 6")
	hand := func(cond task.WaitCondition) func() string {
		client, server := socketPair(t)
		if err := b.client.HandWait(b.ctx, req.ID, cond, server); err != nil {
			t.Fatal(err)
		}
		server.Close()
		return func() string { return string(readAll(t, client)) }
	}
	const want = "11\r\n{\"StatusCode\":6}\n\r\n0\r\n\r\n"
	next, removed := hand(task.WaitNextExit), hand(task.WaitRemoved)
	b.start(req, task.StartFiles{})
	if got := next(); got != want {
		t.Errorf("next exit: %q", got)
	}
	if got := hand(task.WaitNotRunning)(); got != want {
		t.Errorf("not running: %q", got)
	}
	b.awaitExit(req.ID)
	if err := b.client.Delete(b.ctx, req.ID, false); err != nil {
		t.Fatal(err)
	}
	if got := removed(); got != want {
		t.Errorf("removed: %q", got)
	}
}

func TestPause(t *testing.T) {
	b := newBox(t)
	req := b.request("sleep 1000")
	b.start(req, task.StartFiles{})
	if err := b.client.Pause(b.ctx, req.ID); err != nil {
		t.Fatal(err)
	}
	if err := b.client.Pause(b.ctx, req.ID); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("pause twice: %v", err)
	}
	if st, err := b.client.Status(b.ctx, req.ID); err != nil || st.State != task.Paused {
		t.Errorf("status is %+v, %v", st, err)
	}
	if err := b.client.Resume(b.ctx, req.ID); err != nil {
		t.Fatal(err)
	}
	if err := b.client.Pause(b.ctx, req.ID); err != nil {
		t.Fatal(err)
	}
	if st, err := b.client.Stop(b.ctx, req.ID, 15, 50*time.Millisecond); err != nil || st.ExitCode != 137 {
		t.Errorf("stop of a paused task: %+v, %v", st, err)
	}
}

// TestExecAgainstPause starts execs while the task is frozen and thawed.
func TestExecAgainstPause(t *testing.T) {
	b := newBox(t)
	req := b.request("sleep 1000")
	b.start(req, task.StartFiles{})
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
			}
			if b.client.Pause(b.ctx, req.ID) == nil {
				_ = b.client.Resume(b.ctx, req.ID)
			}
		}
	}()
	ran := 0
	for i := range 150 {
		_, err := b.client.Exec(b.ctx, task.ExecRequest{ID: req.ID, ExecID: fmt.Sprint(i), Process: &specs.Process{Args: []string{"/bin/true"}, Cwd: "/"}, Detach: true}, nil)
		if err == nil {
			ran++
		} else if !errdefs.IsFailedPrecondition(err) {
			t.Fatal(err)
		}
	}
	close(stop)
	<-done
	if ran == 0 {
		t.Error("no exec ran")
	}
	if err := b.client.Delete(b.ctx, req.ID, true); err != nil {
		t.Fatal(err)
	}
}

func TestKeyMatcher(t *testing.T) {
	for _, tt := range []struct {
		name     string
		in       []string
		out      string
		detached bool
	}{
		{"nothing", []string{"abc"}, "abc", false},
		{"at once", []string{"ab\x10\x11cd"}, "ab", true},
		{"apart", []string{"\x10", "\x11"}, "", true},
		{"false start", []string{"\x10a\x10", "\x10\x11"}, "\x10a\x10", true},
		{"held back", []string{"x\x10"}, "x", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := newKeyMatcher([]byte{16, 17})
			var out []byte
			detached := false
			for _, in := range tt.in {
				p, d := m.filter([]byte(in))
				out, detached = append(out, p...), detached || d
			}
			if string(out) != tt.out || detached != tt.detached {
				t.Errorf("got %q, %v", out, detached)
			}
		})
	}
}
