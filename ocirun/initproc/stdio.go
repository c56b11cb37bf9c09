package initproc

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// ownStdio gives the standard streams to the user, so that /dev/stdout can be
// opened again. Streams of others stay as they are.
func (s *setup) ownStdio() error {
	for fd := range 3 {
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			if errors.Is(err, unix.EBADF) {
				continue
			}
			return fmt.Errorf("examine standard stream %d: %w", fd, err)
		}
		if isNull(&st) {
			if err := s.ownNull(fd); err != nil {
				return fmt.Errorf("standard stream %d: %w", fd, err)
			}
			continue
		}
		if st.Uid == s.user.uid {
			continue
		}
		err := unix.Fchown(fd, int(s.user.uid), -1)
		if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EROFS) {
			return fmt.Errorf("give standard stream %d to user %d: %w", fd, s.user.uid, err)
		}
	}
	return nil
}

func isNull(st *unix.Stat_t) bool {
	return st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == unix.Mkdev(1, 3)
}

// ownNull puts the container's null device in the place of one that comes from
// outside: that is most often the host's, and whoever has a file open, and is its
// owner by number, can change its mode for everybody.
func (s *setup) ownNull(stream int) error {
	fd, err := s.openNull()
	if err == nil {
		defer unix.Close(fd)
		return unix.Dup3(fd, stream, 0)
	}
	var fs unix.Statfs_t
	if serr := unix.Fstatfs(stream, &fs); serr != nil || fs.Flags&unix.ST_RDONLY == 0 && s.cfg.Join {
		return errors.Join(err, serr) // a container that is set up may have removed its own for this
	}
	return nil
}

// openNull opens the container's null device, which may be another file by now.
func (s *setup) openNull() (int, error) {
	fd, err := s.inRoot("/dev/null", unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK)
	if err != nil {
		return -1, fmt.Errorf("open the container's /dev/null: %w", err)
	}
	var st unix.Stat_t
	if err = unix.Fstat(fd, &st); err == nil && !isNull(&st) {
		err = errors.New("the container's /dev/null is not the null device")
	}
	if err == nil {
		err = unix.SetNonblock(fd, false)
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}
