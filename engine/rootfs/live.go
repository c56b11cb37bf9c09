package rootfs

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// OpenLive opens a mount point in the mount namespace of a running container;
// nil if that cannot be done. pidOf gives the container's process, 0 for none. The
// process is pinned, so that its number cannot become another's.
func OpenLive(pidOf func() int, dest string) *os.File {
	pid := pidOf()
	if pid == 0 {
		return nil
	}
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil
	}
	defer unix.Close(pidfd)
	root, err := os.OpenFile(fmt.Sprintf("/proc/%d/root", pid), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	defer root.Close()
	if unix.PidfdSendSignal(pidfd, 0, nil, 0) != nil || pidOf() != pid {
		return nil
	}
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	fd, err := unix.Openat2(int(root.Fd()), dest[1:], &how)
	if err != nil {
		return nil
	}
	return os.NewFile(uintptr(fd), dest)
}
