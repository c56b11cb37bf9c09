package ocirun

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"runtime"
	"strings"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/ocirun/wire"
)

// joinable are the namespaces that can be entered before the clone; joinLater are
// entered by the child: the mount namespace, because the program is found in ours,
// and the cgroup namespace, because from within the kernel does not let a clone
// into a cgroup that it was not in already (nsdelegate).
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
			s := &spawned{pid: proc.Pid, pidfd: proc.PidFD}
			s.signalKill()
			s.reap()
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

// exec tries again where that can help.
func (r *Runtime) exec(ctx context.Context, req *ExecRequest) (*Process, error) {
	sub, err := r.cgroups.Below(req.Cgroup, req.SubCgroups)
	if err != nil {
		return nil, fmt.Errorf("exec: %w", err)
	}
	cgroup := req.Cgroup
	if sub != nil {
		cgroup = sub[len(sub)-1] // the unified hierarchy, if there is one, is the last
	}
	for {
		p, err := r.execInto(ctx, req, cgroup, sub)
		switch {
		case errors.Is(err, errForkerDied):
			continue
		case errors.Is(err, unix.EBUSY) && r.cgroups.V2 && sub == nil && cgroup == req.Cgroup:
			// The container made groups of its own inside; no process may then be
			// beside them. Its init knows a place.
			if cgroup, err = cgroupOfProcess(req.Pid); err == nil && cgroup != req.Cgroup {
				continue
			}
		}
		return p, err
	}
}

// execInto makes an init in the container that executes the process.
func (r *Runtime) execInto(ctx context.Context, req *ExecRequest, cgroup string, sub []string) (*Process, error) {
	// It would be stuck there; frozen before anybody knows of it, it would also
	// keep the container's first process from ending.
	if frozen, err := r.cgroups.Frozen(req.Cgroup); err == nil && frozen {
		return nil, fmt.Errorf("exec: the container is paused: %w", errdefs.ErrFailedPrecondition)
	}
	cfg, err := r.execConfig(req)
	if err != nil {
		return nil, err
	}
	b, err := execBirth(req, cfg)
	if err != nil {
		return nil, err
	}
	b.cgroup = cgroup
	root, err := foreignRoot(req)
	if err != nil {
		return nil, err
	}
	defer closeFile(root)
	fds := []int{int(req.PidFD.Fd())}
	if root != nil {
		cfg.RootFD, fds = len(fds), append(fds, int(root.Fd()))
	}
	s, err := r.spawn(b)
	if err != nil {
		return nil, fmt.Errorf("exec: %w", err)
	}
	if cfg.UserNS {
		if err := outfit(s.pid, &cfg.Process); err != nil {
			r.drop(s)
			return nil, err
		}
	}
	if !r.cgroups.V2 {
		// By itself, so that the container need not have the memory it starts with;
		// they are opened while it is made.
		groups, err := r.cgroups.OpenTasks(req.Cgroup, sub)
		if err != nil {
			r.drop(s)
			return nil, err
		}
		defer closeFDs(groups)
		for i := range groups {
			cfg.CgroupFDs = append(cfg.CgroupFDs, len(fds)+i)
		}
		fds = append(fds, groups...)
	}
	console, err := r.runExec(ctx, s, cfg, fds, req)
	runtime.KeepAlive(req)
	if errors.As(err, new(*StartError)) {
		r.reuseAfterEnd(s)
	}
	if err != nil {
		r.drop(s)
		return nil, err
	}
	r.reuse(s)
	unix.Close(s.conn.FD)
	return &Process{Pid: s.pid, PidFD: s.pidfd, Console: console}, nil
}

// execBirth says how that init is cloned, and cfg which namespaces it then enters.
func execBirth(req *ExecRequest, cfg *wire.Config) (*birth, error) {
	b := &birth{extra: req.ExtraFiles, fork: execForkable(req, cfg)}
	if cfg.UserNS {
		b.userNS = req.PidFD
	}
	if hasNamespace(req.Spec, specs.TimeNamespace) {
		b.timeNS = req.PidFD
	}
	first := unix.CLONE_NEWPID // as only children do
	if b.raw() {
		first = joinable
	}
	b.enter = []nsFD{{int(req.PidFD.Fd()), first}}
	cfg.JoinFlags &^= first
	if a := req.Process.ExecCPUAffinity; a != nil && a.Initial != "" {
		var err error
		if b.affinity, err = bitMask(a.Initial); err != nil {
			return nil, err
		}
	}
	if !req.Process.Terminal {
		b.stdio = [3]*os.File{req.Stdin, req.Stdout, req.Stderr}
	}
	return b, nil
}

func (r *Runtime) execConfig(req *ExecRequest) (*wire.Config, error) {
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
		return nil, err
	}
	w.KeepFDs = len(req.ExtraFiles)
	w.Keyring = "_ses." + path.Base(req.Cgroup) // never the engine's own
	flags := joinable | joinLater
	if userNS && !hasNamespace(req.Spec, specs.CgroupNamespace) {
		flags &^= unix.CLONE_NEWCGROUP // it is ours, and root of that user namespace may not enter it
	}
	return &wire.Config{
		Join: true, JoinFD: 0, JoinFlags: flags, RootFD: -1, UserNS: userNS, Process: w,
	}, nil
}

// runExec goes through the protocol without a pause before the program. With an
// error that is not a context's the init is as good as dead.
func (r *Runtime) runExec(ctx context.Context, s *spawned, cfg *wire.Config, fds []int, req *ExecRequest) (*os.File, error) {
	stop := s.watch(ctx)
	console, err := s.talkExec(ctx, cfg, fds, req)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		closeFile(console)
		return nil, err
	}
	return console, nil
}

func (s *spawned) talkExec(ctx context.Context, cfg *wire.Config, fds []int, req *ExecRequest) (console *os.File, err error) {
	if err := s.send(wire.KindConfig, cfg, fds...); err != nil {
		return nil, fmt.Errorf("configure exec: %w", err)
	}
	if err := s.born(ctx); err != nil {
		return nil, err
	}
	if cfg.Process.Terminal {
		msg, err := s.receive(ctx)
		if err != nil {
			return nil, err
		}
		console = consoleOf(msg)
	}
	agent := AgentOf(&CreateRequest{ID: req.ID, Spec: req.Spec, Bundle: req.Bundle}, s.pid, specs.StateRunning)
	msg, err := receiveEnd(s.conn, agent)
	switch {
	case errors.Is(err, io.EOF):
		return console, nil
	case err == nil:
		if err = failureOf(msg); err == nil {
			err = fmt.Errorf("init sent an unexpected message %d", msg.Kind)
		}
	}
	return console, err
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
