package supervisor

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/wherry-engine/wherry/task"
)

func TestOutputAndExit(t *testing.T) {
	b := newBox(t)
	req := b.request("echo out; echo err >&2; printf end; exit 7")
	st := b.start(req, task.StartFiles{})
	if st.State != task.Running || st.Pid == 0 {
		t.Errorf("status is %+v", st)
	}
	st = b.awaitExit(req.ID)
	if st.ExitCode != 7 || st.ExitUnknown {
		t.Errorf("exit is %+v", st)
	}
	got := b.log(req)
	if !strings.Contains(got, "out\n") || !strings.Contains(got, "[err\n]") || !strings.Contains(got, "end") {
		t.Errorf("log is %q", got)
	}
	if err := b.client.Delete(b.ctx, req.ID, false); err != nil {
		t.Error(err)
	}
	if _, err := b.client.Status(b.ctx, req.ID); !errdefs.IsNotFound(err) {
		t.Errorf("status after delete: %v", err)
	}
}

func TestKilledBySignal(t *testing.T) {
	b := newBox(t)
	req := b.request("sleep 100")
	b.start(req, task.StartFiles{})
	if err := b.client.Signal(b.ctx, req.ID, "", 9); err != nil {
		t.Fatal(err)
	}
	if st := b.awaitExit(req.ID); st.ExitCode != 137 {
		t.Errorf("exit is %+v", st)
	}
	if err := b.client.Signal(b.ctx, req.ID, "", 9); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("signal to a dead task: %v", err)
	}
}

func TestStartFails(t *testing.T) {
	b := newBox(t)
	req := b.request("")
	req.Spec.Process.Args = []string{"nonsense"}
	_, err := b.client.Start(b.ctx, req, task.StartFiles{})
	var se *task.StartError
	if !errors.As(err, &se) || se.Code != 127 {
		t.Fatalf("start of a missing program: %v", err)
	}
	if _, err := b.client.Status(b.ctx, req.ID); !errdefs.IsNotFound(err) {
		t.Errorf("a trace is left: %v", err)
	}
	req.Spec.Process.Args = []string{"/bin/true"}
	b.start(req, task.StartFiles{})
	b.awaitExit(req.ID)
}

func TestStop(t *testing.T) {
	b := newBox(t)
	for _, tt := range []struct {
		name, script string
		timeout      time.Duration
		code         int
	}{
		{"obeys", "trap 'exit 3' TERM; echo ready; while :; do sleep 0.01; done", time.Minute, 3},
		{"ignores", "trap '' TERM; echo ready; while :; do sleep 1; done", 50 * time.Millisecond, 137},
	} {
		t.Run(tt.name, func(t *testing.T) {
			req := b.request(tt.script)
			req.Restart = task.RestartPolicy{Name: "always"}
			client, server := socketPair(t)
			b.start(req, task.StartFiles{Attach: server, AttachRequest: task.AttachRequest{Stdout: true}})
			server.Close()
			readUntil(t, client, "ready")
			st, err := b.client.Stop(b.ctx, req.ID, 15, tt.timeout)
			if err != nil {
				t.Fatal(err)
			}
			if st.State != task.Exited || st.ExitCode != tt.code || !st.Stopped {
				t.Errorf("status is %+v", st)
			}
			if st, err = b.client.Stop(b.ctx, req.ID, 15, tt.timeout); err != nil || st.State != task.Exited {
				t.Errorf("a second stop: %+v, %v", st, err)
			}
		})
	}
}

func TestRestartPolicy(t *testing.T) {
	b := newBox(t)
	req := b.request("echo run; exit 5")
	req.Restart = task.RestartPolicy{Name: "on-failure", MaxRetries: 2}
	began := time.Now()
	b.start(req, task.StartFiles{})
	st := b.awaitExit(req.ID)
	if st.ExitCode != 5 || st.Restarts != 2 {
		t.Errorf("status is %+v", st)
	}
	if d := time.Since(began); d < 300*time.Millisecond {
		t.Errorf("two restarts took %v, less than 100 ms and 200 ms", d)
	}
	if got := b.log(req); got != "run\nrun\nrun\n" {
		t.Errorf("log is %q", got)
	}

	req = b.request("exit 0")
	req.Restart = task.RestartPolicy{Name: "always"}
	b.start(req, task.StartFiles{})
	b.await("second start", func(e task.Event) bool {
		return e.Kind == task.EventStarted && e.Status.ID == req.ID && e.Status.Restarts == 2
	})
	if st, err := b.client.Stop(b.ctx, req.ID, 15, time.Second); err != nil || st.State != task.Exited {
		t.Errorf("stop of a restarting task: %+v, %v", st, err)
	}
	if err := b.client.Delete(b.ctx, req.ID, false); err != nil {
		t.Error(err)
	}
}

func TestDieWithOwner(t *testing.T) {
	b := newBox(t)
	req := b.request("sleep 1000")
	req.DieWithOwner = true
	b.start(req, task.StartFiles{})
	b.reconnect()
	if st := b.awaitExit(req.ID); st.ExitCode != 137 {
		t.Errorf("status is %+v", st)
	}
}

func TestEarlierEpochIsRefused(t *testing.T) {
	b := newBox(t)
	old := b.client
	b.connect()
	if _, err := old.Status(b.ctx, "x"); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("the earlier owner's request: %v", err)
	}
	_ = old.Close()
}

// TestSameNameAtOnce starts tasks of one ID one after the other, forgotten or not.
func TestSameNameAtOnce(t *testing.T) {
	b := newBox(t)
	req := b.request("read x")
	req.Stdio.OpenStdin = true
	for i := range 60 {
		b.start(req, task.StartFiles{})
		if st, err := b.client.Stop(b.ctx, req.ID, 9, time.Second); err != nil || st.State != task.Exited {
			t.Fatalf("round %d: %+v, %v", i, st, err)
		}
		if i%2 == 0 {
			if err := b.client.Delete(b.ctx, req.ID, false); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestUserAndNothingLeft(t *testing.T) {
	b := newBox(t)
	for range 20 {
		req := b.request("exit 0")
		b.start(req, task.StartFiles{})
		b.awaitExit(req.ID)
		if err := b.client.Delete(b.ctx, req.ID, false); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.client.Delete(b.ctx, "nobody", true); !errdefs.IsNotFound(err) {
		t.Errorf("delete of nothing: %v", err)
	}
}
