package lifecycle

import (
	"context"
	"iter"
	"time"

	"github.com/containerd/errdefs"
	apicontainer "github.com/moby/moby/api/types/container"

	"github.com/wherry-engine/wherry/container"
	"github.com/wherry-engine/wherry/logs"
)

// Logs returns the output of a container, and whether it has a terminal. With
// Follow the sequence ends when the container has ended and all was delivered.
// InvalidArgument, NotImplemented if its log driver cannot be read.
func (e *Engine) Logs(ctx context.Context, ref string, req container.LogsRequest) (iter.Seq2[logs.Message, error], bool, error) {
	u, err := e.index.find(ref)
	if err != nil {
		return nil, false, err
	}
	if !req.Stdout && !req.Stderr {
		return nil, false, invalid("Bad parameters: you must choose at least one stream")
	}
	s := u.spec.Load()
	if s.HostConfig.LogConfig.Type == "none" {
		return nil, false, errdefs.ErrNotImplemented.WithMessage("configured logging driver does not support reading")
	}
	e.refreshOwned(ctx, u)
	var done chan struct{}
	if req.Follow {
		done = make(chan struct{})
		if !u.up() {
			close(done)
		} else {
			w := u.join(apicontainer.WaitConditionNotRunning)
			e.reaper.now(func() { e.followUntil(ctx, u, w, done) })
		}
	}
	seq, err := e.readLog(ctx, s, req, done)
	return seq, s.Config.Tty, err
}

// followUntil closes done when the container has ended for good.
func (e *Engine) followUntil(ctx context.Context, u *unit, w *waiter, done chan struct{}) {
	defer close(done)
	select {
	case <-w.ch:
	case <-ctx.Done():
		u.leave(w)
	case <-e.run.Done():
		u.leave(w)
	}
}

func (e *Engine) readLog(ctx context.Context, s *container.Spec, req container.LogsRequest, done <-chan struct{}) (iter.Seq2[logs.Message, error], error) {
	log := s.HostConfig.LogConfig
	if log.Type == "none" || e.o.LogReader == nil {
		return func(func(logs.Message, error) bool) {}, nil
	}
	r, err := e.o.LogReader(log.Type, s.LogPath, log.Config)
	if err != nil {
		return nil, err
	}
	opts := logs.ReadOptions{
		Since: req.Since, Until: req.Until, Tail: req.Tail, Stdout: req.Stdout, Stderr: req.Stderr,
		Follow: req.Follow, Done: done,
	}
	if !req.Until.IsZero() && req.Follow {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, req.Until.Add(time.Millisecond))
		seq := r.Read(ctx, opts)
		return func(yield func(logs.Message, error) bool) {
			defer cancel()
			for m, err := range seq {
				if ctx.Err() != nil || !yield(m, err) {
					return
				}
			}
		}, nil
	}
	return r.Read(ctx, opts), nil
}
