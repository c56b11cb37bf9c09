// Package fsid makes files on behalf of other users than the process's own
// (setfsuid(2)).
package fsid

import (
	"errors"
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// As calls f with other file-system ids, on this thread alone, and with the
// capabilities that the process has. Only root may.
func As(uid, gid uint32, f func() error) error {
	runtime.LockOSThread()
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var caps [2]unix.CapUserData
	if err := unix.Capget(&head, &caps[0]); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("capget: %w", err)
	}
	set(uid, gid)
	err := unix.Capset(&head, &caps[0]) // the kernel takes those of files away with user 0
	if err == nil {
		err = f()
	}
	set(0, 0)
	if cerr := unix.Capset(&head, &caps[0]); cerr != nil {
		return errors.Join(err, fmt.Errorf("capset: %w", cerr)) // the thread ends with the goroutine
	}
	runtime.UnlockOSThread()
	return err
}

// set cannot fail for root.
func set(uid, gid uint32) {
	_, _, _ = unix.RawSyscall(unix.SYS_SETFSGID, uintptr(gid), 0, 0)
	_, _, _ = unix.RawSyscall(unix.SYS_SETFSUID, uintptr(uid), 0, 0)
}
