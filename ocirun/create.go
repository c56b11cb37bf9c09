package ocirun

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/ocirun/cgroup"
	"github.com/wherry-engine/wherry/ocirun/rdt"
	"github.com/wherry-engine/wherry/ocirun/wire"
)

// Create makes the container's init, with everything set up, waiting for Start.
// On error nothing is left behind. A *StartError tells that the user's request
// cannot be run (program, user, working directory); InvalidArgument that the spec
// is wrong, NotImplemented that this runtime or kernel lacks what it asks.
func (r *Runtime) Create(ctx context.Context, req *CreateRequest) (*Container, error) {
	for {
		c, err := r.createOnce(ctx, req)
		if !errors.Is(err, errForkerDied) {
			return c, err
		}
	}
}

func (r *Runtime) createOnce(ctx context.Context, req *CreateRequest) (*Container, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if req.Spec == nil || req.Spec.Linux == nil {
		return nil, invalidf("the specification lacks its linux section")
	}
	path, err := CgroupOf(req.ID, req.Spec.Linux.CgroupsPath, req.SystemdCgroup)
	if err != nil {
		return nil, err
	}
	defer r.locks.lock(path)() // until the init is in it
	// Somebody else's cgroup is not to be removed if this fails.
	pids, err := r.cgroups.Pids(path)
	if err == nil && len(pids) > 0 {
		return nil, fmt.Errorf("cgroup %s is in use by process %d: %w", path, pids[0], errdefs.ErrAlreadyExists)
	}
	existed := err == nil
	if frozen, err := r.cgroups.Frozen(path); err == nil && frozen {
		return nil, fmt.Errorf("cgroup %s is frozen: %w", path, errdefs.ErrFailedPrecondition)
	}
	// They depend on what the cgroup has already, so a new one must not be there yet.
	limits, err := r.cgroups.Limits(path, withStandardRules(req.Spec.Linux.Resources))
	if err != nil {
		return nil, fmt.Errorf("limits: %w", err)
	}
	var made *making
	if !existed { // or else a bad request would remove it
		made = r.makeCgroups(req, path)
	}
	p, err := r.plan(req, path)
	defer p.close()
	p.limits, p.cgroups = limits, made
	var before []int
	if err == nil {
		before, err = ForeignMounts(req.Spec, req.Bundle)
	}
	var group *rdt.Group
	if err == nil {
		group, err = rdtGroup(req.ID, req.Spec.Linux)
	}
	if err != nil && made != nil {
		err = errors.Join(err, r.unmakeCgroups(ctx, made, path))
	}
	if err != nil {
		return nil, err
	}
	if group != nil {
		err = group.Create()
	}
	var c *Container
	if err == nil {
		c, err = r.create(ctx, req, p, &Container{ID: req.ID, Cgroup: path, MountsBefore: before, r: r})
		if err != nil && group != nil {
			err = errors.Join(err, group.Delete())
		}
	}
	if err != nil {
		derr := r.unmakeCgroups(ctx, made, path)
		if req.SystemdCgroup && p.unitStarted {
			derr = errors.Join(StopUnit(path), derr)
		}
		return nil, errors.Join(err, derr, UnmountForeign(req.Spec, req.Bundle, before))
	}
	return c, nil
}

// create completes c.
func (r *Runtime) create(ctx context.Context, req *CreateRequest, p *plan, c *Container) (*Container, error) {
	b := &birth{
		enter: p.enterAtBirth(req), clone: p.clone, uidMap: p.uidMap, gidMap: p.gidMap, userNS: p.userNS, extra: req.ExtraFiles,
		timeNS: p.timeNS, newTime: p.newTime, timeOffsets: p.timeOffsets, fork: forkable(req, p),
	}
	if !p.cfg.Process.Terminal {
		b.stdio = [3]*os.File{req.Stdin, req.Stdout, req.Stderr}
	}
	if req.SystemdCgroup {
		p.enterLater = true // its unit begins with a process
	} else if err := r.cgroupsAtBirth(b, p, c.Cgroup, req.Spec.Linux.Resources); err != nil {
		return nil, fmt.Errorf("create cgroup: %w", err)
	}
	began := time.Now()
	s, err := r.spawn(b)
	if err != nil {
		return nil, err
	}
	c.Phases = []Phase{{"clone", time.Since(began)}}
	if c.Console, err = r.handshake(ctx, s, req, p, c); err != nil {
		r.drop(s)
		return nil, whyDead(err, req.Spec.Linux.Resources)
	}
	return c, nil
}

// enterAtBirth returns the namespaces that the cloning thread enters. A network
// namespace the init can enter itself, which spares the thread; not so from
// inside a user namespace, and not if devices are to be moved to it before.
func (p *plan) enterAtBirth(req *CreateRequest) []nsFD {
	if p.cfg.UserNS || p.timeNS != nil || p.newTime || len(req.Spec.Linux.NetDevices) > 0 {
		return p.enter
	}
	var enter []nsFD
	for _, ns := range p.enter {
		if ns.flag == unix.CLONE_NEWNET {
			p.cfg.Enter = append(p.cfg.Enter, wire.Enter{FD: p.pass(ns.fd), Flag: ns.flag})
			continue
		}
		enter = append(enter, ns)
	}
	return enter
}

