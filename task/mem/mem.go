// Package mem is a task.Service without processes, for tests of what stands
// above it. Tasks run until a test ends them with Exit; nothing is written to
// connections but prefaces.
package mem

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/containerd/errdefs"

	"github.com/wherry-engine/wherry/task"
)

// Service implements task.Service in memory. The zero value is not usable.
type Service struct {
	mu      sync.Mutex
	epoch   uint64
	seq     uint64
	pid     int
	tasks   map[string]*entry
	pending []task.Event
	changed chan struct{}
	// OnStart, if not nil, decides the outcome of starts: an error, or nil.
	OnStart func(task.StartRequest) error
	// OnExec decides the outcome of execs; the code is that of their exit.
	OnExec func(task.ExecRequest) (code int, err error)
	// IgnoreStop makes tasks ignore all signals but SIGKILL.
	IgnoreStop bool
}

type entry struct {
	req     task.StartRequest
	st      task.Status
	execs   map[string]task.ExecStatus
	exited  chan struct{}
	signals []int
}

var _ task.Service = (*Service)(nil)

// New makes an empty service.
func New() *Service {
	return &Service{tasks: map[string]*entry{}, changed: make(chan struct{}), pid: 1000}
}

// Hello implements task.Service.
func (s *Service) Hello(context.Context) (task.Inventory, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.epoch++
	inv := task.Inventory{Protocol: task.Protocol, Epoch: s.epoch}
	for _, id := range slices.Sorted(maps.Keys(s.tasks)) {
		inv.Tasks = append(inv.Tasks, s.tasks[id].st)
		for _, e := range s.tasks[id].execs {
			inv.Execs = append(inv.Execs, e)
		}
	}
	return inv, nil
}

// Start implements task.Service.
func (s *Service) Start(_ context.Context, req task.StartRequest, files task.StartFiles) (task.Status, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.tasks[req.ID]; old != nil && old.st.State != task.Exited {
		return task.Status{}, fmt.Errorf("task %s is running: %w", req.ID, errdefs.ErrAlreadyExists)
	}
	if s.OnStart != nil {
		if err := s.OnStart(req); err != nil {
			return task.Status{}, err
		}
	}
	if files.Attach != nil {
		_, _ = files.Attach.Write(files.AttachRequest.Preface)
	}
	s.pid++
	e := &entry{req: req, execs: map[string]task.ExecStatus{}, exited: make(chan struct{}),
		st: task.Status{ID: req.ID, State: task.Running, Pid: s.pid, StartedAt: time.Now(), Cgroup: "/mem/" + req.ID}}
	s.tasks[req.ID] = e
	return e.st, nil
}

func (s *Service) get(id string) (*entry, error) {
	e := s.tasks[id]
	if e == nil {
		return nil, fmt.Errorf("no task %s: %w", id, errdefs.ErrNotFound)
	}
	return e, nil
}

func (s *Service) running(id string) (*entry, error) {
	e, err := s.get(id)
	if err == nil && e.st.State != task.Running && e.st.State != task.Paused {
		err = fmt.Errorf("container %s is not running: %w", id, errdefs.ErrFailedPrecondition)
	}
	return e, err
}

func (s *Service) emit(e task.Event) {
	s.seq++
	e.Seq, e.Time = s.seq, time.Now()
	s.pending = append(s.pending, e)
	close(s.changed)
	s.changed = make(chan struct{})
}

// Exit ends a task as its process would. There are no restarts.
func (s *Service) Exit(id string, code int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, err := s.running(id)
	if err != nil {
		return err
	}
	s.exit(e, code)
	return nil
}

func (s *Service) exit(e *entry, code int) {
	e.st.State, e.st.Pid, e.st.ExitCode, e.st.FinishedAt = task.Exited, 0, code, time.Now()
	close(e.exited)
	s.emit(task.Event{Kind: task.EventExited, Status: e.st})
}

// Request returns what a task was started with.
func (s *Service) Request(id string) (task.StartRequest, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.tasks[id]
	if e == nil {
		return task.StartRequest{}, false
	}
	return e.req, true
}

// Signals returns the signals a task was sent.
func (s *Service) Signals(id string) []int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.tasks[id]; e != nil {
		return slices.Clone(e.signals)
	}
	return nil
}

// Exec implements task.Service: it runs and ends at once.
func (s *Service) Exec(_ context.Context, req task.ExecRequest, conn *os.File) (task.ExecStatus, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, err := s.running(req.ID)
	if err != nil {
		return task.ExecStatus{}, err
	}
	code := 0
	if s.OnExec != nil {
		if code, err = s.OnExec(req); err != nil {
			return task.ExecStatus{}, err
		}
	}
	if conn != nil {
		_, _ = conn.Write(req.Attach.Preface)
	}
	s.pid++
	st := task.ExecStatus{ID: req.ID, ExecID: req.ExecID, Running: true, Pid: s.pid}
	done := task.ExecStatus{ID: req.ID, ExecID: req.ExecID, ExitCode: code}
	e.execs[req.ExecID] = done
	s.emit(task.Event{Kind: task.EventExecDied, Status: e.st, Exec: &done})
	return st, nil
}

// Signal implements task.Service. SIGKILL ends a task, and so does SIGTERM.
func (s *Service) Signal(_ context.Context, id, execID string, signal int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, err := s.running(id)
	if err != nil || execID != "" {
		return err
	}
	s.signal(e, signal)
	return nil
}

