package initproc

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// slaveFD of the pseudo-terminal once it is stdin.
const slaveFD = 0

// openConsole makes a pseudo-terminal on the container's own devpts, so that
// its names there are true, and puts it on the standard streams.
func (s *setup) openConsole() error {
	p := &s.cfg.Process
	if !p.Terminal {
		return nil
	}
	master, err := s.inRoot("/dev/pts/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK)
	if err != nil {
		return fmt.Errorf("open the container's /dev/pts/ptmx: %w", err)
	}
	var st unix.Stat_t
	var fs unix.Statfs_t
	if err := errors.Join(unix.Fstat(master, &st), unix.Fstatfs(master, &fs)); err != nil {
		return err
	}
	if fs.Type != unix.DEVPTS_SUPER_MAGIC || st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != unix.Mkdev(5, 2) {
		return errors.New("the container's /dev/pts/ptmx is not a terminal multiplexer")
	}
	if err := unix.SetNonblock(master, false); err != nil {
		return err
	}
	if err := unix.IoctlSetPointerInt(master, unix.TIOCSPTLCK, 0); err != nil {
		return fmt.Errorf("unlock terminal: %w", err)
	}
	slave, err := ioctlPeer(master)
	if err != nil {
		return fmt.Errorf("open terminal: %w", err)
	}
	if p.Width > 0 && p.Height > 0 {
		if err := unix.IoctlSetWinsize(slave, unix.TIOCSWINSZ, &unix.Winsize{Row: p.Height, Col: p.Width}); err != nil {
			return fmt.Errorf("set terminal size: %w", err)
		}
	}
	for fd := range 3 {
		if err := unix.Dup3(slave, fd, 0); err != nil {
			return fmt.Errorf("set standard stream %d: %w", fd, err)
		}
	}
	unix.Close(slave)
	s.console = master
	if err := unix.IoctlSetInt(slaveFD, unix.TIOCSCTTY, 0); err != nil {
		return fmt.Errorf("set controlling terminal: %w", err)
	}
	return nil
}

func ioctlPeer(master int) (int, error) {
	fd, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(master), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if errno != 0 {
		return -1, errno
	}
	return int(fd), nil
}

// bindConsole shows the terminal as /dev/console.
func (s *setup) bindConsole() error {
	if !s.cfg.Process.Terminal {
		return nil
	}
	target, err := s.target("/dev/console", false)
	if err != nil {
		return err
	}
	defer unix.Close(target)
	fd, err := unix.OpenTree(slaveFD, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH)
	if err != nil {
		return fmt.Errorf("clone terminal: %w", err)
	}
	defer unix.Close(fd)
	return attach(fd, target)
}
