package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	apievents "github.com/moby/moby/api/types/events"

	"github.com/wherry-engine/wherry/container"
	"github.com/wherry-engine/wherry/engine/detach"
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
	f, proxy, err := descriptor(stream)
	if err != nil {
		return errors.Join(err, stream.Close())
	}
	a := pending{conn: f, req: task.AttachRequest{
		Stdin: req.Stdin && u.spec.Load().Config.OpenStdin, Stdout: req.Stdout, Stderr: req.Stderr,
		DetachKeys: keys, Buffered: stream.Buffered, Framed: !tty && !req.Raw, Preface: stream.Head,
		Relayed: !isSocket(stream.Conn),
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
		if err := writeFrame(w, byte(m.Stream), m.Line, !s.Config.Tty && !req.Raw); err != nil {
			return err
		}
	}
	return nil
}

// writeFrame writes output as clients expect it on an attached connection.
func writeFrame(w io.Writer, stream byte, p []byte, framed bool) error {
	if framed {
		n := len(p)
		head := []byte{stream, 0, 0, 0, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}
		p = append(head, p...)
	}
	_, err := w.Write(p)
	return err
}

// descriptor returns a descriptor for the supervisor. A connection that is
// nothing but a socket is given away itself; any other is copied through this
// daemon by the returned function, which returns at the connection's end.
func descriptor(s container.Stream) (*os.File, func(context.Context), error) {
	if isSocket(s.Conn) {
		f, err := connFile(s.Conn)
		if err != nil {
			return nil, nil, fmt.Errorf("take over the connection: %w", err)
		}
		return f, func(context.Context) {}, nil
	}
	local, theirs, err := pair()
	if err != nil {
		return nil, nil, err
	}
	return theirs, func(ctx context.Context) { relay(ctx, s.Conn, local) }, nil
}

// isSocket tells whether there is nothing between us and a connection's socket.
func isSocket(c net.Conn) bool {
	switch c.(type) {
	case *net.UnixConn, *net.TCPConn:
		return true
	}
	return false
}

// goodbye is how long the supervisor may take to note that a client ended its
// input before its end of everything follows.
const goodbye = 200 * time.Millisecond

// relay copies both ways until the supervisor closed its end. A client that
// goes away ends its input first, so that the supervisor can tell it from a
// daemon that goes away.
func relay(ctx context.Context, client, local net.Conn) {
	stop := context.AfterFunc(ctx, func() { _ = local.Close() })
	defer stop()
	var wg sync.WaitGroup
	ended := make(chan struct{})
	wg.Go(func() {
		defer close(ended)
		_, _ = io.Copy(local, client)
		if ctx.Err() == nil {
			closeWrite(local)
		}
	})
	_, err := io.Copy(client, local)
	_ = client.Close()
	if err != nil { // the client is gone
		<-ended
		t := time.NewTimer(goodbye)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
		}
	}
	_ = local.Close()
	wg.Wait()
}

func closeWrite(c net.Conn) {
	if w, ok := c.(interface{ CloseWrite() error }); ok {
		_ = w.CloseWrite()
	}
}