// smallMemory is a limit in bytes below which the memory that an init needs
// for itself would be missed by the container, or not be had at all.
const smallMemory = 32 << 20

// cgroupsAtBirth makes those control groups that the init is to be cloned into.
// It enters the others itself (see enterLater): they can be made while it starts,
// and what it takes until then is not charged to the container. Being cloned
// into a v2 cgroup is worth a lot, as entering it needs a global lock of the
// kernel; only a very small container is better off without.
func (r *Runtime) cgroupsAtBirth(b *birth, p *plan, path string, res *specs.LinuxResources) error {
	p.enterLater = !r.cgroups.V2 || small(res)
	if r.cgroups.V2 && p.enterLater {
		return nil
	}
	b.cgroup = path
	return r.cgroups.CreateUnified(path)
}

func small(res *specs.LinuxResources) bool {
	if res == nil || res.Memory == nil || res.Memory.Limit == nil {
		return false
	}
	n := *res.Memory.Limit
	return n > 0 && n < smallMemory
}

// making is the creation of control groups.
type making struct {
	done chan struct{} // closed at the end
	fds  []int         // of the files by which one enters them
	err  error
}

// makeCgroups begins to make those control groups that the init enters by itself.
// That takes as long as all else that precedes it. A nil making is one that has not begun.
func (r *Runtime) makeCgroups(req *CreateRequest, path string) *making {
	if r.cgroups.V2 || req.SystemdCgroup {
		return nil
	}
	return beginMaking(r.cgroups, path)
}

func beginMaking(h *cgroup.Host, path string) *making {
	m := &making{done: make(chan struct{})}
	go func() {
		defer close(m.done)
		if err := h.Create(path); err != nil {
			m.err = fmt.Errorf("create cgroup: %w", err)
		} else if m.fds, err = h.OpenTasks(path, nil); err != nil {
			m.err = fmt.Errorf("enter the cgroups: %w", err)
		}
	}()
	return m
}

// close waits for the end and lets go of the files.
func (m *making) close() {
	if m != nil {
		<-m.done
		closeFDs(m.fds)
		m.fds = nil
	}
}

// unmakeCgroups removes what making has made, and what was there of the same name.
func (r *Runtime) unmakeCgroups(ctx context.Context, m *making, path string) error {
	m.close()
	return r.cgroups.Delete(context.WithoutCancel(ctx), path)
}

// enterLater adds to the init's configuration the files by which it enters the
// control groups that it was not born in, and makes these if that has not begun.
func (r *Runtime) enterLater(p *plan, path string) (*making, error) {
	m := p.cgroups
	if !p.enterLater {
		return m, nil
	}
	if m == nil {
		m = beginMaking(r.cgroups, path)
	}
	<-m.done
	for _, fd := range m.fds {
		p.cfg.CgroupFDs = append(p.cfg.CgroupFDs, p.pass(fd))
	}
	return m, m.err
}

func closeFDs(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}

// handshake sends the configuration, writes limits while init works, and
// waits until it is ready. A context that ends kills init.
func (r *Runtime) handshake(ctx context.Context, s *spawned, req *CreateRequest, p *plan, c *Container) (*os.File, error) {
	stop := s.watch(ctx)
	console, err := r.talk(ctx, s, req, p, c)
	if !stop() && err == nil {
		closeFile(console)
		return nil, ctx.Err() // init has been or is about to be killed
	}
	return console, err
}

func (r *Runtime) talk(ctx context.Context, s *spawned, req *CreateRequest, p *plan, c *Container) (*os.File, error) {
	if err := addHooks(&p.cfg, req, s.pid); err != nil {
		return nil, err
	}
	if err := equip(req, s); err != nil {
		return nil, err
	}
	if p.cfg.UserNS {
		if err := outfit(s.pid, &p.cfg.Process); err != nil {
			return nil, err
		}
	}
	born := time.Now()
	if req.SystemdCgroup {
		if err := r.startUnit(p, req, s.pid); err != nil {
			return nil, err
		}
	}
	cgroups, err := r.enterLater(p, c.Cgroup)
	if uid, ok := delegated(req, p); ok && err == nil {
		err = r.cgroups.Delegate(c.Cgroup, uid)
	}
	if err == nil && req.Born != nil {
		c.belongTo(s, req)
		err = req.Born(c)
	}
	if err == nil {
		err = s.send(wire.KindConfig, &p.cfg, p.fds...)
	}
	cgroups.close()
	if err != nil {
		return nil, fmt.Errorf("configure init: %w", err)
	}
	if err := p.limits.Early(); err != nil {
		return nil, err
	}
	if err := s.born(ctx); err != nil {
		return nil, err
	}
	c.belongTo(s, req)
	msg, err := s.receive(ctx)
	if err != nil {
		return nil, err
	}
	if msg.Kind == wire.KindHooks {
		if err := r.hostHooks(ctx, req, s.pid); err != nil {
			return nil, err
		}
		if err := s.conn.Send(wire.KindContinue, nil); err != nil {
			return nil, err
		}
		if msg, err = s.receive(ctx); err != nil {
			return nil, err
		}
	}
	if msg.Kind != wire.KindReady {
		return nil, fmt.Errorf("init sent an unexpected message %d", msg.Kind)
	}
	console := consoleOf(msg)
	if err := c.addPhases(msg, time.Since(born)); err != nil {
		closeFile(console)
		return nil, err
	}
	if err := p.limits.Late(); err != nil {
		closeFile(console)
		return nil, err
	}
	return console, nil
}

