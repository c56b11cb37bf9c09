package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"

	"github.com/wherry-engine/wherry/cli/terminal"
	"github.com/wherry-engine/wherry/client"
)

const (
	// away is how long a daemon may be, before a session gives up.
	away = 30 * time.Second
	// knock is the interval at which it is looked for.
	knock = 100 * time.Millisecond
	// lag is how much later than the end of the output the exit code may come
	// without a look at whether the connection was cut.
	lag = time.Second
)

// rejoiner takes a session up again whose connection was cut: one that went
// through a daemon that ended (TLS, ssh), or was held by a supervisor that did.
type rejoiner struct {
	s    *session
	cl   *client.Client
	id   string
	wait *waiting
}

// again returns a new connection, or nil if the container has ended.
func (r *rejoiner) again(ctx context.Context) (*client.Hijacked, error) {
	late := time.NewTimer(lag)
	defer late.Stop()
	select {
	case <-r.wait.done:
		if !r.wait.lost() {
			return nil, nil
		}
	case <-late.C:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	var c container.InspectResponse
	err := patiently(ctx, func() (err error) {
		c, err = inspectContainer(ctx, r.cl, r.id)
		return err
	})
	switch {
	case errdefs.IsNotFound(err):
		// It removed itself: its exit code is on its way, late on a busy
		// machine, unless it is lost.
		select {
		case <-r.wait.done:
			if !r.wait.lost() {
				return nil, nil
			}
		case <-time.After(away):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		return nil, errors.New("the connection was cut, and the container is gone since: its exit code is unknown")
	case err != nil:
		return nil, err
	case !c.State.Running:
		if r.wait.isDone() {
			r.wait.settle(c.State.ExitCode)
		}
		return nil, nil
	}
	if r.wait.isDone() {
		if err := r.wait.restart(ctx, r.cl, r.id); err != nil {
			return nil, err
		}
	}
	stream, err := r.cl.Hijack(ctx, attachRequest(r.s, r.id))
	if err != nil {
		return nil, err
	}
	if !r.s.tty {
		fmt.Fprintln(r.s.a.err, r.s.a.name+": the connection was cut and is taken up again; what was written in between is in the container's log")
	} else if terminal.Is(r.s.a.outFile()) {
		r.s.a.redraw(ctx, r.cl, containerPath(r.id, "resize"))
	}
	return stream, nil
}

// patiently repeats what fails because the daemon cannot be reached.
func patiently(ctx context.Context, f func() error) error {
	tick := time.NewTicker(knock)
	defer tick.Stop()
	for end := time.Now().Add(away); ; {
		err := f()
		if err == nil || !unreachable(err) || time.Now().After(end) {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func unreachable(err error) bool {
	var api *client.Error
	return err != nil && (!errors.As(err, &api) || errdefs.IsUnavailable(err))
}

// isCut tells whether a stream that ended so may go on elsewhere.
func isCut(err error) bool {
	var netErr net.Error
	return err == nil || errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, &netErr)
}

// pipe is a connection that can be exchanged for another while one writes to it.
type pipe struct {
	mu      sync.Mutex
	changed sync.Cond
	stream  *client.Hijacked
	closed  bool // the input has ended
	over    bool // no other stream follows
}

func newPipe(stream *client.Hijacked) *pipe {
	p := &pipe{stream: stream}
	p.changed.L = &p.mu
	return p
}

func (p *pipe) current() *client.Hijacked {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stream
}

// exchange replaces the stream.
func (p *pipe) exchange(stream *client.Hijacked) {
	p.mu.Lock()
	defer p.mu.Unlock()
	_ = p.stream.Close()
	p.stream = stream
	if p.closed {
		_ = stream.CloseWrite()
	}
	p.changed.Broadcast()
}

// end tells that no other stream follows.
func (p *pipe) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.over = true
	p.changed.Broadcast()
}

// Write goes to the stream there is, and to the next one if that was cut.
func (p *pipe) Write(b []byte) (int, error) {
	done := 0
	for {
		stream := p.current()
		n, err := stream.Write(b[done:])
		done += n
		if err == nil {
			return done, nil
		}
		p.mu.Lock()
		for p.stream == stream && !p.over {
			p.changed.Wait()
		}
		over := p.over
		p.mu.Unlock()
		if over {
			return done, err
		}
	}
}

// CloseWrite ends the input.
func (p *pipe) CloseWrite() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	return p.stream.CloseWrite()
}

var _ io.Writer = (*pipe)(nil)
