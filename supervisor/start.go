package supervisor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"strconv"
	"time"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/keeper/exits"
	"github.com/wherry-engine/wherry/ocirun"
	"github.com/wherry-engine/wherry/task"
	"github.com/wherry-engine/wherry/task/wire"
)

// start handles a Start request.
func (c *conn) start(ctx context.Context, f *wire.Frame) (task.Status, error) {
	ph := newPhases()
	parts, err := wire.Split(f.Body, 3)
	if err != nil {
		return task.Status{}, fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
	}
	meta, err := decode[wire.StartMeta](parts[0])
	if err != nil {
		return task.Status{}, err
	}
	req, err := decodeStart(parts[1], parts[2], c.s.seccomp.decode)
	if err == nil {
		err = checkStart(req)
	}
	if err != nil {
		return task.Status{}, fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
	}
	t, err := c.s.reserve(req.ID, req.Runtime, req.SystemdDriver)
	if err != nil {
		return task.Status{}, err
	}
	defer t.op.Unlock()
	next := 0
	if meta.NetNS {
		t.netns = f.Take(next)
		next++
	}
	var client *client
	if meta.Attach {
		if client, err = newClient(f.Take(next), meta.AttachRequest, true); err != nil {
			c.s.unreserve(t)
			return task.Status{}, fmt.Errorf("attach: %w", err)
		}
	}
	t.policy, t.stdio, t.dies = req.Restart, req.Stdio, req.DieWithOwner
	if t.dies {
		t.owner = c
	}
	save := func() error { return c.s.journal.saveRequest(req.ID, parts[1], parts[2]) }
	err = t.run(context.WithoutCancel(ctx), req, client, ph, save)
	if err != nil {
		if client != nil {
			client.finish()
		}
		c.s.unreserve(t)
		return task.Status{}, startError(err)
	}
	if t.dies && c.gone.Err() != nil {
		c.s.ownerGone(c) // it left while we were starting
	}
	st, _ := t.snapshot()
	st.Phases = ph.list
	return st, nil
}

func checkStart(req *task.StartRequest) error {
	switch {
	case req.Version > task.Protocol:
		return fmt.Errorf("start request of version %d", req.Version)
	case req.Spec == nil || req.Spec.Process == nil:
		return errors.New("start request without a process")
	case req.Runtime != nil && req.Runtime.Path == "":
		return errors.New("start request with a runtime that has no path")
	}
	return validID(req.ID)
}

// startError keeps the exit code of a process that could not be executed.
func startError(err error) error {
	var se *ocirun.StartError
	if errors.As(err, &se) {
		return &task.StartError{Code: se.Code, Msg: err.Error()}
	}
	return err
}

// reserve makes the entry of a task about to start, which nobody else starts.
// The caller holds its op lock.
func (s *Supervisor) reserve(id string, how *task.Runtime, systemd bool) (*taskEntry, error) {
	s.mu.Lock()
	old := s.tasks[id]
	s.mu.Unlock()
	if old != nil {
		if err := s.retire(old); err != nil {
			return nil, err
		}
	}
	s.mu.Lock()
	lag := s.lagging[id]
	s.mu.Unlock()
	if lag != nil {
		<-lag // the next life uses the same names
	}
	t := newEntry(s, id, how, systemd)
	t.op.Lock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		t.op.Unlock()
		return nil, fmt.Errorf("%w: %w", errShuttingDown, errdefs.ErrUnavailable)
	}
	if s.tasks[id] != nil {
		t.op.Unlock()
		return nil, fmt.Errorf("task %s exists: %w", id, errdefs.ErrAlreadyExists)
	}
	s.tasks[id] = t
	return t, nil
}

// retire takes an exited task out of the way of its next run.
func (s *Supervisor) retire(t *taskEntry) error {
	t.op.Lock() // its cleaning up may be under way
	defer t.op.Unlock()
	t.mu.Lock()
	active := t.active() || t.st.State == ""
	if !active {
		t.deleted = true
	}
	t.mu.Unlock()
	if active {
		return fmt.Errorf("task %s is running: %w", t.id, errdefs.ErrAlreadyExists)
	}
	t.letGo()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tasks[t.id] == t {
		delete(s.tasks, t.id)
	}
	return nil
}

