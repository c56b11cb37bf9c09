package lifecycle

import (
	"context"
	"errors"
	"io"

	apievents "github.com/moby/moby/api/types/events"

	"github.com/wherry-engine/wherry/container"
	"github.com/wherry-engine/wherry/engine/detach"
	"github.com/wherry-engine/wherry/engine/handoff"
	"github.com/wherry-engine/wherry/task"
)

// Attach gives a connection to the streams of a container, now or at its next
// start. It returns when the connection is no longer this daemon's business.
func (e *Engine) Attach(ctx context.Context, ref string, req container.AttachRequest) error {
	u, err := e.index.find(ref)
	if err != nil {
		return err
	}
	keys, err := detach.Parse(req.DetachKeys)
	if err != nil {
		return invalid("Invalid detach keys (%s) provided", req.DetachKeys)
	}
	switch u.status.Load().State {
	case container.StatePaused:
		return conflict("container %s is paused, unpause the container before attach", ref)
	case container.StateRestarting:
		return conflict("container %s is restarting, wait until the container is running", ref)
	}
	if !req.Stream {
		return e.attachLogs(ctx, u, req)
	}
	tty := u.spec.Load().Config.Tty
	stream, err := req.Conn.Hijack(tty, !req.Logs)
	if err != nil {
		return err
	}
	if req.Logs {
		if err := e.replay(ctx, u, req, stream); err != nil {
			return errors.Join(err, stream.Close())
		}
	}
	f, proxy, err := handoff.Descriptor(stream)
	if err != nil {
		return errors.Join(err, stream.Close())
	}
	a := pending{conn: f, req: task.AttachRequest{
		Stdin: req.Stdin && u.spec.Load().Config.OpenStdin, Stdout: req.Stdout, Stderr: req.Stderr,
		DetachKeys: keys, Buffered: stream.Buffered, Framed: !tty && !req.Raw, Preface: stream.Head,
		Relayed: !handoff.IsSocket(stream.Conn),
	}}
	err = u.owner.do(func() error { return e.place(context.WithoutCancel(ctx), u, a) })
	proxy(ctx)
	return err
}

// place attaches at once, or keeps the connection for the start. The caller owns u.
func (e *Engine) place(ctx context.Context, u *unit, a pending) error {
	e.emit(u, apievents.ActionAttach, nil)
	u.watch()
	if u.isGone() {
		return a.conn.Close()
	}
	if u.up() {
		defer a.conn.Close()
		if err := e.o.Tasks.Attach(ctx, string(u.id), a.req, a.conn); err != nil {
			// Hijacked: what can be said is said on the connection.
			_, _ = a.conn.Write(a.req.Preface)
			e.log.Warn("attach", "container", u.id, "err", err)
		}
		return nil
	}
	// The client starts the container only after the head of the answer.
	if _, err := a.conn.Write(a.req.Preface); err != nil {
		return a.conn.Close()
	}
	a.req.Preface = nil
	u.mu.Lock()
	defer u.mu.Unlock()
	u.handle.attach = append(u.handle.attach, a)
	return nil
}

// attachRest attaches what the start had no room for: it takes one connection.
func (e *Engine) attachRest(ctx context.Context, u *unit, rest []pending) {
	for _, a := range rest {
		if err := e.o.Tasks.Attach(ctx, string(u.id), a.req, a.conn); err != nil {
			e.log.Warn("attach", "container", u.id, "err", err)
		}
		_ = a.conn.Close()
	}
}

// attachLogs serves an attach that wants only the past.
func (e *Engine) attachLogs(ctx context.Context, u *unit, req container.AttachRequest) error {
	stream, err := req.Conn.Hijack(u.spec.Load().Config.Tty, false)
	if err != nil {
		return err
	}
	defer stream.Close()
	if !req.Logs {
		return nil
	}
	return e.replay(ctx, u, req, stream)
}

// replay writes the log so far to a connection.
func (e *Engine) replay(ctx context.Context, u *unit, req container.AttachRequest, w io.Writer) error {
	s := u.spec.Load()
	msgs, err := e.readLog(ctx, s, container.LogsRequest{Stdout: req.Stdout, Stderr: req.Stderr, Tail: -1}, nil)
	if err != nil {
		return err
	}
	for m, err := range msgs {
		if err != nil {
			return err
		}
		if err := handoff.WriteFrame(w, byte(m.Stream), m.Line, !s.Config.Tty && !req.Raw); err != nil {
			return err
		}
	}
	return nil
}
