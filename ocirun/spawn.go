package ocirun

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"sync"
	"syscall"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/ocirun/initproc"
	"github.com/wherry-engine/wherry/ocirun/wire"
)

// birth says how an init is cloned.
type birth struct {
	// cgroup is what the child is cloned into in the unified hierarchy, or "".
	// Those of v1 it enters by itself.
	cgroup         string
	enter          []nsFD
	clone          uintptr
	uidMap, gidMap []specs.LinuxIDMapping
	userNS         *os.File
	// timeNS is a time namespace to be joined, or newTime is set.
	timeNS      *os.File
	newTime     bool
	timeOffsets string
	// affinity of the thread that clones, nil for no change: a bit mask.
	affinity []byte
	stdio    [3]*os.File // nil is the null device
	extra    []*os.File
	// standby is set for an init that forks others, fork for one that may be forked.
	standby, fork bool
}

// raw tells whether the child must be cloned without memory shared with this
// process, which is what the Go library does: only one with a single thread can
// enter user and time namespaces, and before Linux 6.2 a new time namespace is
// entered by a plain fork alone. (For a new user namespace the library does fork.)
func (b *birth) raw() bool {
	return b.userNS != nil || b.timeNS != nil || b.newTime && b.clone&unix.CLONE_NEWUSER == 0
}

// prepares tells whether the thread that clones has to become another first.
func (b *birth) prepares() bool {
	return len(b.enter) > 0 || b.newTime || len(b.affinity) > 0 || b.raw()
}

// spawned is an init that waits for its configuration.
type spawned struct {
	conn wire.Conn
	// forker is the init that makes this one, which tells its pid by itself (see
	// born); nil if there is none, or no more.
	forker *spawned
	child  childWord // of one that forks

	mu        sync.Mutex // guards what is known when it is born
	pid       int
	pidfd     *os.File
	abandoned bool
}

// initEnv keeps the Go runtime of an init from starting what it never needs, and
// from holding files of the cgroup file system open (containermaxprocs).
var initEnv = []string{"GOMAXPROCS=1", "GOGC=off", "GODEBUG=asyncpreemptoff=1,disablethp=1,containermaxprocs=0,gcshrinkstackoff=1"}

// standbyEnv is initEnv for an init that lives on: with a second processor, if only
// an idle one, the Go runtime does not take the first one away from a thread in
// a short system call, which would cost it a futex call to get it back.
var standbyEnv = append([]string{"GOMAXPROCS=2"}, initEnv[1:]...)

// spawn clones an init. Where the child is to be born in namespaces that exist,
// this happens on a thread of its own, which first moves itself, alone, into
// them, and never runs other Go code afterwards: the thread ends with it.
func (r *Runtime) spawn(b *birth) (*spawned, error) {
	if b.fork {
		if s, err := r.fork(b); s != nil || err != nil {
			return s, err
		}
	}
	if !b.prepares() {
		return r.spawnHere(b)
	}
	type result struct {
		s   *spawned
		err error
	}
	ch := make(chan result, 1)
	go disposable(func() {
		s, err := r.spawnHere(b)
		ch <- result{s, err}
	})
	res := <-ch
	return res.s, res.err
}

// disposable runs f on a thread that is thrown away afterwards. The main
// thread cannot be: it is kept out of the way until another one took over.
func disposable(f func()) {
	runtime.LockOSThread()
	if unix.Gettid() != unix.Getpid() {
		f()
		return // without unlocking: the thread dies
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		f()
	}()
	<-done
	runtime.UnlockOSThread()
}

