package initproc

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/ocirun/wire"
)

// An init that stood by has started before anybody asked for a process, which
// saves a millisecond when somebody does. It joins the container on its one
// locked thread, which its child inherits everything from, and clones the child as
// a sibling: the child's parent is the runtime's process, as ever. Until it
// executes the program the child borrows this process's memory (vfork(2)): a copy
// would cost more than all else here. It is no Go program: it makes raw system
// calls on memory prepared before and ends in execve.

// errForked: the work is done, this init is to go.
var errForked = errors.New("forked")

// joinToFork enters the container with this thread.
func (s *setup) joinToFork() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("become undumpable: %w", err)
	}
	for _, dir := range s.cfg.CgroupTasks {
		if err := writeFile(filepath.Join(dir, "tasks"), "0"); err != nil {
			return fmt.Errorf("enter the cgroups: %w", err)
		}
	}
	pidfd, err := s.fd(s.cfg.JoinFD)
	if err != nil {
		return err
	}
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("unshare file-system attributes: %w", err)
	}
	own, err := s.openProc("thread-self/ns/cgroup", unix.O_RDONLY)
	if err != nil {
		return fmt.Errorf("open the cgroup namespace: %w", err)
	}
	defer unix.Close(own)
	if err := unix.Setns(pidfd, s.cfg.JoinFlags); err != nil {
		return fmt.Errorf("enter the container's namespaces: %w", err)
	}
	// The cgroup namespace is the child's to enter, after it was cloned into
	// the cgroup; by then the user may not be allowed to look at the init.
	if s.cgroupNS, err = s.openProc("thread-self/ns/cgroup", unix.O_RDONLY); err != nil {
		return fmt.Errorf("open the container's cgroup namespace: %w", err)
	}
	if err := unix.Setns(own, unix.CLONE_NEWCGROUP); err != nil {
		return fmt.Errorf("leave the container's cgroup namespace: %w", err)
	}
	if s.root, err = unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
		return fmt.Errorf("open the container's root: %w", err)
	}
	if err := s.keyring(); err != nil {
		return err
	}
	if s.cfg.Process.Terminal {
		return nil
	}
	for i, index := range s.cfg.StdioFD {
		fd, err := s.fd(index)
		if err != nil {
			return err
		}
		if err := unix.Dup3(fd, i, 0); err != nil {
			return fmt.Errorf("set standard stream %d: %w", i, err)
		}
	}
	return nil
}

func writeFile(name, value string) error {
	fd, err := unix.Open(name, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", name, err)
	}
	defer unix.Close(fd)
	if _, err := unix.Write(fd, []byte(value)); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}

// child is all that the forked process needs, and what became of it.
type child struct {
	cgroupNS uintptr
	terminal bool
	filter   *sockFprog
	flags    uintptr
	last     bool // the filter comes after the capabilities
	setCaps  bool
	capHead  unix.CapUserHeader
	capData  [2]unix.CapUserData
	ambient  uint64
	none     uint64
	path     *byte
	argv     **byte
	env      **byte

	pidfd  int32
	failed stage
	errno  unix.Errno
}

// cloneArgs is struct clone_args.
type cloneArgs struct {
	flags, pidfd, childTID, parentTID, exitSignal, stack, stackSize, tls, setTID, setTIDSize, cgroup uint64
}

// stage is where the child failed.
type stage uint32

const (
	stageSession stage = iota + 1
	stageJoin
	stageFilter
	stageCaps
	stageExec
)

// forkExec makes the process and tells the runtime of it; it returns errForked,
// or why the process could not be executed.
func (s *setup) forkExec(file string, path *byte, argv, env []*byte) error {
	c, err := s.prepareChild()
	if err != nil {
		return err
	}
	c.path, c.argv, c.env = path, &argv[0], &env[0]
	args := &cloneArgs{
		flags: unix.CLONE_PARENT | unix.CLONE_PIDFD | unix.CLONE_VM | unix.CLONE_VFORK | unix.CLONE_CLEAR_SIGHAND,
		pidfd: uint64(uintptr(unsafe.Pointer(&c.pidfd))), // c is on the heap: cloneShared lets it escape,
	}
	if s.cfg.CgroupFD >= 0 {
		fd, err := s.fd(s.cfg.CgroupFD)
		if err != nil {
			return err
		}
		args.flags |= unix.CLONE_INTO_CGROUP
		args.cgroup = uint64(fd)
	}
	pid, errno := fork(c, args)
	if errno != 0 {
		return fmt.Errorf("clone: %w", errno)
	}
	fds := []int{int(c.pidfd)}
	if s.console >= 0 {
		fds = append(fds, s.console)
	}
	if err := s.conn.Send(wire.KindForked, &wire.Forked{Pid: int32(pid), Failed: c.failed != 0}, fds...); err != nil {
		return err
	}
	switch c.failed {
	case 0:
		return errForked
	case stageJoin:
		return fmt.Errorf("enter the container's cgroup namespace: %w", c.errno)
	case stageSession:
		return fmt.Errorf("new session: %w", c.errno)
	case stageFilter:
		return fmt.Errorf("load seccomp filter: %w", c.errno)
	case stageCaps:
		return fmt.Errorf("set capabilities: %w", c.errno)
	}
	return execError(file, c.errno)
}

