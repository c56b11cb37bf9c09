package initproc

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/ocirun/wire"
)

// An init that stands by has started before anybody asked for a process, which
// saves most of what an init costs when somebody does. It makes the inits of any
// number of containers and execs, one after the other, as its siblings: their
// parent is the runtime's process, as ever.
//
// Such an init is a process with namespaces, files and credentials of its own,
// and borrows this process's memory until it executes the program (vfork(2)): a
// copy would cost more than all else here. The kernel keeps the thread that
// cloned waiting meanwhile, so that the child simply goes on in its place: it is
// what the Go runtime takes for that thread, locked to this goroutine, and may
// run Go code, as long as
//   - its stack need not grow, for the waiting thread comes back to it; nor shrink;
//   - it starts no goroutine, which would run in the process left behind;
//   - it comes to its end with no deferred call pending.
//
// One that is killed before takes this process along, and somebody else forks.

const (
	// forkStack is several times what an init needs, in bytes; a larger variable would not be on the stack.
	forkStack = 64 << 10
	// forksPerCollection bounds the garbage of inits: nothing else collects it.
	forksPerCollection = 16
)

// child is what an init is made from.
type child struct {
	fds []int  // as wire.Fork has them
	pid *int32 // set by the kernel, in the numbering of the runtime
	// ended tells the forker that its thread is where it was: the child was not
	// killed in the middle of something.
	ended bool
}

// cloneArgs is struct clone_args.
type cloneArgs struct {
	flags, pidfd, childTID, parentTID, exitSignal, stack, stackSize, tls, setTID, setTIDSize, cgroup uint64
}

// forker is an init that stands by.
type forker struct {
	conn  wire.Conn
	pidNS int    // its own, to come back to
	child *int32 // shared with the runtime, which may need to know if nobody tells
}

// childFD is the descriptor of a file of one page, where forker.child is.
const childFD = 3

// serve forks inits until the runtime is gone. It returns the exit code.
func serve(conn wire.Conn) int {
	// Nobody in a container may look into the memory that all share, but with
	// CAP_SYS_PTRACE: the runtime forks no init where somebody may have that.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return 1
	}
	blockSignals()
	setName("wherry-init")
	page, err := unix.Mmap(childFD, 0, os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return 1
	}
	unix.Close(childFD)
	f := &forker{conn: conn, child: (*int32)(unsafe.Pointer(&page[0]))}
	if f.pidNS, err = unix.Open("/proc/thread-self/ns/pid", unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
		return 1
	}
	growStack()
	populate()
	for n := 1; ; n++ {
		msg, err := conn.Receive()
		if err != nil || msg.Kind != wire.KindFork {
			return 0
		}
		if !f.fork(msg) {
			return 1
		}
		if n%forksPerCollection == 0 {
			runtime.GC()
		}
	}
}

// fork makes one init and waits until it is another program or has ended. It
// returns false if this process cannot go on.
func (f *forker) fork(msg *wire.Message) bool {
	defer closeAll(msg.FDs)
	var req wire.Fork
	if err := msg.Decode(&req); err != nil || len(msg.FDs) < wire.ForkFDs {
		return false
	}
	more := msg.FDs[wire.ForkFDs:]
	next := func() int {
		fd := -1
		if len(more) > 0 {
			fd, more = more[0], more[1:]
		}
		return fd
	}
	if req.PidNS {
		if err := unix.Setns(next(), unix.CLONE_NEWPID); err != nil {
			refuse(msg.FDs[0], "enter the PID namespace", err)
			return true
		}
	}
	c := &child{fds: msg.FDs[:wire.ForkFDs], pid: f.child}
	args := &cloneArgs{
		flags:     req.Flags | unix.CLONE_PARENT | unix.CLONE_PARENT_SETTID | unix.CLONE_VM | unix.CLONE_VFORK | unix.CLONE_CLEAR_SIGHAND,
		parentTID: uint64(uintptr(unsafe.Pointer(f.child))),
	}
	if req.Cgroup {
		args.flags |= unix.CLONE_INTO_CGROUP
		args.cgroup = uint64(next())
	}
	pid := cloneShared(c, args, unsafe.Sizeof(*args))
	if pid < 0 {
		refuse(msg.FDs[0], "clone", unix.Errno(-pid))
	}
	return !req.PidNS || unix.Setns(f.pidNS, unix.CLONE_NEWPID) == nil
}

// refuse tells the runtime why there is no init.
func refuse(fd int, what string, err error) {
	s := &setup{stage: "fork"}
	_ = wire.Conn{FD: fd}.Send(wire.KindFailure, s.failure(fmt.Errorf("%s: %w", what, err)))
}

func closeAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}

// growStack makes sure of the child's stack.
//
//go:noinline
func growStack() byte {
	var room [forkStack]byte
	return room[len(os.Args)]
}

// cloneShared calls clone3(2) and, in the child, become. It returns the process
// id, or the negated error, or not at all if the child has not ended well.
func cloneShared(c *child, args *cloneArgs, size uintptr) int

// become is the life of the child, which does not return.
//
//go:norace
func become(c *child) {
	s := newSetup(initConn)
	s.ended = &c.ended
	err := c.settle()
	if err == nil {
		err = s.conn.Send(wire.KindForked, &wire.Forked{Pid: *c.pid})
	}
	if err == nil {
		err = s.run()
	}
	if !errors.Is(err, io.EOF) {
		_ = s.conn.Send(wire.KindFailure, s.failure(err))
	}
	c.ended = true
	for {
		unix.RawSyscall(unix.SYS_EXIT_GROUP, 1, 0, 0)
	}
}

// initConn is the descriptor of a forked init's socket.
const initConn = 3

// settle leaves the child with its streams and its socket, and nothing of the
// forker's.
func (c *child) settle() error {
	const above = 64 // of what is to be put in order
	conn, err := unix.FcntlInt(uintptr(c.fds[0]), unix.F_DUPFD_CLOEXEC, above)
	if err != nil {
		return err
	}
	for i := range 3 {
		if err := unix.Dup3(c.fds[1+i], i, 0); err != nil {
			return fmt.Errorf("set standard stream %d: %w", i, err)
		}
	}
	if err := unix.Dup3(conn, initConn, unix.O_CLOEXEC); err != nil {
		return err
	}
	return unix.CloseRange(initConn+1, ^uint(0)>>32, 0)
}
