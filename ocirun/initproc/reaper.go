package initproc

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/ocirun/wire"
)

// becomeReaper executes the sealed binary once more, now with the user's
// identity and filter on the whole process: pid 1 of a container must not hold
// more than the container may.
func (s *setup) becomeReaper(file string) error {
	prog, err := s.fd(s.cfg.Process.ProgramFD)
	if err != nil {
		return err
	}
	argv, err := pointers(append([]string{"wherry-init", "init", "reap", strconv.Itoa(s.conn.FD), file}, s.cfg.Process.Args...))
	if err != nil {
		return err
	}
	env, err := pointers(wrapEnv(s.cfg.Process.Env))
	if err != nil {
		return err
	}
	if err := s.closeRest(); err != nil {
		return err
	}
	// The socket goes along, to tell whether the program could be executed.
	if _, err := unix.FcntlInt(uintptr(s.conn.FD), unix.F_SETFD, 0); err != nil {
		return err
	}
	if err := s.lockDown(); err != nil {
		return err
	}
	s.leaving(true)
	empty := []byte{0}
	_, _, errno := unix.RawSyscall6(unix.SYS_EXECVEAT, uintptr(prog), uintptr(unsafe.Pointer(&empty[0])),
		uintptr(unsafe.Pointer(&argv[0])), uintptr(unsafe.Pointer(&env[0])), unix.AT_EMPTY_PATH, 0)
	s.leaving(false)
	return fmt.Errorf("execute the reaper: %w", errno)
}

// reaperEnv keeps the Go runtime of the reaper small, without descriptors of
// its own.
var reaperEnv = [...]string{"GOMAXPROCS=1", "GOGC=20", "GODEBUG=asyncpreemptoff=1,disablethp=1,containermaxprocs=0"}

// wrapEnv hides the user's variables behind numbers, so that none of them is
// one for the Go runtime of the reaper; unwrapEnv brings them back.
func wrapEnv(user []string) []string {
	env := make([]string, 0, len(reaperEnv)+len(user))
	env = append(env, reaperEnv[:]...)
	for i, e := range user {
		env = append(env, strconv.Itoa(i)+"="+e)
	}
	return env
}

func unwrapEnv(wrapped []string) []string {
	var env []string
	for _, e := range wrapped {
		if e != "" && e[0] >= '0' && e[0] <= '9' {
			_, user, _ := strings.Cut(e, "=")
			env = append(env, user)
		}
	}
	return env
}

// Reaper is the command line and the environment with which another runtime
// starts program, which is this binary, as the pid 1 in front of args.
func Reaper(program string, args, env []string) (argv, wrapped []string) {
	return append([]string{program, "init", "reap", noSocket, args[0]}, args...), wrapEnv(env)
}

// noSocket stands for the socket where nobody listens for failures.
const noSocket = "-1"

// find looks for a program that is no path in PATH, as execvp(3) does. The
// name itself is returned if it is not there.
func find(file string) string {
	if strings.Contains(file, "/") {
		return file
	}
	for _, e := range unwrapEnv(os.Environ()) {
		path, ok := strings.CutPrefix(e, "PATH=")
		if !ok {
			continue
		}
		for dir := range strings.SplitSeq(path, ":") {
			full := dir + "/" + file
			var st unix.Stat_t
			if unix.Stat(full, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFREG && unix.Access(full, unix.X_OK) == nil {
				return full
			}
		}
	}
	return file
}

// reap starts the program and then does what a pid 1 has to: hand signals on
// and wait for orphans. It returns the program's exit code.
func reap(socket string, args []string) int {
	fd, err := strconv.Atoi(socket)
	if err != nil || len(args) < 2 {
		return 1
	}
	unix.CloseOnExec(fd)
	conn := wire.Conn{FD: fd}
	setName("wherry-init")
	signals := make(chan os.Signal, 64)
	signal.Notify(signals) // all: an ignored one would be ignored by the program, too

	alone := socket == noSocket
	file := strings.Clone(args[0])
	program := make([]string, len(args)-1)
	for i, a := range args[1:] {
		program[i] = strings.Clone(a)
	}
	showAs(append([]string{"wherry-init", "--"}, program...))
	if alone {
		file = find(file)
	}
	pid, err := startChild(file, program)
	if err != nil {
		var errno unix.Errno
		f := &wire.Failure{Stage: "program", Msg: "exec " + file + ": " + err.Error(), Code: 126}
		if errors.As(err, &errno) {
			f.Errno = int32(errno)
			if errno == unix.ENOENT {
				f.Code = 127
			}
		}
		if alone {
			_, _ = os.Stderr.WriteString(f.Msg + "\n")
		} else {
			_ = conn.Send(wire.KindFailure, f)
		}
		return int(f.Code)
	}
	unix.Close(fd)
	debug.FreeOSMemory()
	for sig := range signals {
		s, _ := sig.(syscall.Signal)
		if s != unix.SIGCHLD {
			// The Go runtime's own, and what a terminal says to its background.
			if s != unix.SIGURG && s != unix.SIGTTIN && s != unix.SIGTTOU {
				_ = unix.Kill(pid, s)
			}
			continue
		}
		if code, done := collect(pid); done {
			return code
		}
	}
	return 1
}

// showAs writes over the command line that ps shows: the arguments the reaper
// was started with say nothing to a user. The strings of os.Args are that
// memory, one behind the other; whoever still needs one has cloned it.
func showAs(args []string) {
	start := unsafe.Pointer(unsafe.StringData(os.Args[0]))
	size := uintptr(0)
	for _, a := range os.Args {
		if a == "" || uintptr(unsafe.Pointer(unsafe.StringData(a))) != uintptr(start)+size {
			return // not as expected: it stays as it is
		}
		size += uintptr(len(a)) + 1
	}
	text := strings.Join(args, "\x00")
	if uintptr(len(text)) >= size {
		return
	}
	line := unsafe.Slice((*byte)(start), size)
	clear(line[copy(line, text):])
}

// startChild runs the program in a process group of its own, in the
// foreground of the terminal if there is one.
func startChild(file string, args []string) (int, error) {
	attr := &syscall.ProcAttr{Env: unwrapEnv(os.Environ()), Files: []uintptr{0, 1, 2}, Sys: &syscall.SysProcAttr{Setpgid: true}}
	if _, err := unix.IoctlGetInt(0, unix.TIOCGPGRP); err == nil {
		attr.Sys.Foreground, attr.Sys.Ctty = true, 0
	}
	return syscall.ForkExec(file, args, attr)
}

// collect reaps all that ended; done if the program is among them.
func collect(pid int) (code int, done bool) {
	for {
		var ws unix.WaitStatus
		got, err := unix.Wait4(-1, &ws, unix.WNOHANG, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || got == 0 {
			return code, done
		}
		if got == pid {
			done = true
			if code = ws.ExitStatus(); ws.Signaled() {
				code = 128 + int(ws.Signal())
			}
		}
	}
}

// setName names this thread, and so the process, for those who list them.
func setName(name string) {
	if p, err := unix.BytePtrFromString(name); err == nil {
		_ = unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(p)), 0, 0, 0)
	}
}
