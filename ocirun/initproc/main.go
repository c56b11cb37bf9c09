// Package initproc is the program inside a new container: it sets everything
// up from one message and then becomes the user's process. It runs from a
// sealed copy of the binary, trusts what the runtime sent and nothing it finds
// in the container's root. The messages are those of package wire.
package initproc

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/internal/timerslack"
	"github.com/wherry-engine/wherry/ocirun/wire"
)

// Main is the face "init" of wherry-runtime; it returns only on failure, when
// the runtime needs it no more, or as the built-in reaper when its child is
// gone. The first argument is the descriptor of the socket; "standby" after it
// makes it fork inits (see childFD), "reap" before it the reaper.
func Main(args []string) int {
	// Namespaces, credentials and filters belong to the thread that execs.
	runtime.LockOSThread()
	timerslack.Reset()
	if len(args) > 2 && args[0] == "reap" {
		return reap(args[1], args[2:])
	}
	standby := len(args) == 2 && args[1] == "standby"
	if len(args) != 1 && !standby {
		_, _ = os.Stderr.WriteString("wherry-runtime: init is started by the runtime, not by hand\n")
		return 1
	}
	fd, err := strconv.Atoi(args[0])
	if err != nil || fd < 3 {
		return 1
	}
	unix.CloseOnExec(fd)
	if standby {
		timerslack.Relax()
		return serve(wire.Conn{FD: fd})
	}
	s := newSetup(fd)
	err = s.run()
	if errors.Is(err, io.EOF) {
		return 1 // whoever wanted the container is gone
	}
	_ = s.conn.Send(wire.KindFailure, s.failure(err))
	return 1
}

// setup is the work of one init.
type setup struct {
	conn  wire.Conn
	cfg   wire.Config
	fds   []int
	stage string
	took  []wire.Step // so far

	proc    int // the host's procfs, opened before anything of the container
	newProc int // the container's procfs
	kernel  []kernelFS
	null    int // the host's /dev/null
	root    int // the root of the container
	console int // master of the pseudo-terminal
	// ended is set while the process becomes another program, if not nil.
	ended *bool
	user  user
	// chdirLater: the working directory can be entered by the user only.
	chdirLater bool
}

func newSetup(socket int) *setup {
	return &setup{conn: wire.Conn{FD: socket}, proc: -1, root: -1, newProc: -1, null: -1, console: -1}
}

// startError is a request that cannot be run, with the code users expect.
type startError struct {
	code int32
	msg  string
}

func (e *startError) Error() string { return e.msg }

// failure turns an error into the message for the runtime.
func (s *setup) failure(err error) *wire.Failure {
	f := &wire.Failure{Stage: s.stage, Msg: err.Error()}
	var start *startError
	if errors.As(err, &start) {
		f.Code, f.Msg = start.code, start.msg
	}
	var errno unix.Errno
	if errors.As(err, &errno) {
		f.Errno = int32(errno)
	}
	return f
}

func (s *setup) fd(i int) (int, error) {
	if i < 0 || i >= len(s.fds) {
		return -1, fmt.Errorf("descriptor %d was not passed", i)
	}
	return s.fds[i], nil
}

// step is one named piece of the work.
type step struct {
	name string
	do   func() error
}

func (s *setup) steps(steps ...step) error {
	began := time.Now()
	for _, st := range steps {
		s.stage = st.name
		if err := st.do(); err != nil {
			return err
		}
		now := time.Now()
		s.took = append(s.took, wire.Step{Name: st.name, Micros: now.Sub(began).Microseconds()})
		began = now
	}
	return nil
}

// run does everything; it returns only with an error.
func (s *setup) run() error {
	s.stage = "configuration"
	msg, err := s.conn.Receive()
	if err != nil {
		return err
	}
	s.fds = msg.FDs
	if err := msg.Decode(&s.cfg); err != nil {
		return err
	}
	if s.proc, err = unix.Open("/proc", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
		return fmt.Errorf("open /proc: %w", err)
	}
	unix.Umask(0)
	switch {
	case s.cfg.Join:
		err = s.steps(
			step{"control groups", s.enterCgroups},
			step{"join", s.join},
			step{"session", s.session},
			step{"terminal", s.openConsole},
		)
	default:
		err = s.steps(
			step{"control groups", s.enterCgroups},
			step{"namespaces", s.namespaces},
			step{"session", s.session},
			step{"root", s.attachRoot},
			step{"mounts", s.mounts},
			step{"devices", s.devices},
			step{"hooks", s.hooks},
			step{"terminal", s.openConsole},
			step{"console", s.bindConsole},
			step{"sysctl", s.sysctls},
			step{"read-only paths", s.readonlyPaths},
			step{"masked paths", s.maskedPaths}, // before the pivot: it needs the host's /dev/null
			step{"working directory", s.makeWorkingDir},
			step{"pivot", s.pivot},
		)
	}
	if err != nil {
		return err
	}
	return s.steps(
		step{"user", s.resolveUser},
		step{"attributes", s.attributes},
		step{"standard streams", s.ownStdio},
		step{"descriptors", s.closeUnneeded},
		step{"working directory", s.workingDir},
		step{"capabilities", s.dropPrivileges},
		step{"working directory", s.workingDirAsUser},
		step{"program", s.exec},
	)
}
