package remote

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"sync"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/task"
	"github.com/wherry-engine/wherry/task/wire"
)

// Hello implements task.Service.
func (c *Client) Hello(ctx context.Context) (task.Inventory, error) {
	var inv task.Inventory
	err := c.do(ctx, wire.OpHello, wire.Hello{Min: task.MinProtocol, Max: task.Protocol}, &inv)
	if err == nil {
		c.mu.Lock()
		c.epoch, c.keeper = inv.Epoch, inv.KeeperPid
		c.mu.Unlock()
	}
	return inv, err
}

// Start implements task.Service.
func (c *Client) Start(ctx context.Context, req task.StartRequest, files task.StartFiles) (task.Status, error) {
	meta := wire.StartMeta{AttachRequest: files.AttachRequest}
	var fds []*os.File
	if files.NetNS != nil {
		meta.NetNS = true
		fds = append(fds, files.NetNS)
	}
	if files.Attach != nil {
		meta.Attach = true
		fds = append(fds, files.Attach)
	}
	body, err := c.encodeStart(meta, req)
	if err != nil {
		return task.Status{}, err
	}
	f, err := c.call(ctx, wire.OpStart, body, fds...)
	if err != nil {
		return task.Status{}, err
	}
	f.Close()
	var st task.Status
	return st, json.Unmarshal(f.Body, &st)
}

// encodeStart takes the seccomp profile out of the spec, without changing it.
func (c *Client) encodeStart(meta wire.StartMeta, req task.StartRequest) ([]byte, error) {
	m, err := json.Marshal(meta)
	if err != nil {
		return nil, err
	}
	var profile []byte
	if req.Spec != nil && req.Spec.Linux != nil && req.Spec.Linux.Seccomp != nil {
		if profile, err = c.profiles.encode(req.Spec.Linux.Seccomp); err != nil {
			return nil, err
		}
		spec, linux := *req.Spec, *req.Spec.Linux
		linux.Seccomp = nil
		spec.Linux = &linux
		req.Spec = &spec
	}
	r, err := json.Marshal(req)
	if err != nil {
		return nil, err
	}
	return wire.Sections(m, r, profile), nil
}

// profileCache remembers encoded seccomp profiles by identity: callers share
// one among containers and do not change it afterwards.
type profileCache struct {
	mu sync.Mutex
	m  map[*specs.LinuxSeccomp][]byte
}

const maxProfiles = 8

func (p *profileCache) encode(s *specs.LinuxSeccomp) ([]byte, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if b := p.m[s]; b != nil {
		return b, nil
	}
	b, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	if p.m == nil || len(p.m) >= maxProfiles {
		p.m = map[*specs.LinuxSeccomp][]byte{}
	}
	p.m[s] = b
	return b, nil
}

// Exec implements task.Service.
func (c *Client) Exec(ctx context.Context, req task.ExecRequest, conn *os.File) (task.ExecStatus, error) {
	var files []*os.File
	if conn != nil {
		files = append(files, conn)
	}
	var st task.ExecStatus
	return st, c.do(ctx, wire.OpExec, req, &st, files...)
}

// Signal implements task.Service.
func (c *Client) Signal(ctx context.Context, id, execID string, signal int) error {
	return c.do(ctx, wire.OpSignal, wire.Target{ID: id, ExecID: execID, Signal: signal}, nil)
}

// Stop implements task.Service.
func (c *Client) Stop(ctx context.Context, id string, signal int, timeout time.Duration) (task.Status, error) {
	var st task.Status
	return st, c.do(ctx, wire.OpStop, wire.Target{ID: id, Signal: signal, Timeout: timeout}, &st)
}

// Update implements task.Service.
func (c *Client) Update(ctx context.Context, id string, req task.UpdateRequest) error {
	return c.do(ctx, wire.OpUpdate, wire.Update{ID: id, Request: req}, nil)
}

// Pause implements task.Service.
func (c *Client) Pause(ctx context.Context, id string) error {
	return c.do(ctx, wire.OpPause, wire.Target{ID: id}, nil)
}

// Resume implements task.Service.
func (c *Client) Resume(ctx context.Context, id string) error {
	return c.do(ctx, wire.OpResume, wire.Target{ID: id}, nil)
}

