package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/engine/top"
	"github.com/wherry-engine/wherry/task"
)

const (
	// killPatience is how long SIGKILL may take. A process in uninterruptible
	// sleep, such as on a network file system that does not answer, does not end
	// before the kernel lets it go.
	killPatience = 10 * time.Second
	// bootPatience is the same where a daemon waits that starts.
	bootPatience = time.Second
)

// errStuck is the end of killPatience.
var errStuck = errors.New("it did not end after SIGKILL")

// endTask stops the task with a signal, and after the timeout with SIGKILL, but
// waits for what that cannot end no longer than patience. The error then names it
// and is an errStuck. A negative timeout with another signal than SIGKILL waits for ever.
func (e *Engine) endTask(ctx context.Context, u *unit, sig int, timeout, patience time.Duration) (task.Status, error) {
	kctx := ctx
	if timeout >= 0 || sig == int(unix.SIGKILL) {
		var cancel context.CancelFunc
		kctx, cancel = context.WithTimeout(ctx, max(timeout, 0)+patience)
		defer cancel()
	}
	t, err := e.stopTask(kctx, string(u.id), sig, timeout)
	if err != nil && kctx.Err() != nil && ctx.Err() == nil {
		return t, e.stuck(ctx, u)
	}
	return t, err
}

func (e *Engine) stuck(ctx context.Context, u *unit) error {
	t, err := e.o.Tasks.Status(ctx, string(u.id))
	if err != nil {
		return errors.Join(errStuck, err)
	}
	list := top.Stuck("", t.Cgroup)
	const most = 3
	if len(list) > most {
		list = append(list[:most], fmt.Sprintf("and %d more", len(list)-most))
	}
	if len(list) == 0 {
		return errStuck
	}
	return fmt.Errorf("%w: %s", errStuck, strings.Join(list, "; "))
}

// removeStuck goes on with a removal when the container's processes end after
// all. If the daemon ends before, the next one does.
func (e *Engine) removeStuck(u *unit, volumes bool) {
	e.reaper.now(func() {
		_, err := e.stopTask(e.run, string(u.id), int(unix.SIGKILL), 0)
		if e.run.Err() != nil {
			return
		}
		if err == nil || errdefs.IsNotFound(err) {
			err = u.owner.do(func() error { return e.finishRemove(context.WithoutCancel(e.run), u, volumes, true) })
		} else {
			err = e.cannotRemove(u, err)
		}
		if err != nil {
			e.log.Error("remove a container whose processes did not end", "container", u.id, "err", err)
			return
		}
		e.log.Info("removed a container whose processes did not end before", "container", u.id)
	})
}
