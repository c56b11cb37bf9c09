package mem

import (
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/wherry-engine/wherry/task"
)

func TestLifeOfATask(t *testing.T) {
	ctx := t.Context()
	s := New()
	if _, err := s.Start(ctx, task.StartRequest{ID: "x"}, task.StartFiles{}); err != nil {
		t.Fatal(err)
	}
	if err := s.Delete(ctx, "x", false); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("delete of a running task: %v", err)
	}
	events, err := s.Events(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if st, err := s.Stop(ctx, "x", 15, time.Minute); err != nil || st.ExitCode != 143 || st.State != task.Exited {
		t.Errorf("stop: %+v, %v", st, err)
	}
	if e := <-events; e.Kind != task.EventExited || e.Status.ID != "x" {
		t.Errorf("event: %+v", e)
	}
	if err := s.Delete(ctx, "x", false); err != nil {
		t.Error(err)
	}
	if _, err := s.Status(ctx, "x"); !errdefs.IsNotFound(err) {
		t.Errorf("status after delete: %v", err)
	}
}