func (s *Service) signal(e *entry, signal int) {
	e.signals = append(e.signals, signal)
	if signal == 9 || (signal == 15 && !s.IgnoreStop) {
		s.exit(e, 128+signal)
	}
}

// Stop implements task.Service.
func (s *Service) Stop(ctx context.Context, id string, signal int, timeout time.Duration) (task.Status, error) {
	s.mu.Lock()
	e, err := s.get(id)
	if err != nil {
		s.mu.Unlock()
		return task.Status{}, err
	}
	e.st.Stopped = true
	if e.st.State != task.Exited {
		s.signal(e, signal)
	}
	s.mu.Unlock()
	var expired <-chan time.Time
	if timeout >= 0 {
		t := time.NewTimer(timeout)
		defer t.Stop()
		expired = t.C
	}
	select {
	case <-e.exited:
	case <-ctx.Done():
		return task.Status{}, ctx.Err()
	case <-expired:
		s.mu.Lock()
		if e.st.State != task.Exited {
			s.signal(e, 9)
		}
		s.mu.Unlock()
	}
	return s.Status(ctx, id)
}

// Update implements task.Service.
func (s *Service) Update(_ context.Context, id string, req task.UpdateRequest) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, err := s.get(id)
	if err == nil && req.Restart != nil {
		e.req.Restart = *req.Restart
	}
	return err
}

// Pause implements task.Service.
func (s *Service) Pause(_ context.Context, id string) error {
	return s.change(id, task.Running, task.Paused)
}

// Resume implements task.Service.
func (s *Service) Resume(_ context.Context, id string) error {
	return s.change(id, task.Paused, task.Running)
}

func (s *Service) change(id string, from, to task.State) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, err := s.get(id)
	if err != nil {
		return err
	}
	if e.st.State != from {
		return fmt.Errorf("container %s is %s: %w", id, e.st.State, errdefs.ErrFailedPrecondition)
	}
	e.st.State = to
	return nil
}

// Resize implements task.Service.
func (s *Service) Resize(_ context.Context, id, _ string, _, _ int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, err := s.running(id)
	return err
}

// Attach implements task.Service: the preface and the end.
func (s *Service) Attach(_ context.Context, id string, req task.AttachRequest, conn *os.File) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := s.running(id); err != nil {
		return err
	}
	_, err := conn.Write(req.Preface)
	return err
}

// HandWait implements task.Service; the connection is dropped.
func (s *Service) HandWait(context.Context, string, task.WaitCondition, *os.File) error { return nil }

// Status implements task.Service.
func (s *Service) Status(_ context.Context, id string) (task.Status, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, err := s.get(id)
	if err != nil {
		return task.Status{}, err
	}
	return e.st, nil
}

// ExecStatus implements task.Service.
func (s *Service) ExecStatus(_ context.Context, id, execID string) (task.ExecStatus, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, err := s.get(id)
	if err != nil {
		return task.ExecStatus{}, err
	}
	st, ok := e.execs[execID]
	if !ok {
		return st, fmt.Errorf("no exec %s: %w", execID, errdefs.ErrNotFound)
	}
	return st, nil
}

// OpenRoot implements task.Service: the upper or bind directory itself.
func (s *Service) OpenRoot(_ context.Context, _ string, root task.Root) (*os.File, error) {
	dir := root.Bind
	if dir == "" {
		dir = root.Upper
	}
	return os.Open(dir)
}

// CloseRoot implements task.Service.
func (s *Service) CloseRoot(context.Context, string) error { return nil }

// NetNS implements task.Service: there is none.
func (s *Service) NetNS(_ context.Context, id string) (*os.File, error) {
	return nil, fmt.Errorf("no network namespace is kept for %s: %w", id, errdefs.ErrNotFound)
}

// NewNetNS implements task.Service: there is none.
func (s *Service) NewNetNS(context.Context, task.NetNSRequest) (*os.File, error) {
	return nil, fmt.Errorf("no network namespaces are made: %w", errdefs.ErrNotImplemented)
}

// Delete implements task.Service.
func (s *Service) Delete(_ context.Context, id string, force bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, err := s.get(id)
	if err != nil {
		return err
	}
	if e.st.State != task.Exited {
		if !force {
			return fmt.Errorf("container %s is running: %w", id, errdefs.ErrFailedPrecondition)
		}
		s.signal(e, 9)
	}
	delete(s.tasks, id)
	return nil
}

// Events implements task.Service.
func (s *Service) Events(ctx context.Context) (<-chan task.Event, error) {
	out := make(chan task.Event)
	go func() {
		defer close(out)
		for after := uint64(0); ; {
			s.mu.Lock()
			var next []task.Event
			for _, e := range s.pending {
				if e.Seq > after {
					next = append(next, e)
				}
			}
			changed := s.changed
			s.mu.Unlock()
			for _, e := range next {
				select {
				case out <- e:
					after = e.Seq
				case <-ctx.Done():
					return
				}
			}
			select {
			case <-changed:
			case <-ctx.Done():
				return
			}
		}
	}()
	return out, nil
}

// Ack implements task.Service.
func (s *Service) Ack(_ context.Context, seq uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pending = slices.DeleteFunc(s.pending, func(e task.Event) bool { return e.Seq <= seq })
	return nil
}

// Shutdown implements task.Service.
func (s *Service) Shutdown(context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.tasks) > 0 {
		return fmt.Errorf("%d tasks exist: %w", len(s.tasks), errdefs.ErrFailedPrecondition)
	}
	return nil
}