// Resize implements task.Service.
func (c *Client) Resize(ctx context.Context, id, execID string, width, height int) error {
	return c.do(ctx, wire.OpResize, wire.Target{ID: id, ExecID: execID, Width: width, Height: height}, nil)
}

// Attach implements task.Service.
func (c *Client) Attach(ctx context.Context, id string, req task.AttachRequest, conn *os.File) error {
	op := wire.OpAttach
	if req.ExecID != "" {
		op = wire.OpAttachExec
	}
	return c.do(ctx, op, wire.Attach{ID: id, Request: req}, nil, conn)
}

// HandWait implements task.Service.
func (c *Client) HandWait(ctx context.Context, id string, cond task.WaitCondition, conn *os.File) error {
	return c.do(ctx, wire.OpHandWait, wire.Target{ID: id, Wait: cond}, nil, conn)
}

// Status implements task.Service.
func (c *Client) Status(ctx context.Context, id string) (task.Status, error) {
	var st task.Status
	return st, c.do(ctx, wire.OpStatus, wire.Target{ID: id}, &st)
}

// ExecStatus implements task.Service.
func (c *Client) ExecStatus(ctx context.Context, id, execID string) (task.ExecStatus, error) {
	var st task.ExecStatus
	return st, c.do(ctx, wire.OpExecStatus, wire.Target{ID: id, ExecID: execID}, &st)
}

// OpenRoot implements task.Service.
func (c *Client) OpenRoot(ctx context.Context, id string, root task.Root) (*os.File, error) {
	return c.file(ctx, wire.OpOpenRoot, wire.OpenRoot{ID: id, Root: root}, "root")
}

// CloseRoot implements task.Service.
func (c *Client) CloseRoot(ctx context.Context, id string) error {
	return c.do(ctx, wire.OpCloseRoot, wire.Target{ID: id}, nil)
}

// NetNS implements task.Service.
func (c *Client) NetNS(ctx context.Context, id string) (*os.File, error) {
	return c.file(ctx, wire.OpNetNS, wire.Target{ID: id}, "netns")
}

// NewNetNS implements task.Service.
func (c *Client) NewNetNS(ctx context.Context, req task.NetNSRequest) (*os.File, error) {
	return c.file(ctx, wire.OpNewNetNS, req, "netns")
}

// Delete implements task.Service.
func (c *Client) Delete(ctx context.Context, id string, force bool) error {
	return c.do(ctx, wire.OpDelete, wire.Target{ID: id, Force: force}, nil)
}

// Events implements task.Service. The channel is closed when the connection is
// lost or the context ends.
func (c *Client) Events(ctx context.Context) (<-chan task.Event, error) {
	q := newEventQueue()
	c.mu.Lock()
	if c.events != nil || c.err != nil {
		defer c.mu.Unlock()
		return nil, errors.Join(c.err, errors.New("events are being read already or cannot be"))
	}
	c.events = q
	c.mu.Unlock()
	if err := c.do(ctx, wire.OpEvents, wire.Target{}, nil); err != nil {
		return nil, err
	}
	out := q.out
	go q.serve(ctx, c.lost)
	return out, nil
}

// Ack implements task.Service.
func (c *Client) Ack(ctx context.Context, seq uint64) error {
	return c.do(ctx, wire.OpAck, wire.Target{Seq: seq}, nil)
}

// Shutdown implements task.Service. It returns when the keeper, which is the
// last of the helpers to end, is gone.
func (c *Client) Shutdown(ctx context.Context) error {
	c.mu.Lock()
	pid := c.keeper
	c.mu.Unlock()
	pidfd := -1
	if pid > 0 {
		if fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK); err == nil {
			pidfd = fd
		}
	}
	f := os.NewFile(uintptr(pidfd), "keeper")
	if f != nil {
		defer f.Close()
	}
	if err := c.do(ctx, wire.OpShutdown, wire.Target{}, nil); err != nil {
		return err
	}
	if f == nil {
		return nil
	}
	return waitPidfd(ctx, f)
}

// waitPidfd returns when the process has ended.
func waitPidfd(ctx context.Context, f *os.File) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = f.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	err = raw.Read(func(fd uintptr) bool {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(p, 0)
		return n > 0 || (err != nil && err != unix.EINTR)
	})
	return errors.Join(ctx.Err(), err)
}
