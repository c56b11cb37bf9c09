package build

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"testing"

	"github.com/moby/buildkit/executor"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/wherry-engine/wherry/task"
)

// cancelling is a service whose build is cancelled while its task starts, and
// which starts it nevertheless, as the supervisor does.
type cancelling struct {
	task.Service
	cancel  func()
	running int
}

func (c *cancelling) Start(ctx context.Context, _ task.StartRequest, _ task.StartFiles) (task.Status, error) {
	c.cancel()
	c.running++
	return task.Status{}, ctx.Err()
}

func (c *cancelling) HandWait(ctx context.Context, _ string, _ task.WaitCondition, _ *os.File) error {
	return ctx.Err()
}

func (c *cancelling) Delete(context.Context, string, bool) error { c.running--; return nil }

// TestCancelWhileStarting: nothing of a step runs on that is being started when
// its build is cancelled.
func TestCancelWhileStarting(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	tasks := &cancelling{cancel: cancel}
	e := newExecutor(Options{Tasks: func() task.Service { return tasks }, Logger: slog.New(slog.DiscardHandler)}, t.TempDir())
	err := e.run(ctx, &step{taskID: "x"}, &specs.Spec{}, task.Root{}, nil, executor.ProcessInfo{}, func(error) {})
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if tasks.running != 0 {
		t.Error("the step runs on")
	}
}