// linger waits until the runtime is through with its part: this process's end
// takes time from the program that has just begun. Nothing of that is kept open.
func (s *setup) linger() {
	fd := uint(s.conn.FD)
	_ = unix.CloseRange(0, fd-1, 0)
	_ = unix.CloseRange(fd+1, ^uint(0)>>32, 0)
	var b [1]byte
	_, _, _ = unix.RawSyscall(unix.SYS_READ, uintptr(s.conn.FD), uintptr(unsafe.Pointer(&b)), 1)
}

// prepareChild does of lockDown what this thread can do for the child, and
// leaves the rest in a form that needs no memory.
func (s *setup) prepareChild() (*child, error) {
	p := &s.cfg.Process
	c := &child{terminal: p.Terminal, last: p.NoNewPrivileges, setCaps: p.SetCaps, capHead: capHeader, ambient: p.Ambient, flags: uintptr(p.FilterFlags)}
	c.capData = capData(p.Effective, p.Permitted, p.Inheritable)
	if len(p.Filter) > 0 {
		c.filter = &sockFprog{len: uint16(len(p.Filter) / 8), filter: unsafe.Pointer(&p.Filter[0])}
	}
	c.cgroupNS = uintptr(s.cgroupNS)
	if p.NoNewPrivileges {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return nil, fmt.Errorf("set no_new_privs: %w", err)
		}
	}
	// For the cgroup at the clone, its namespace and the filter; the child
	// drops them before it execs.
	return c, raise(capSysAdmin | capDACOverride)
}

// fork blocks signals, clones, and returns in the parent only, when the child
// has executed the program or failed to.
//
//go:norace
//go:noinline
func fork(c *child, args *cloneArgs) (pid int, errno unix.Errno) {
	growStack() // the child must not have to
	all, old := ^uint64(0), uint64(0)
	unix.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&all)), uintptr(unsafe.Pointer(&old)), sigSetSize, 0, 0)
	pid = cloneShared(c, args, unsafe.Sizeof(*args))
	unix.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&old)), 0, sigSetSize, 0, 0)
	if pid < 0 {
		return 0, unix.Errno(-pid)
	}
	return pid, 0
}

// growStack makes sure of some kilobytes of stack below the caller.
//
//go:noinline
func growStack() byte {
	var room [8 << 10]byte
	return room[len(os.Args)]
}

// cloneShared calls clone3(2) and, in the child, become. It returns the process
// id, or the negated error.
func cloneShared(c *child, args *cloneArgs, size uintptr) int

// become runs in the child and does not return.
//
//go:nosplit
//go:norace
//go:noinline
func become(c *child) {
	if _, _, errno := unix.RawSyscall(unix.SYS_SETNS, c.cgroupNS, unix.CLONE_NEWCGROUP, 0); errno != 0 {
		fail(c, stageJoin, errno)
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETSID, 0, 0, 0); errno != 0 {
		fail(c, stageSession, errno)
	}
	if c.terminal {
		if _, _, errno := unix.RawSyscall(unix.SYS_IOCTL, slaveFD, unix.TIOCSCTTY, 0); errno != 0 {
			fail(c, stageSession, errno)
		}
	}
	if c.filter != nil && !c.last {
		loadRaw(c)
	}
	if c.setCaps {
		if _, _, errno := unix.RawSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&c.capHead)), uintptr(unsafe.Pointer(&c.capData)), 0); errno != 0 {
			fail(c, stageCaps, errno)
		}
		unix.RawSyscall6(unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0, 0)
		for i := uintptr(0); i < 64; i++ {
			if c.ambient&(1<<i) == 0 {
				continue
			}
			if _, _, errno := unix.RawSyscall6(unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, i, 0, 0, 0); errno != 0 {
				fail(c, stageCaps, errno)
			}
		}
	}
	if c.filter != nil && c.last {
		loadRaw(c)
	}
	unix.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&c.none)), 0, sigSetSize, 0, 0)
	_, _, errno := unix.RawSyscall(unix.SYS_EXECVE, uintptr(unsafe.Pointer(c.path)), uintptr(unsafe.Pointer(c.argv)), uintptr(unsafe.Pointer(c.env)))
	fail(c, stageExec, errno)
}

//go:nosplit
//go:norace
func loadRaw(c *child) {
	_, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, c.flags, uintptr(unsafe.Pointer(c.filter)))
	if errno != 0 {
		fail(c, stageFilter, errno)
	}
}

//go:nosplit
//go:norace
func fail(c *child, where stage, errno unix.Errno) {
	c.failed, c.errno = where, errno
	for {
		unix.RawSyscall(unix.SYS_EXIT_GROUP, 1, 0, 0)
	}
}
