package supervisor

import (
	"context"
	"fmt"
	"os"

	"github.com/containerd/errdefs"

	"github.com/wherry-engine/wherry/task"
	"github.com/wherry-engine/wherry/task/wire"
)

// handle does what a request asks. The file, if any, is closed by the caller.
func (c *conn) handle(ctx context.Context, f *wire.Frame) (any, *os.File, error) {
	s := c.s
	if f.Op == wire.OpHello {
		h, err := decode[wire.Hello](f.Body)
		if err == nil {
			err = negotiate(h)
		}
		if err != nil {
			return nil, nil, err
		}
		return s.hello(), nil, nil
	}
	if f.Op == wire.OpUpgrade {
		req, err := decode[wire.Upgrade](f.Body)
		if err != nil {
			return nil, nil, err
		}
		return c.upgrade(ctx, req.Program), nil, nil
	}
	if err := s.checkEpoch(f.Epoch); err != nil {
		return nil, nil, err
	}
	switch f.Op {
	case wire.OpStart:
		st, err := c.start(ctx, f)
		return st, nil, err
	case wire.OpExec:
		req, err := decode[task.ExecRequest](f.Body)
		if err != nil {
			return nil, nil, err
		}
		st, err := s.exec(ctx, req, f.Take(0))
		return st, nil, err
	case wire.OpUpdate:
		req, err := decode[wire.Update](f.Body)
		if err != nil {
			return nil, nil, err
		}
		return nil, nil, s.update(ctx, req.ID, req.Request)
	case wire.OpAttach, wire.OpAttachExec:
		req, err := decode[wire.Attach](f.Body)
		if err != nil {
			return nil, nil, err
		}
		return nil, nil, s.attach(req.ID, req.Request, f.Take(0))
	case wire.OpOpenRoot:
		req, err := decode[wire.OpenRoot](f.Body)
		if err != nil {
			return nil, nil, err
		}
		file, err := c.borrowRoot(ctx, req.ID, req.Root)
		return nil, file, err
	case wire.OpNewNetNS:
		req, err := decode[task.NetNSRequest](f.Body)
		if err != nil {
			return nil, nil, err
		}
		file, err := s.newNetNS(req)
		return nil, file, err
	case wire.OpShutdown:
		return nil, nil, s.shutdown()
	}
	t, err := decode[wire.Target](f.Body)
	if err != nil {
		return nil, nil, err
	}
	return c.handleTarget(ctx, f, t)
}

// handleTarget handles the requests that name a task and little more.
func (c *conn) handleTarget(ctx context.Context, f *wire.Frame, t wire.Target) (any, *os.File, error) {
	s := c.s
	switch f.Op {
	case wire.OpSignal:
		return nil, nil, s.signal(ctx, t.ID, t.ExecID, t.Signal)
	case wire.OpStop:
		st, err := s.stop(ctx, t.ID, t.Signal, t.Timeout)
		return st, nil, err
	case wire.OpPause:
		return nil, nil, s.pause(ctx, t.ID, true)
	case wire.OpResume:
		return nil, nil, s.pause(ctx, t.ID, false)
	case wire.OpResize:
		return nil, nil, s.resize(t.ID, t.ExecID, t.Width, t.Height)
	case wire.OpHandWait:
		return nil, nil, s.handWait(t.ID, t.Wait, f.Take(0))
	case wire.OpStatus:
		e, err := s.get(t.ID)
		if err != nil {
			return nil, nil, err
		}
		st, _ := e.snapshot()
		return st, nil, nil
	case wire.OpExecStatus:
		st, err := s.execStatus(t.ID, t.ExecID)
		return st, nil, err
	case wire.OpCloseRoot:
		return nil, nil, c.returnRoot(t.ID)
	case wire.OpNetNS:
		file, err := s.netNS(t.ID)
		return nil, file, err
	case wire.OpDelete:
		return nil, nil, s.delete(ctx, t.ID, t.Force)
	case wire.OpEvents:
		c.mu.Lock()
		defer c.mu.Unlock()
		if !c.events {
			c.events = true
			go c.streamEvents(t.Seq)
		}
		return nil, nil, nil
	case wire.OpAck:
		return nil, nil, s.events.ack(t.Seq)
	}
	return nil, nil, fmt.Errorf("unknown operation %d: %w", f.Op, errdefs.ErrNotImplemented)
}
