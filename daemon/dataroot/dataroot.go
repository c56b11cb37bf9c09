// Package dataroot takes a data root into possession: its directories, its
// version, and the lock that keeps a second daemon away.
package dataroot

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/internal/topdir"
)

// layoutVersion is the version of the directory layout.
const layoutVersion = 1

// Root is a data root in our possession.
type Root struct {
	Dir  string
	lock *os.File
}

// Open makes the directory if it is missing, closed to other users (who could
// else run the set-user-ID programs of a volume whose name they know), locks it and checks its version.
// FailedPrecondition if another daemon has it or it is of a newer version.
func Open(dir string) (_ *Root, err error) {
	if err := os.MkdirAll(dir, 0o710); err != nil {
		return nil, fmt.Errorf("make data root: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock of data root: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, lock.Close())
		}
	}()
	if err := take(lock, dir); err != nil {
		return nil, err
	}
	if err := checkVersion(filepath.Join(dir, "VERSION")); err != nil {
		return nil, err
	}
	for _, sub := range []struct {
		name string
		mode os.FileMode
	}{{"containers", 0o710}, {"layers", 0o710}, {"volumes", 0o701}, {"tmp", 0o700}} {
		if err := os.MkdirAll(filepath.Join(dir, sub.name), sub.mode); err != nil {
			return nil, fmt.Errorf("make data root: %w", err)
		}
		topdir.Mark(filepath.Join(dir, sub.name))
	}
	return &Root{Dir: dir, lock: lock}, nil
}

// take locks the file and writes our pid into it, for the message of the next.
func take(lock *os.File, dir string) error {
	err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		buf := make([]byte, 32)
		n, _ := lock.ReadAt(buf, 0)
		return fmt.Errorf("data root %s is in use by another daemon (pid %s): %w",
			dir, strings.TrimSpace(string(buf[:n])), errdefs.ErrFailedPrecondition)
	}
	if err != nil {
		return fmt.Errorf("lock data root: %w", err)
	}
	if err := lock.Truncate(0); err != nil {
		return fmt.Errorf("lock data root: %w", err)
	}
	_, err = lock.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	if errors.Is(err, unix.ENOSPC) {
		return nil // the pid is a courtesy; the lock holds
	}
	return err
}

func checkVersion(path string) error {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return os.WriteFile(path, []byte(strconv.Itoa(layoutVersion)+"\n"), 0o644)
	}
	if err != nil {
		return err
	}
	text := strings.TrimSpace(string(data))
	if text == "" {
		// Cut short when it was made; nothing else can have been written yet.
		return os.WriteFile(path, []byte(strconv.Itoa(layoutVersion)+"\n"), 0o644)
	}
	v, err := strconv.Atoi(text)
	if err != nil {
		return fmt.Errorf("%s does not hold a version: %q: %w", path, text, errdefs.ErrFailedPrecondition)
	}
	if v > layoutVersion {
		return fmt.Errorf("data root has version %d, this engine knows versions up to %d; it was left as it is: %w",
			v, layoutVersion, errdefs.ErrFailedPrecondition)
	}
	return nil
}

// LockExecRoot makes the exec root if it is missing and locks the directory
// itself until the returned file is closed: two daemons on one exec root would
// share helpers, and the first to stop would take them from the other.
// FailedPrecondition if another daemon has it.
func LockExecRoot(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return nil, fmt.Errorf("make exec root: %w", err)
	}
	f, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("open exec root: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = fmt.Errorf("exec root %s is in use by another daemon: %w", dir, errdefs.ErrFailedPrecondition)
		}
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// Close gives the data root free.
func (r *Root) Close() error { return r.lock.Close() }
