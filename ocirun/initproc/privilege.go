package initproc

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// capability numbers used here.
const (
	capSysAdmin = uint64(1) << unix.CAP_SYS_ADMIN
)

// dropPrivileges becomes the user. CAP_SYS_ADMIN stays permitted, yet not
// effective, for the one thing that comes last: the seccomp filter.
func (s *setup) dropPrivileges() error {
	p := &s.cfg.Process
	if p.ResolveUser && s.user.uid != 0 {
		// The caller did not know who it would be; this is what the exec of an
		// ordinary user leaves.
		p.Effective, p.Permitted = p.Ambient, p.Ambient
	}
	if p.SetCaps {
		if err := dropBounding(p.Bounding); err != nil {
			return err
		}
	}
	if err := unix.Prctl(unix.PR_SET_KEEPCAPS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("keep capabilities: %w", err)
	}
	if err := s.becomeUser(); err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_KEEPCAPS, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("do not keep capabilities: %w", err)
	}
	// Processes of a shared PID namespace that are as privileged could look into
	// this one, whose memory and other threads still may everything, until the
	// exec. With fs.suid_dumpable=1 the change of the user had allowed it.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("become undumpable: %w", err)
	}
	unix.Umask(0o022)
	if p.Umask >= 0 {
		unix.Umask(int(p.Umask))
	}
	if !p.SetCaps {
		return nil
	}
	_, permitted, _, err := getCaps()
	if err != nil {
		return err
	}
	return setCaps(p.Effective, p.Permitted|permitted&capSysAdmin, p.Inheritable)
}

// becomeUser sets the ids of this thread, the one that execs.
func (s *setup) becomeUser() error {
	u := &s.user
	gids := u.gids
	var ptr unsafe.Pointer
	if len(gids) > 0 {
		ptr = unsafe.Pointer(&gids[0])
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(gids)), uintptr(ptr), 0); errno != 0 {
		// A user namespace made without privileges has no supplementary groups;
		// the primary one needs no place among them there.
		if errno != unix.EPERM || len(gids) > 1 || len(gids) == 1 && gids[0] != u.gid {
			return fmt.Errorf("set supplementary groups: %w", errno)
		}
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESGID, uintptr(u.gid), uintptr(u.gid), uintptr(u.gid)); errno != 0 {
		return fmt.Errorf("set group %d: %w", u.gid, errno)
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(u.uid), uintptr(u.uid), uintptr(u.uid)); errno != 0 {
		return fmt.Errorf("set user %d: %w", u.uid, errno)
	}
	return nil
}

// lockDown is the last step before exec.
func (s *setup) lockDown() error {
	p := &s.cfg.Process
	if p.NoNewPrivileges {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return fmt.Errorf("set no_new_privs: %w", err)
		}
	} else if len(p.Filter) > 0 {
		if err := s.filterAsAdmin(); err != nil {
			return err
		}
	}
	if p.SetCaps {
		if err := setCaps(p.Effective, p.Permitted, p.Inheritable); err != nil {
			return err
		}
		if err := setAmbient(p.Ambient); err != nil {
			return err
		}
	}
	if p.NoNewPrivileges && len(p.Filter) > 0 {
		return s.loadFilter()
	}
	return nil
}

// filterAsAdmin loads the filter with the capability it needs.
func (s *setup) filterAsAdmin() error {
	if err := raise(capSysAdmin); err != nil {
		return err
	}
	return s.loadFilter()
}

// raise makes capabilities effective, as far as they are permitted.
func raise(caps uint64) error {
	effective, permitted, inheritable, err := getCaps()
	if err != nil {
		return err
	}
	if caps &= permitted &^ effective; caps == 0 {
		return nil
	}
	return setCaps(effective|caps, permitted, inheritable)
}

// sockFprog is struct sock_fprog.
type sockFprog struct {
	len    uint16
	_      [6]byte
	filter unsafe.Pointer
}

func (s *setup) loadFilter() error {
	f := s.cfg.Process.Filter
	prog := sockFprog{len: uint16(len(f) / 8), filter: unsafe.Pointer(&f[0])}
	if s.cfg.Process.Notify {
		return s.loadNotify(&prog)
	}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, uintptr(s.cfg.Process.FilterFlags), uintptr(unsafe.Pointer(&prog)))
	if errno != 0 {
		return fmt.Errorf("load seccomp filter: %w", errno)
	}
	return nil
}

func dropBounding(keep uint64) error {
	for c := range 64 {
		if keep&(1<<c) != 0 {
			continue
		}
		err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(c), 0, 0, 0)
		if errors.Is(err, unix.EINVAL) {
			return nil // past the last one this kernel knows
		}
		if err != nil {
			return fmt.Errorf("drop capability %d from the bounding set: %w", c, err)
		}
	}
	return nil
}

func setAmbient(set uint64) error {
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return fmt.Errorf("clear ambient capabilities: %w", err)
	}
	for c := range 64 {
		if set&(1<<c) == 0 {
			continue
		}
		if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, uintptr(c), 0, 0); err != nil {
			return fmt.Errorf("raise ambient capability %d: %w", c, err)
		}
	}
	return nil
}

var capHeader = unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}

func getCaps() (effective, permitted, inheritable uint64, err error) {
	var d [2]unix.CapUserData
	h := capHeader
	if err := unix.Capget(&h, &d[0]); err != nil {
		return 0, 0, 0, fmt.Errorf("get capabilities: %w", err)
	}
	join := func(lo, hi uint32) uint64 { return uint64(hi)<<32 | uint64(lo) }
	return join(d[0].Effective, d[1].Effective), join(d[0].Permitted, d[1].Permitted), join(d[0].Inheritable, d[1].Inheritable), nil
}

func capData(effective, permitted, inheritable uint64) [2]unix.CapUserData {
	return [2]unix.CapUserData{
		{Effective: uint32(effective), Permitted: uint32(permitted), Inheritable: uint32(inheritable)},
		{Effective: uint32(effective >> 32), Permitted: uint32(permitted >> 32), Inheritable: uint32(inheritable >> 32)},
	}
}

func setCaps(effective, permitted, inheritable uint64) error {
	d := capData(effective, permitted, inheritable)
	h := capHeader
	if err := unix.Capset(&h, &d[0]); err != nil {
		return fmt.Errorf("set capabilities: %w", err)
	}
	return nil
}