// unreserve forgets a task that could not be started.
func (s *Supervisor) unreserve(t *taskEntry) {
	t.mu.Lock()
	t.deleted = true
	t.mu.Unlock()
	t.letGo()
	s.mu.Lock()
	if s.tasks[t.id] == t {
		delete(s.tasks, t.id)
	}
	s.mu.Unlock()
	if err := errors.Join(s.journal.removeRequest(t.id), s.journal.removeStatus(t.id)); err != nil {
		s.log.Error("cannot clean the journal", "task", t.id, "err", err)
	}
	t.mu.Lock()
	close(t.exited) // for those who asked to stop it
	t.exited = make(chan struct{})
	t.mu.Unlock()
}

// run starts the task's process; the caller holds op. Before there is one, save
// has recorded the request. On error nothing of the run is left but what belongs to
// the task as such.
func (t *taskEntry) run(ctx context.Context, req *task.StartRequest, owner *client, ph *phases, save func() error) (err error) {
	l := &launch{t: t, req: req, phases: ph}
	defer func() {
		if err != nil {
			l.undo(ctx)
		}
	}()
	saved := make(chan error, 1)
	go func() { saved <- save() }()
	err = l.prepare(ctx)
	if serr := <-saved; serr != nil {
		err = errors.Join(fmt.Errorf("journal: %w", serr), err)
	}
	if err != nil {
		return err
	}
	ph.end("journal")
	if err := l.create(ctx); err != nil {
		return err
	}
	if owner != nil {
		owner.join(l.io)
	}
	if err := l.publish(); err != nil {
		return err
	}
	l.started = true
	// The journal is written while the runtime waits for the program: killed
	// in between, the next supervisor finds a start that nobody was told of,
	// and undoes it.
	recorded := make(chan struct{})
	go func() {
		defer close(recorded)
		l.record()
	}()
	err = l.c.start()
	<-recorded
	ph.end("exec")
	if err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.st.State = task.Running
	if t.stopping { // while it was being started
		t.st.Stopped = true
		t.saveLocked()
		_ = t.sendSignal(int(unix.SIGKILL))
	}
	return l.watch()
}

// launch is one start under way.
type launch struct {
	t      *taskEntry
	req    *task.StartRequest
	phases *phases
	root   *os.File
	sink   *sink
	pipes  *pipes
	c      *created
	io     *ioset
	// started is set when the runtime was told to, be it in vain.
	started bool
	join    map[specs.LinuxNamespaceType]*os.File
}

// prepare opens what the runtime needs.
func (l *launch) prepare(ctx context.Context) (err error) {
	t, req := l.t, l.req
	if len(req.Root.Layers) > 0 || req.Root.Bind != "" || req.Root.Upper != "" {
		if l.root, err = t.s.roots.open(ctx, t.id, req.Root); err != nil {
			return err
		}
		t.mu.Lock()
		t.hasRoot = true
		t.mu.Unlock()
		l.phases.end("root")
	}
	if l.sink, err = t.s.openSink(t.id, req.Log); err != nil {
		return err
	}
	l.pipes = &pipes{stdin: -1, stdout: -1, stderr: -1}
	if !req.Stdio.Terminal {
		if l.pipes, err = makePipes(req.Stdio.OpenStdin); err != nil {
			return fmt.Errorf("pipes: %w", err)
		}
	}
	l.join, err = t.s.namespaces(req)
	if err == nil && hasNamespace(req.Spec, specs.UserNamespace) {
		err = l.joinUserNS()
	}
	l.phases.end("log and streams")
	return err
}

// joinUserNS has the container enter the user namespace that its network
// namespace belongs to: only there may it configure the network, and both are kept
// for its next lives. Its streams become root's there.
func (l *launch) joinUserNS() error {
	if ns := l.join[specs.NetworkNamespace]; ns != nil || l.t.netns >= 0 {
		if ns == nil {
			var err error
			if ns, err = l.t.s.netNS(l.t.id); err != nil {
				return err
			}
			defer ns.Close()
		}
		owner, err := ocirun.OwnerOf(ns)
		if err != nil {
			return err
		}
		l.join[specs.UserNamespace] = owner
	}
	return l.pipes.own(l.req.Spec.Linux)
}