func (r *Runtime) spawnHere(b *birth) (*spawned, error) {
	pair, err := socketPair()
	if err != nil {
		return nil, err
	}
	defer unix.Close(pair[1])
	pidfd := -1
	attr, closeCgroup, err := r.childAttr(b, pair[1], &pidfd)
	if err != nil {
		unix.Close(pair[0])
		return nil, err
	}
	defer closeCgroup()
	argv := initArgs(b)
	if b.raw() {
		s, err := r.spawnRaw(b, attr, pair[0], argv)
		if err != nil {
			unix.Close(pair[0])
		}
		return s, err
	}
	program, err := r.program()
	if err != nil {
		unix.Close(pair[0])
		return nil, err
	}
	number, done, err := outOfTheWay(int(program.Fd()), attr.Files)
	if err != nil {
		unix.Close(pair[0])
		return nil, fmt.Errorf("open the program: %w", err)
	}
	pid, err := syscall.ForkExec("/proc/self/fd/"+strconv.Itoa(number), argv, attr)
	done()
	runtime.KeepAlive(b)
	runtime.KeepAlive(program)
	if err != nil {
		unix.Close(pair[0])
		return nil, spawnError(b, err)
	}
	return &spawned{pid: pid, pidfd: os.NewFile(uintptr(pidfd), "pidfd"), conn: wire.Conn{FD: pair[0]}}, nil
}

func socketPair() (pair [2]int, err error) {
	if pair, err = unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
		return pair, fmt.Errorf("socket pair: %w", err)
	}
	return pair, nil
}

// outOfTheWay gives a descriptor a number that the child of syscall.ForkExec has
// not put another file at by the time it executes a path with it: that uses
// numbers up to that of the files, and from the highest one of the caller's
// descriptors of them on.
func outOfTheWay(fd int, files []uintptr) (number int, done func(), err error) {
	highest := 0
	for _, f := range files {
		highest = max(highest, int(f))
	}
	if fd >= len(files) && fd <= highest {
		return fd, func() {}, nil
	}
	number, err = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, highest+2*len(files)+2)
	return number, func() { unix.Close(number) }, err
}

// childAttr prepares this thread and the attributes of the child.
func (r *Runtime) childAttr(b *birth, socket int, pidfd *int) (*syscall.ProcAttr, func(), error) {
	sys := &syscall.SysProcAttr{Cloneflags: b.clone, PidFD: pidfd}
	if b.clone&unix.CLONE_NEWUSER != 0 {
		sys.UidMappings, sys.GidMappings = idMap(b.uidMap), idMap(b.gidMap)
		sys.GidMappingsEnableSetgroups = true
		_, user := rootOf(b.uidMap)
		_, group := rootOf(b.gidMap)
		if user && group { // else it is for an idmapped mount, and does nothing
			sys.Credential = &syscall.Credential{Uid: 0, Gid: 0, NoSetGroups: true}
		}
	}
	if err := initproc.SetAffinity(b.affinity); err != nil {
		return nil, nil, err
	}
	cg := -1
	if b.cgroup != "" {
		var err error
		if cg, err = r.cgroups.OpenUnified(b.cgroup); err != nil {
			return nil, nil, err
		}
	}
	for _, ns := range b.enter {
		if b.raw() {
			break // after the user namespace
		}
		if err := unix.Setns(ns.fd, ns.flag); err != nil {
			unix.Close(cg)
			return nil, nil, fmt.Errorf("enter namespace %#x: %w", ns.flag, err)
		}
	}
	if b.newTime {
		if err := newTimeNS(b.timeOffsets); err != nil {
			unix.Close(cg)
			return nil, nil, err
		}
	}
	if cg >= 0 {
		sys.UseCgroupFD, sys.CgroupFD = true, cg
	}
	files := make([]uintptr, 0, 4+len(b.extra))
	for _, f := range b.stdio {
		if f == nil {
			f = r.null
		}
		files = append(files, f.Fd())
	}
	for _, f := range b.extra {
		files = append(files, f.Fd())
	}
	files = append(files, uintptr(socket))
	env := initEnv
	if b.standby {
		env = standbyEnv
	}
	return &syscall.ProcAttr{Env: env, Files: files, Sys: sys}, func() { unix.Close(cg) }, nil
}

