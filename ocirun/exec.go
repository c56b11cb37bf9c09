package ocirun

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/ocirun/wire"
)

// joinable are the namespaces that a thread of this process enters before it
// clones; joinLater are entered by the child: the mount namespace, because the
// program is found in ours, and the cgroup namespace, because from within the
// kernel does not let a clone into a cgroup that it was not in already
// (nsdelegate).
const (
	joinable  = unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWNET | unix.CLONE_NEWPID
	joinLater = unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP
)

// Exec runs a further process in a container. A *StartError tells why it
// could not be executed; then nothing is left to reap.
func (r *Runtime) Exec(ctx context.Context, req *ExecRequest) (*Process, error) {
	if req.PidFD == nil || req.Process == nil || req.Spec == nil || req.Spec.Linux == nil {
		return nil, invalidf("exec: the request lacks its container or process")
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if req.Spec.Linux.IntelRdt != nil && req.ID == "" {
		return nil, invalidf("exec: the request lacks its container's name")
	}
	proc, err := r.exec(ctx, req)
	if err == nil {
		if err = enterRdt(req.ID, req.Spec.Linux, proc.Pid); err != nil && !exited(proc.PidFD) {
			(&spawned{pid: proc.Pid, pidfd: proc.PidFD}).kill()
			closeFile(proc.PidFD)
			closeFile(proc.Console)
			return nil, err
		}
		err = nil
	}
	var start *StartError
	if err != nil && !errors.As(err, &start) && ctx.Err() == nil && exited(req.PidFD) {
		return nil, fmt.Errorf("exec: the container is not running: %w", errdefs.ErrFailedPrecondition)
	}
	return proc, err
}

// exited tells whether the process of a pidfd has ended.
func exited(pidfd *os.File) bool {
	poll := []unix.PollFd{{Fd: int32(pidfd.Fd()), Events: unix.POLLIN}}
	n, err := unix.Poll(poll, 0)
	return err == nil && n > 0
}

// exec lets an init outside of the container fork the process, or else starts
// an init inside.
func (r *Runtime) exec(ctx context.Context, req *ExecRequest) (*Process, error) {
	cfg, fds, err := r.execConfig(req)
	if err != nil {
		return nil, err
	}
	proc, err := r.execByFork(ctx, req, cfg)
	// EBUSY: v2 groups inside the container, see below.
	if !errors.Is(err, errNoFork) && !errors.Is(err, unix.EBUSY) {
		return proc, err
	}
	if cfg, fds, err = r.execConfig(req); err != nil {
		return nil, err
	}
	sub, err := r.cgroups.Below(req.Cgroup, req.SubCgroups)
	if err != nil {
		return nil, fmt.Errorf("exec: %w", err)
	}
	s, err := r.spawnExec(req, cfg, sub)
	if err != nil {
		return nil, fmt.Errorf("exec: %w", err)
	}
	agent := AgentOf(&CreateRequest{ID: req.ID, Spec: req.Spec, Bundle: req.Bundle}, s.pid, specs.StateRunning)
	var console *os.File
	root, err := foreignRoot(req)
	if err == nil && root != nil {
		cfg.RootFD, fds = len(fds), append(fds, int(root.Fd()))
	}
	var groups []int
	if err == nil && !r.cgroups.V2 {
		// Of its own, so that the container need not have the memory it starts with.
		groups, err = r.cgroups.OpenTasks(req.Cgroup, sub)
		for i := range groups {
			cfg.CgroupFDs = append(cfg.CgroupFDs, len(fds)+i)
		}
	}
	if err == nil {
		console, err = r.runExec(ctx, s, cfg, append(fds, groups...), agent)
	}
	closeFDs(groups)
	closeFile(root)
	unix.Close(s.conn.FD)
	if err != nil {
		s.kill()
		s.pidfd.Close()
		return nil, err
	}
	return &Process{Pid: s.pid, PidFD: s.pidfd, Console: console}, nil
}

// thawed refuses cgroups that are frozen.
func (r *Runtime) thawed(cgroup string) error {
	if frozen, err := r.cgroups.Frozen(cgroup); err == nil && frozen {
		return fmt.Errorf("the container is paused: %w", errdefs.ErrFailedPrecondition)
	}
	return nil
}

// spawnExec starts an init in the container.
func (r *Runtime) spawnExec(req *ExecRequest, cfg *wire.Config, sub []string) (*spawned, error) {
	// It would be stuck there.
	if err := r.thawed(req.Cgroup); err != nil {
		return nil, err
	}
	path := req.Cgroup
	if sub != nil {
		path = sub[len(sub)-1] // the unified hierarchy, if there is one, is the last
	}
	b := &birth{cgroup: path, extra: req.ExtraFiles, enter: []nsFD{{int(req.PidFD.Fd()), joinable}}}
	if cfg.UserNS {
		b.userNS = req.PidFD
	}
	if hasNamespace(req.Spec, specs.TimeNamespace) {
		b.timeNS = req.PidFD
	}
	if a := req.Process.ExecCPUAffinity; a != nil && a.Initial != "" {
		var err error
		if b.affinity, err = bitMask(a.Initial); err != nil {
			return nil, err
		}
	}
	if !req.Process.Terminal {
		b.stdio = [3]*os.File{req.Stdin, req.Stdout, req.Stderr}
	}
	s, err := r.spawn(b)
	if errors.Is(err, unix.EBUSY) && r.cgroups.V2 && sub == nil {
		// The container made groups of its own inside; no process may then be
		// beside them. Its init knows a place.
		if b.cgroup, err = cgroupOfProcess(req.Pid); err == nil {
			s, err = r.spawn(b)
		}
	}
	return s, err
}

func (r *Runtime) execConfig(req *ExecRequest) (*wire.Config, []int, error) {
	userNS := hasNamespace(req.Spec, specs.UserNamespace)
	held := r.held
	if userNS {
		held = ^uint64(0) >> (63 - unix.CAP_LAST_CAP)
	}
	w, err := process(req.Process, &processOptions{
		resolveUser: req.ResolveUser, user: req.User, groups: req.Groups, width: req.Width, height: req.Height,
		filter: req.Spec.Linux.Seccomp, personality: req.Spec.Linux.Personality, memory: req.Spec.Linux.MemoryPolicy, held: held, log: r.log,
		exec: true,
	})
	if err != nil {
		return nil, nil, err
	}
	w.KeepFDs = len(req.ExtraFiles)
	w.Keyring = "_ses." + path.Base(req.Cgroup) // never the engine's own
	later := joinLater
	if userNS && !hasNamespace(req.Spec, specs.CgroupNamespace) {
		later &^= unix.CLONE_NEWCGROUP // it is ours, and root of that user namespace may not enter it
	}
	return &wire.Config{
		Join: true, JoinFD: 0, JoinFlags: later, RootFD: -1, UserNS: userNS, Process: w,
	}, []int{int(req.PidFD.Fd())}, nil
}

// runExec goes through the protocol without a pause before the program.
func (r *Runtime) runExec(ctx context.Context, s *spawned, cfg *wire.Config, fds []int, agent *Agent) (*os.File, error) {
	stop := s.watch(ctx)
	console, err := s.talkExec(ctx, cfg, fds, agent)
	if !stop() && err == nil {
		closeFile(console)
		return nil, ctx.Err()
	}
	return console, err
}

func (s *spawned) talkExec(ctx context.Context, cfg *wire.Config, fds []int, agent *Agent) (*os.File, error) {
	// An init that failed at once is gone before Continue is sent; what it had
	// to say is still to be read.
	if err := s.send(wire.KindConfig, cfg, fds...); err != nil {
		return nil, fmt.Errorf("configure exec: %w", err)
	}
	if err := s.send(wire.KindContinue, nil); err != nil {
		return nil, fmt.Errorf("configure exec: %w", err)
	}
	msg, err := s.receive(ctx)
	if err != nil {
		return nil, err
	}
	console := consoleOf(msg)
	msg, err = receiveEnd(s.conn, agent)
	switch {
	case errors.Is(err, io.EOF):
		return console, nil
	case err == nil:
		if err = failureOf(msg); err == nil {
			err = fmt.Errorf("init sent an unexpected message %d", msg.Kind)
		}
	}
	closeFile(console)
	return nil, err
}

// cgroupOfProcess reads where a process is, for cgroups that the container
// itself moved it to.
func cgroupOfProcess(pid int) (string, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(b)) {
		if p, ok := strings.CutPrefix(line, "0::"); ok {
			return strings.TrimSpace(p), nil
		}
	}
	return "", fmt.Errorf("process %d: %w", pid, errdefs.ErrNotFound)
}
