package ocirun

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/ocirun/wire"
)

// Joining a user or time namespace needs a process with one thread, which no Go
// program is. This file alone clones without the Go runtime's knowledge: the
// child is a copy with one thread that makes raw system calls on memory prepared
// before, never allocates, never grows its stack, and ends in execveat.
//
//	runtime's thread ──clone──▶ helper: enters the time namespace, then the user
//	                            namespace, becomes its root, enters the others
//	                              └──clone(CLONE_PARENT, new namespaces)──▶ init,
//	                                 a child of the runtime's process, execs
//
// The helper reports the process id of init, which it knows in the runtime's
// numbering because it never enters the PID namespace itself, and exits.

// maxRawFDs bounds the descriptors handed to the child.
const maxRawFDs = 64

// noNS is no descriptor of a namespace.
const noNS = ^uintptr(0)

// rawArgs is all the child needs; pointers are to memory that the caller keeps.
type rawArgs struct {
	user    uintptr // noNS for none, as with time
	time    uintptr
	enter   [8]nsFD
	entered int
	clone   uintptr
	fds     [maxRawFDs]uintptr
	nfds    int
	program uintptr
	empty   *byte
	argv    **byte
	env     **byte
	report  uintptr
	mask    uint64 // signal mask of the program
	none    uint64
}

// cloneArgs is struct clone_args.
type cloneArgs struct {
	flags, pidfd, childTID, parentTID, exitSignal, stack, stackSize, tls, setTID, setTIDSize, cgroup uint64
}

// Stages of the child, as it reports them.
const (
	rawPid = iota
	rawSetnsTime
	rawSetnsUser
	rawBecomeRoot
	rawSetns
	rawClone
	rawDup
	rawExec
)

var rawStages = [...]string{"", "enter the time namespace", "enter the user namespace", "become root of the user namespace", "enter namespaces", "clone", "pass descriptors", "execute init"}

// spawnRaw is spawnHere for a birth that is raw.
func (r *Runtime) spawnRaw(b *birth, attr *syscall.ProcAttr, socket int, argv []string) (*spawned, error) {
	if len(attr.Files) > maxRawFDs || len(b.enter) > 8 {
		return nil, lackf("%d descriptors together with a user or time namespace", len(attr.Files))
	}
	program, err := r.program()
	if err != nil {
		return nil, err
	}
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		return nil, err
	}
	defer unix.Close(pipe[0])
	// Above every number that the child puts a file at, as all that it needs.
	report, err := unix.FcntlInt(uintptr(pipe[1]), unix.F_DUPFD_CLOEXEC, 2*maxRawFDs)
	unix.Close(pipe[1])
	if err != nil {
		return nil, err
	}
	number, err := unix.FcntlInt(program.Fd(), unix.F_DUPFD_CLOEXEC, 2*maxRawFDs)
	runtime.KeepAlive(program)
	if err != nil {
		unix.Close(report)
		return nil, err
	}
	defer unix.Close(number)
	a := &rawArgs{user: noNS, time: noNS, clone: b.clone, program: uintptr(number), report: uintptr(report), empty: new(byte)}
	if b.userNS != nil {
		a.user = b.userNS.Fd()
	}
	if b.timeNS != nil {
		a.time = b.timeNS.Fd()
	}
	a.entered = copy(a.enter[:], b.enter)
	argp, err := syscall.SlicePtrFromStrings(argv)
	if err == nil {
		a.argv = &argp[0]
		var envp []*byte
		envp, err = syscall.SlicePtrFromStrings(attr.Env)
		a.env = &envp[0]
	}
	defer func() {
		for _, fd := range a.fds[:a.nfds] {
			unix.Close(int(fd))
		}
	}()
	for _, fd := range attr.Files {
		var high int
		if err == nil {
			high, err = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 2*maxRawFDs)
		}
		if err == nil {
			a.fds[a.nfds] = uintptr(high)
			a.nfds++
		}
	}
	if err != nil {
		unix.Close(report)
		return nil, err
	}
	c := &cloneArgs{exitSignal: uint64(unix.SIGCHLD)}
	if attr.Sys.UseCgroupFD {
		c.flags, c.cgroup = unix.CLONE_INTO_CGROUP, uint64(attr.Sys.CgroupFD)
	}
	helper, errno := forkRaw(a, c)
	unix.Close(report)
	runtime.KeepAlive(argp)
	if errno != 0 {
		return nil, fmt.Errorf("clone: %w", errno)
	}
	pid, err := readReport(pipe[0])
	waitFor(helper)
	if err != nil {
		if pid > 0 {
			_ = unix.Kill(pid, unix.SIGKILL)
			waitFor(pid)
		}
		return nil, err
	}
	// Our child, not reaped yet: the number cannot mean another process.
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, fmt.Errorf("open init %d: %w", pid, err)
	}
	return &spawned{pid: pid, pidfd: os.NewFile(uintptr(fd), "pidfd"), conn: wire.Conn{FD: socket}}, nil
}

func waitFor(pid int) {
	for {
		if _, err := unix.Wait4(pid, nil, 0, nil); !errors.Is(err, unix.EINTR) {
			return
		}
	}
}