// create makes the container's init.
func (l *launch) create(ctx context.Context) error {
	t, req := l.t, l.req
	cr := &ocirun.CreateRequest{
		ID: t.id, Spec: req.Spec, Root: l.root, Join: l.join, Init: req.Init, SystemdCgroup: req.SystemdDriver,
		Stdin: l.pipes.proc[0], Stdout: l.pipes.proc[1], Stderr: l.pipes.proc[2],
		ResolveUser: true, User: req.User, Groups: req.Groups,
	}
	if req.Stdio.Terminal {
		req.Spec.Process.Terminal = true
		cr.Width, cr.Height = uint16(req.Stdio.Width), uint16(req.Stdio.Height)
	}
	if req.Spec.Linux != nil {
		req.Spec.Linux.CgroupsPath = cgroupsPath(req)
	}
	if t.netns >= 0 {
		fd, err := unix.FcntlInt(uintptr(t.netns), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return err
		}
		cr.NetNS = os.NewFile(uintptr(fd), "netns")
		defer cr.NetNS.Close()
	} else if f := l.join[specs.NetworkNamespace]; f != nil {
		cr.NetNS = f
	}
	var err error
	l.c, err = t.rt.Create(ctx, cr)
	if err == nil {
		l.phases.add("plan", l.c.phases)
	}
	l.pipes.closeProc()
	for _, f := range l.join {
		_ = f.Close()
	}
	l.join = nil
	if err != nil {
		return err
	}
	if l.c.console != nil {
		if l.pipes.stdout, err = takeFD(l.c.console); err != nil {
			return err
		}
		l.c.console = nil
		if err := unix.SetNonblock(l.pipes.stdout, true); err != nil {
			return err
		}
	}
	l.io = t.s.newIOSet(t.id, "", req.Stdio, l.pipes, l.sink)
	l.sink.onTrouble = t.logTrouble
	l.io.onDetach, l.io.onStdinClosed = t.detachedClient, t.stdinClosed
	return nil
}

// cgroupsPath of the task: as the specification says, or below the parent. For
// the systemd driver that is a slice, with a scope for the container.
func cgroupsPath(req *task.StartRequest) string {
	l := req.Spec.Linux
	switch {
	case l != nil && l.CgroupsPath != "":
		return l.CgroupsPath
	case !req.SystemdDriver:
		return path.Join("/", req.CgroupParent, req.ID)
	}
	return req.CgroupParent + ":wherry:" + req.ID
}

// cgroupOf names the task's cgroup. One that cannot be is refused by the runtime.
func cgroupOf(req *task.StartRequest) string {
	name, _ := ocirun.CgroupOf(req.ID, cgroupsPath(req), req.SystemdDriver)
	return name
}

// publish enters the process in the task.
func (l *launch) publish() error {
	t := l.t
	pidfd, err := takeFD(l.c.pidfd)
	if err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	restarts := t.st.Restarts
	// The moment is that before the process, which may be quick.
	t.st = task.Status{ID: t.id, Pid: l.c.pid, Cgroup: l.c.cgroup, Restarts: restarts, StartedAt: time.Now()}
	t.pidfd, t.io, t.noStdin = pidfd, l.io, false
	t.spec = execSpec(l.req.Spec)
	t.shared = !hasNamespace(l.req.Spec, specs.PIDNamespace)
	return nil
}

