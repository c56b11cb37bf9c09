package initproc

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/ocirun/wire"
)

// exec finds the program, reports that everything stands, waits, and becomes it.
func (s *setup) exec() error {
	p := &s.cfg.Process
	if len(p.Args) == 0 {
		return &startError{code: 127, msg: "no command specified"}
	}
	file, err := lookPath(p.Args[0], p.Env)
	if err != nil {
		return err
	}
	if err := s.ready(); err != nil {
		return err
	}
	if s.cfg.Join {
		return s.execute(file)
	}
	if err := s.awaitStart(); err != nil {
		return err
	}
	s.stage = "startContainer hooks"
	if err := runHooks("startContainer", s.cfg.StartContainer); err != nil {
		return err
	}
	return s.execute(file)
}

// ready tells that the program can be executed, and hands the terminal over. Of
// an exec without one nobody wants to know.
func (s *setup) ready() error {
	var fds []int
	switch {
	case s.console >= 0:
		fds = []int{s.console}
		defer unix.Close(s.console)
	case s.cfg.Join:
		return nil
	}
	return s.conn.Send(wire.KindReady, &wire.Ready{Steps: s.took}, fds...)
}

// execute runs the program, here or in a process of its own.
func (s *setup) execute(file string) error {
	p := &s.cfg.Process
	s.stage = "program"
	argv, env, err := vectors(p)
	if err != nil {
		return err
	}
	heedSignals()
	unblockSignals() // the filter may forbid it
	if p.Init {
		return s.becomeReaper(file)
	}
	if err := s.closeRest(); err != nil {
		return err
	}
	path, err := unix.BytePtrFromString(file)
	if err != nil {
		return err
	}
	if err := s.lockDown(); err != nil {
		return err
	}
	s.leaving(true)
	_, _, errno := unix.RawSyscall(unix.SYS_EXECVE, uintptr(unsafe.Pointer(path)), uintptr(unsafe.Pointer(&argv[0])), uintptr(unsafe.Pointer(&env[0])))
	s.leaving(false)
	return execError(file, errno)
}

// leaving is called immediately before the exec, and after one that failed.
func (s *setup) leaving(yes bool) {
	if s.ended != nil {
		*s.ended = yes
	}
}

// awaitStart waits for the runtime, or for one that connects later.
func (s *setup) awaitStart() error {
	if s.cfg.Process.ListenFD < 0 {
		return s.await()
	}
	listen, err := s.fd(s.cfg.Process.ListenFD)
	if err != nil {
		return err
	}
	unix.Close(s.conn.FD)
	for {
		fd, _, err := unix.Accept4(listen, unix.SOCK_CLOEXEC)
		if errors.Is(err, unix.EINTR) || errors.Is(err, unix.ECONNABORTED) {
			continue
		}
		if err != nil {
			return fmt.Errorf("accept: %w", err)
		}
		s.conn.FD = fd
		if err = s.await(); err == nil {
			return nil
		}
		unix.Close(fd) // it went away without a word: the next one may come
	}
}

func vectors(p *wire.Process) (argv, env []*byte, err error) {
	if argv, err = pointers(p.Args); err != nil {
		return nil, nil, err
	}
	env, err = pointers(p.Env)
	return argv, env, err
}

// pointers makes a C array of strings; one with a zero byte is refused.
func pointers(list []string) ([]*byte, error) {
	out := make([]*byte, len(list)+1)
	for i, s := range list {
		p, err := unix.BytePtrFromString(s)
		if err != nil {
			return nil, fmt.Errorf("%q contains a zero byte: %w", s, err)
		}
		out[i] = p
	}
	return out, nil
}

// execError words why the kernel did not execute the file.
func execError(file string, errno unix.Errno) error {
	e := &startError{code: 126, msg: "exec " + file + ": " + errno.Error()}
	if errno == unix.ENOENT { // a missing interpreter
		e.code = 127
		e.msg = "exec " + file + ": no such file or directory"
	}
	return e
}

// closeRest makes sure that nothing but the streams and the descriptors asked
// for survives the exec.
func (s *setup) closeRest() error {
	first := uint(3 + s.cfg.Process.KeepFDs)
	if err := unix.CloseRange(first, ^uint(0)>>32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fmt.Errorf("close other descriptors: %w", err)
	}
	return nil
}

// lookPath finds the program as a shell would, as the user the process now is.
func lookPath(name string, env []string) (string, error) {
	quoted := fmt.Sprintf("exec: %q: ", name)
	if strings.Contains(name, "/") {
		err := executable(name)
		if err == nil {
			return name, nil
		}
		e := &startError{code: 126, msg: quoted + err.Error()}
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
			e.code = 127
			e.msg = quoted + "stat " + name + ": " + err.Error()
		}
		return "", e
	}
	var denied bool
	if name != "" {
		for _, dir := range strings.Split(pathOf(env), ":") {
			if dir == "" {
				dir = "."
			}
			file := dir + "/" + name
			err := executable(file)
			if err == nil {
				return file, nil
			}
			denied = denied || errors.Is(err, unix.EACCES)
		}
	}
	if denied {
		return "", &startError{code: 126, msg: quoted + "permission denied"}
	}
	return "", &startError{code: 127, msg: quoted + "executable file not found in $PATH"}
}

// pathOf is the container's search path; the last one given counts.
func pathOf(env []string) string {
	path := ""
	for _, e := range env {
		if v, ok := strings.CutPrefix(e, "PATH="); ok {
			path = v
		}
	}
	return path
}

// errIsDirectory says both what is wrong and what older clients take the exit
// code from.
var errIsDirectory = errors.New("is a directory: permission denied")

func executable(file string) error {
	var st unix.Stat_t
	if err := unix.Stat(file, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return errIsDirectory
	}
	if err := unix.Faccessat(unix.AT_FDCWD, file, unix.X_OK, unix.AT_EACCESS); err != nil {
		return err
	}
	if st.Mode&0o111 == 0 {
		return unix.EACCES
	}
	return nil
}
