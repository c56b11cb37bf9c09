package initproc

import (
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/ocirun/wire"
)

// An init that stood by has started before anybody asked for a process, which
// saves a millisecond when somebody does. It joins the container on its one
// locked thread, which its child inherits everything from, and forks the child as
// a sibling: the child's parent is the runtime's process, as ever. The child is a
// copy with one thread, not a Go program: it makes raw system calls on memory
// prepared before and ends in execve.

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

// child is all that the forked process needs.
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
	report   uintptr
}

// cloneArgs is struct clone_args.
type cloneArgs struct {
	flags, pidfd, childTID, parentTID, exitSignal, stack, stackSize, tls, setTID, setTIDSize, cgroup uint64
}

// Stages that the child reports.
const (
	stageSession = iota + 1
	stageJoin
	stageFilter
	stageCaps
	stageExec
)

// forkExec makes the process and tells the runtime; it returns errForked, or
// why the process could not be executed.
func (s *setup) forkExec(file string, path *byte, argv, env []*byte) error {
	c, err := s.prepareChild()
	if err != nil {
		return err
	}
	c.path, c.argv, c.env = path, &argv[0], &env[0]
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		return err
	}
	c.report = uintptr(pipe[1])
	pidfd := int32(-1)
	args := &cloneArgs{flags: unix.CLONE_PARENT | unix.CLONE_PIDFD, pidfd: uint64(uintptr(unsafe.Pointer(&pidfd)))}
	if s.cfg.CgroupFD >= 0 {
		fd, err := s.fd(s.cfg.CgroupFD)
		if err != nil {
			return err
		}
		args.flags |= unix.CLONE_INTO_CGROUP
		args.cgroup = uint64(fd)
	}
	pid, errno := fork(c, args)
	unix.Close(pipe[1])
	if errno != 0 {
		return fmt.Errorf("clone: %w", errno)
	}
	if err := s.conn.Send(wire.KindForked, &wire.Forked{Pid: int32(pid)}, int(pidfd)); err != nil {
		return err
	}
	buf := make([]byte, 8)
	for {
		n, err := unix.Read(pipe[0], buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if n < len(buf) {
			return errForked // closed by the exec
		}
		break
	}
	errno = unix.Errno(binary.NativeEndian.Uint32(buf[4:]))
	switch binary.NativeEndian.Uint32(buf) {
	case stageJoin:
		return fmt.Errorf("enter the container's cgroup namespace: %w", errno)
	case stageSession:
		return fmt.Errorf("new session: %w", errno)
	case stageFilter:
		return fmt.Errorf("load seccomp filter: %w", errno)
	case stageCaps:
		return fmt.Errorf("set capabilities: %w", errno)
	}
	return execError(file, errno)
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

// fork blocks signals, clones, and returns in the parent only.
//
//go:norace
//go:noinline
func fork(c *child, args *cloneArgs) (pid int, errno unix.Errno) {
	all, old := ^uint64(0), uint64(0)
	unix.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&all)), uintptr(unsafe.Pointer(&old)), sigSetSize, 0, 0)
	pid, errno = cloneRaw(c, args)
	unix.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&old)), 0, sigSetSize, 0, 0)
	return pid, errno
}

//go:nosplit
//go:norace
//go:noinline
func cloneRaw(c *child, args *cloneArgs) (int, unix.Errno) {
	pid, _, errno := unix.RawSyscall(unix.SYS_CLONE3, uintptr(unsafe.Pointer(args)), unsafe.Sizeof(*args), 0)
	if errno == 0 && pid == 0 {
		become(c)
	}
	return int(pid), errno
}

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
func fail(c *child, stage uint32, errno unix.Errno) {
	msg := [2]uint32{stage, uint32(errno)}
	unix.RawSyscall(unix.SYS_WRITE, c.report, uintptr(unsafe.Pointer(&msg)), 8)
	for {
		unix.RawSyscall(unix.SYS_EXIT_GROUP, 1, 0, 0)
	}
}