// readReport reads what the children say until both have closed the pipe.
func readReport(fd int) (pid int, err error) {
	buf := make([]byte, 8)
	for {
		n, rerr := unix.Read(fd, buf)
		if errors.Is(rerr, unix.EINTR) {
			continue
		}
		if n < 8 {
			break
		}
		stage, value := binary.NativeEndian.Uint32(buf), int32(binary.NativeEndian.Uint32(buf[4:]))
		if stage == rawPid {
			pid = int(value)
		} else if int(stage) < len(rawStages) {
			err = fmt.Errorf("%s: %w", rawStages[stage], unix.Errno(value))
		}
	}
	if pid == 0 && err == nil {
		err = errors.New("the helper that enters namespaces died")
	}
	return pid, err
}

// forkRaw blocks signals, clones, and returns in the parent only.
//
//go:norace
//go:noinline
func forkRaw(a *rawArgs, c *cloneArgs) (pid int, errno unix.Errno) {
	all := ^uint64(0)
	unix.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&all)), uintptr(unsafe.Pointer(&a.mask)), 8, 0, 0)
	pid, errno = cloneRaw(a, c)
	unix.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&a.mask)), 0, 8, 0, 0)
	return pid, errno
}

//go:nosplit
//go:norace
//go:noinline
func cloneRaw(a *rawArgs, c *cloneArgs) (int, unix.Errno) {
	pid, _, errno := unix.RawSyscall(unix.SYS_CLONE3, uintptr(unsafe.Pointer(c)), unsafe.Sizeof(*c), 0)
	if errno != 0 || pid != 0 {
		return int(pid), errno
	}
	rawHelper(a, c)
	return 0, 0 // never
}

// rawHelper is the first child; it does not return.
//
//go:nosplit
//go:norace
//go:noinline
func rawHelper(a *rawArgs, c *cloneArgs) {
	// Needs privileges over both the namespace and the one it is left for.
	if a.time != noNS {
		if _, _, errno := unix.RawSyscall(unix.SYS_SETNS, a.time, unix.CLONE_NEWTIME, 0); errno != 0 {
			rawFail(a, rawSetnsTime, errno)
		}
	}
	if a.user != noNS {
		if _, _, errno := unix.RawSyscall(unix.SYS_SETNS, a.user, unix.CLONE_NEWUSER, 0); errno != 0 {
			rawFail(a, rawSetnsUser, errno)
		}
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESGID, 0, 0, 0); errno != 0 {
			rawFail(a, rawBecomeRoot, errno)
		}
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, 0, 0, 0); errno != 0 {
			rawFail(a, rawBecomeRoot, errno)
		}
	}
	for i := 0; i < a.entered; i++ {
		if _, _, errno := unix.RawSyscall(unix.SYS_SETNS, uintptr(a.enter[i].fd), uintptr(a.enter[i].flag), 0); errno != 0 {
			rawFail(a, rawSetns, errno)
		}
	}
	c.flags = uint64(a.clone) | unix.CLONE_PARENT
	c.exitSignal, c.cgroup = 0, 0
	pid, _, errno := unix.RawSyscall(unix.SYS_CLONE3, uintptr(unsafe.Pointer(c)), unsafe.Sizeof(*c), 0)
	if errno != 0 {
		rawFail(a, rawClone, errno)
	}
	if pid == 0 {
		rawInit(a)
	}
	rawReport(a, rawPid, uint32(pid))
	unix.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
}

// rawInit is the second child; it does not return.
//
//go:nosplit
//go:norace
//go:noinline
func rawInit(a *rawArgs) {
	for i := 0; i < a.nfds; i++ {
		if _, _, errno := unix.RawSyscall(unix.SYS_DUP3, a.fds[i], uintptr(i), 0); errno != 0 {
			rawFail(a, rawDup, errno)
		}
	}
	unix.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&a.none)), 0, 8, 0, 0)
	_, _, errno := unix.RawSyscall6(unix.SYS_EXECVEAT, a.program, uintptr(unsafe.Pointer(a.empty)),
		uintptr(unsafe.Pointer(a.argv)), uintptr(unsafe.Pointer(a.env)), unix.AT_EMPTY_PATH, 0)
	rawFail(a, rawExec, errno)
}

//go:nosplit
//go:norace
func rawFail(a *rawArgs, stage uint32, errno unix.Errno) {
	rawReport(a, stage, uint32(errno))
	unix.RawSyscall(unix.SYS_EXIT_GROUP, 1, 0, 0)
}

//go:nosplit
//go:norace
func rawReport(a *rawArgs, stage, value uint32) {
	msg := [2]uint32{stage, value}
	unix.RawSyscall(unix.SYS_WRITE, a.report, uintptr(unsafe.Pointer(&msg)), 8)
}

// initArgs is the command line of an init.
func initArgs(b *birth) []string {
	args := []string{"wherry-runtime", "init", strconv.Itoa(3 + len(b.extra))}
	if b.standby {
		args = append(args, "standby")
	}
	return args
}