// belongTo completes c when the process id is known.
func (c *Container) belongTo(s *spawned, req *CreateRequest) {
	c.Pid, c.PidFD, c.init, c.agent = s.pid, s.pidfd, s, AgentOf(req, s.pid, specs.StateCreated)
}

// addPhases adds what init did in the time from its birth to its message: it
// starts, while its control groups are made, and works.
func (c *Container) addPhases(msg *wire.Message, all time.Duration) error {
	var ready wire.Ready
	if err := msg.Decode(&ready); err != nil {
		return err
	}
	start := len(c.Phases)
	c.Phases = append(c.Phases, Phase{"start of init", all})
	for _, st := range ready.Steps {
		took := time.Duration(st.Micros) * time.Microsecond
		c.Phases = append(c.Phases, Phase{"init: " + st.Name, took})
		c.Phases[start].Took -= took
	}
	return nil
}

func closeFile(f *os.File) {
	if f != nil {
		f.Close()
	}
}

func consoleOf(msg *wire.Message) *os.File {
	if len(msg.FDs) == 0 {
		return nil
	}
	// Non-blocking lets the caller's poller watch it.
	_ = unix.SetNonblock(msg.FDs[0], true)
	return os.NewFile(uintptr(msg.FDs[0]), "/dev/ptmx")
}

// send leaves it to receive to tell why init is gone.
func (s *spawned) send(kind wire.Kind, v any, fds ...int) error {
	err := s.conn.Send(kind, v, fds...)
	if errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET) {
		return nil
	}
	return err
}

var errInitDied = errors.New("init died while it set up the container")

// whyDead adds to the error of an init that died what is the most likely cause;
// so it does if the init was there before its limit and has more than that allows.
func whyDead(err error, res *specs.LinuxResources) error {
	switch {
	case !small(res):
	case errors.Is(err, errInitDied):
		return fmt.Errorf("%w, which may use %d bytes of memory", err, *res.Memory.Limit)
	case errors.Is(err, unix.EBUSY):
		return fmt.Errorf("init has more than %d bytes of memory: %w", *res.Memory.Limit, err)
	}
	return err
}

// receive reads one message; a Failure becomes an error.
func (s *spawned) receive(ctx context.Context) (*wire.Message, error) {
	msg, err := s.conn.Receive()
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if errors.Is(err, io.EOF) {
			return nil, errInitDied
		}
		return nil, err
	}
	return msg, failureOf(msg)
}

// failureOf turns a Failure into a StartError or a plain error with its stage.
func failureOf(msg *wire.Message) error {
	if msg.Kind != wire.KindFailure {
		return nil
	}
	var f wire.Failure
	if err := msg.Decode(&f); err != nil {
		return err
	}
	if f.Code != 0 {
		return &StartError{Code: int(f.Code), Msg: f.Msg}
	}
	return &SetupError{Stage: f.Stage, Msg: f.Msg, Errno: unix.Errno(f.Errno)}
}

// SetupError is why a container could not be set up: none of the user's doing,
// as far as the runtime can tell.
type SetupError struct {
	// Stage is what init was doing, such as "mounts".
	Stage string
	Msg   string
	Errno unix.Errno
}

func (e *SetupError) Error() string { return "container init: " + e.Stage + ": " + e.Msg }

// Unwrap gives the kernel's error, if it was one.
func (e *SetupError) Unwrap() error {
	if e.Errno == 0 {
		return nil
	}
	return e.Errno
}

// withStandardRules adds the devices that every container may use to device
// rules that begin by denying all.
func withStandardRules(res *specs.LinuxResources) *specs.LinuxResources {
	if res == nil || len(res.Devices) == 0 {
		return res
	}
	n := func(n int64) *int64 { return &n }
	allow := func(typ string, major, minor int64, access string) specs.LinuxDeviceCgroup {
		return specs.LinuxDeviceCgroup{Allow: true, Type: typ, Major: n(major), Minor: n(minor), Access: access}
	}
	out := *res
	out.Devices = append(append([]specs.LinuxDeviceCgroup(nil), res.Devices...),
		allow("c", -1, -1, "m"), allow("b", -1, -1, "m"),
		allow("c", 1, 3, "rwm"), allow("c", 1, 5, "rwm"), allow("c", 1, 7, "rwm"), allow("c", 1, 8, "rwm"), allow("c", 1, 9, "rwm"),
		allow("c", 5, 0, "rwm"), allow("c", 5, 1, "rwm"), allow("c", 5, 2, "rwm"), allow("c", 136, -1, "rwm"),
	)
	return &out
}
