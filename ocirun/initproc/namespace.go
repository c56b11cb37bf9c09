package initproc

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// namespaces enters or makes what the clone could not, and names the host.
func (s *setup) namespaces() error {
	for _, e := range s.cfg.Enter {
		fd, err := s.fd(e.FD)
		if err != nil {
			return err
		}
		if e.Flag == unix.CLONE_NEWNS {
			if err := unix.Unshare(unix.CLONE_FS); err != nil {
				return fmt.Errorf("unshare file-system attributes: %w", err)
			}
		}
		if err := unix.Setns(fd, e.Flag); err != nil {
			return fmt.Errorf("enter namespace %#x: %w", e.Flag, err)
		}
	}
	if s.cfg.Unshare != 0 {
		if err := unix.Unshare(s.cfg.Unshare); err != nil {
			return fmt.Errorf("unshare %#x: %w", s.cfg.Unshare, err)
		}
	}
	if s.cfg.Hostname != "" {
		if err := unix.Sethostname([]byte(s.cfg.Hostname)); err != nil {
			return fmt.Errorf("set host name: %w", err)
		}
	}
	if s.cfg.Domainname != "" {
		if err := unix.Setdomainname([]byte(s.cfg.Domainname)); err != nil {
			return fmt.Errorf("set domain name: %w", err)
		}
	}
	return nil
}

// join enters the namespaces of a running container that the runtime's thread
// could not enter before the clone. Until its privileges are dropped, nobody
// inside may look at this process.
func (s *setup) join() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("become undumpable: %w", err)
	}
	fd, err := s.fd(s.cfg.JoinFD)
	if err != nil {
		return err
	}
	if s.cfg.JoinFlags != 0 {
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			return fmt.Errorf("unshare file-system attributes: %w", err)
		}
		if err := unix.Setns(fd, s.cfg.JoinFlags); err != nil {
			return fmt.Errorf("enter the container's namespaces: %w", err)
		}
	}
	if s.cfg.RootFD >= 0 {
		if err := s.enterRoot(); err != nil {
			return err
		}
	}
	s.root, err = unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open the container's root: %w", err)
	}
	return nil
}

// enterRoot is for a container whose root is not that of its mount namespace.
func (s *setup) enterRoot() error {
	fd, err := s.fd(s.cfg.RootFD)
	if err != nil {
		return err
	}
	if err := unix.Fchdir(fd); err != nil {
		return fmt.Errorf("enter the container's root: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return fmt.Errorf("chroot to the container's root: %w", err)
	}
	return nil
}

// session makes a new session, with a keyring of the container's own.
func (s *setup) session() error {
	if _, err := unix.Setsid(); err != nil {
		return fmt.Errorf("new session: %w", err)
	}
	return s.keyring()
}

// keyring joins the container's session keyring, or makes it.
func (s *setup) keyring() error {
	if s.cfg.Process.Keyring == "" {
		return nil
	}
	name, err := unix.BytePtrFromString(s.cfg.Process.Keyring)
	if err != nil {
		return err
	}
	if label := s.cfg.Process.SELinux; label != "" { // until the next exec
		if err := s.writeProc("attr/keycreate", label); err != nil {
			return fmt.Errorf("set SELinux label %s of the keyring: %w", label, err)
		}
	}
	_, _, errno := unix.Syscall(unix.SYS_KEYCTL, unix.KEYCTL_JOIN_SESSION_KEYRING, uintptr(unsafe.Pointer(name)), 0)
	// A kernel without keys, or a quota that is used up, isolates as well.
	if errno != 0 && errno != unix.ENOSYS && errno != unix.EDQUOT && errno != unix.EPERM {
		return fmt.Errorf("new session keyring: %w", errno)
	}
	return nil
}