// newTimeNS makes a time namespace for the children of this thread.
func newTimeNS(offsets string) error {
	if err := unix.Unshare(unix.CLONE_NEWTIME); err != nil {
		if errors.Is(err, unix.EINVAL) {
			return lackf("this kernel has no time namespaces (Linux 5.6, CONFIG_TIME_NS)")
		}
		return fmt.Errorf("make a time namespace: %w", err)
	}
	if offsets == "" {
		return nil
	}
	name := "/proc/" + strconv.Itoa(unix.Gettid()) + "/timens_offsets"
	if err := os.WriteFile(name, []byte(offsets), 0); err != nil {
		return fmt.Errorf("set time offsets %q: %w", offsets, err)
	}
	return nil
}

// rootOf is what 0 is mapped to, if it is.
func rootOf(m []specs.LinuxIDMapping) (host uint32, mapped bool) { return hostOf(m, 0) }

// hostOf is what an id of a user namespace is mapped to, if it is.
func hostOf(m []specs.LinuxIDMapping, id uint32) (host uint32, mapped bool) {
	for _, e := range m {
		if id >= e.ContainerID && id-e.ContainerID < e.Size {
			return e.HostID + id - e.ContainerID, true
		}
	}
	return 0, false
}

func idMap(m []specs.LinuxIDMapping) []syscall.SysProcIDMap {
	out := make([]syscall.SysProcIDMap, len(m))
	for i, e := range m {
		out[i] = syscall.SysProcIDMap{ContainerID: int(e.ContainerID), HostID: int(e.HostID), Size: int(e.Size)}
	}
	return out
}

func spawnError(b *birth, err error) error {
	if errors.Is(err, unix.EAGAIN) {
		return fmt.Errorf("clone: too many processes (%w)", err)
	}
	if errors.Is(err, unix.ENOSPC) {
		return fmt.Errorf("clone into namespaces %#x: the kernel's settings user.max_*_namespaces allow no more (%w)", b.clone, err)
	}
	return fmt.Errorf("clone into namespaces %#x: %w", b.clone, err)
}

// watch abandons the init when the context ends. The caller calls stop once,
// before it closes anything; it tells whether the init was left alone.
func (s *spawned) watch(ctx context.Context) (stop func() bool) {
	finished := make(chan struct{})
	cancel := context.AfterFunc(ctx, func() {
		defer close(finished)
		s.abandon()
	})
	return func() bool {
		if cancel() {
			return true
		}
		<-finished
		return false
	}
}

// abandon kills an init and makes whoever listens to it stop: one that is
// frozen dies only when it is thawed. One that is not known yet is killed by know;
// until then a configuration that nobody reads keeps nobody waiting.
func (s *spawned) abandon() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.abandoned = true
	if s.pidfd == nil {
		_ = unix.Shutdown(s.conn.FD, unix.SHUT_WR)
		return
	}
	s.abandonLocked()
}

func (s *spawned) abandonLocked() {
	s.signalKill()
	_ = unix.Shutdown(s.conn.FD, unix.SHUT_RDWR)
}

// signalKill kills the init.
func (s *spawned) signalKill() {
	_ = unix.PidfdSendSignal(int(s.pidfd.Fd()), unix.SIGKILL, nil, 0)
}

// drop ends an init that is of no use, reaps it, and closes what belongs to it.
func (r *Runtime) drop(s *spawned) {
	if s.forker != nil {
		r.dropForker(s)
	}
	unix.Close(s.conn.FD)
	if s.pidfd != nil {
		s.signalKill()
		s.reap()
		s.pidfd.Close()
	}
}

func (s *spawned) reap() {
	for {
		// ECHILD: somebody else waits for all children of this process.
		err := unix.Waitid(unix.P_PIDFD, int(s.pidfd.Fd()), nil, unix.WEXITED, nil)
		if !errors.Is(err, unix.EINTR) {
			return
		}
	}
}