// record leaves with the keeper and in the journal what a later supervisor
// needs to go on with the process.
func (l *launch) record() {
	t := l.t
	start, err := exits.StartTime(l.c.pid)
	if err != nil {
		t.s.log.Error("cannot read a start time", "task", t.id, "err", err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.start = start
	t.leaveLocked()
	t.st.State = task.Running // in the journal; for others when the runtime says so
	t.saveLocked()
	t.st.State = ""
}

// watch begins to wait for the end and for output. Called with t.mu held.
func (l *launch) watch() error {
	t := l.t
	var err error
	if t.exitTok, err = t.s.poll.add(t.pidfd, unix.EPOLLIN, func(uint32) { t.ended() }); err != nil {
		return err
	}
	return l.io.watch()
}

// undo removes what a failed start has made.
func (l *launch) undo(ctx context.Context) {
	t := l.t
	if l.c != nil {
		if !l.started {
			_ = l.c.abort()
		}
		if !l.c.adopted { // the end of others' comes with the removal of their container
			_ = unix.Kill(l.c.pid, unix.SIGKILL) // our child, not reaped yet: its pid is its own
			var ws unix.WaitStatus
			_, _ = unix.Wait4(l.c.pid, &ws, unix.WALL, nil)
		}
	}
	t.mu.Lock()
	if l.c != nil {
		if t.exitTok != 0 {
			t.s.poll.remove(t.pidfd, t.exitTok)
			t.exitTok = 0
		}
		if t.pidfd >= 0 {
			_ = unix.Close(t.pidfd)
			t.pidfd = -1
		}
		t.io = nil
		t.st.Pid, t.start = 0, 0
		t.leaveLocked()
	}
	hasRoot := t.hasRoot
	t.hasRoot = false
	t.mu.Unlock()
	for _, f := range l.join {
		_ = f.Close()
	}
	switch {
	case l.io != nil:
		l.io.close()
	case l.pipes != nil:
		l.pipes.closeProc()
		l.pipes.closeOurs()
	}
	l.sink.close()
	if l.c != nil {
		if err := t.rt.DeleteCgroup(ctx, l.c.cgroup); err != nil {
			t.s.log.Warn("cannot remove a cgroup", "task", t.id, "err", err)
		}
	}
	if hasRoot {
		if err := t.s.roots.release(t.id); err != nil {
			t.s.log.Warn("cannot unmount a root", "task", t.id, "err", err)
		}
	}
}

// takeFD returns the descriptor of f as one of our own and closes f.
func takeFD(f *os.File) (int, error) {
	if f == nil {
		return -1, nil
	}
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	return fd, errors.Join(err, f.Close())
}

func hasNamespace(spec *specs.Spec, typ specs.LinuxNamespaceType) bool {
	if spec.Linux == nil {
		return false
	}
	for _, ns := range spec.Linux.Namespaces {
		if ns.Type == typ {
			return ns.Path == ""
		}
	}
	return false
}

// namespaces opens those of other tasks that the request names.
func (s *Supervisor) namespaces(req *task.StartRequest) (map[specs.LinuxNamespaceType]*os.File, error) {
	join := map[specs.LinuxNamespaceType]*os.File{}
	for _, j := range []struct {
		id   string
		typ  specs.LinuxNamespaceType
		file string
	}{
		{req.JoinPID, specs.PIDNamespace, "pid"}, {req.JoinIPC, specs.IPCNamespace, "ipc"},
		{req.JoinUTS, specs.UTSNamespace, "uts"}, {req.JoinNet, specs.NetworkNamespace, "net"},
	} {
		if j.id == "" {
			continue
		}
		f, err := s.namespace(j.id, j.file)
		if err != nil {
			for _, f := range join {
				_ = f.Close()
			}
			return nil, fmt.Errorf("join the %s namespace of %s: %w", j.file, j.id, err)
		}
		join[j.typ] = f
	}
	return join, nil
}

// newNetNS makes a network namespace for a task to come.
func (s *Supervisor) newNetNS(req task.NetNSRequest) (*os.File, error) {
	if req.Task == "" {
		return s.rt.NewNetNS(nil, req.UIDMappings, req.GIDMappings)
	}
	user, err := s.namespace(req.Task, "user")
	if err != nil {
		return nil, fmt.Errorf("join the user namespace of %s: %w", req.Task, err)
	}
	defer user.Close()
	return s.rt.NewNetNS(user, nil, nil)
}

func (s *Supervisor) namespace(id, file string) (*os.File, error) {
	t, err := s.get(id)
	if err != nil {
		return nil, err
	}
	if file == "net" {
		if f, err := s.netNS(id); err == nil {
			return f, nil
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.running() {
		return nil, notRunning(id)
	}
	f, err := os.Open("/proc/" + strconv.Itoa(t.st.Pid) + "/ns/" + file)
	if err != nil {
		return nil, err
	}
	// The pid was not reused: the process can still be signalled.
	if err := unix.PidfdSendSignal(t.pidfd, 0, nil, 0); err != nil {
		return nil, errors.Join(notRunning(id), f.Close())
	}
	return f, nil
}
