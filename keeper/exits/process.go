package exits

import (
	"bytes"
	"fmt"
	"io/fs"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// StartTime returns when a process started, in clock ticks since boot. With
// the pid it names a process for ever.
func StartTime(pid int) (uint64, error) {
	f, err := stat(pid)
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(string(f[startField]), 10, 64)
}

// Fields of /proc/PID/stat, counted from the one after the command.
const (
	stateField = 0
	startField = 19
	exitField  = 49
)

func stat(pid int) ([][]byte, error) {
	// Not os.ReadFile: its file would be offered to the poller, a detour on the
	// way of every exec.
	name := "/proc/" + strconv.Itoa(pid) + "/stat"
	fd, err := unix.Open(name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	defer unix.Close(fd)
	b := make([]byte, 2048) // 52 numbers and a name of 16 bytes
	n, err := unix.Read(fd, b)
	if err != nil {
		return nil, &fs.PathError{Op: "read", Path: name, Err: err}
	}
	b = b[:n]
	i := bytes.LastIndexByte(b, ')') // the command may hold anything
	f := bytes.Fields(b[i+1:])
	if i < 0 || len(f) <= exitField {
		return nil, fmt.Errorf("malformed stat of process %d", pid)
	}
	return f, nil
}

// FromZombie returns the exit code of a process that has ended and that its
// parent, whoever that is, did not wait for yet.
func FromZombie(pid int, start uint64) (code int, ok bool) {
	f, err := stat(pid)
	if err != nil || string(f[stateField]) != "Z" {
		return 0, false
	}
	began, err1 := strconv.ParseUint(string(f[startField]), 10, 64)
	status, err2 := strconv.ParseUint(string(f[exitField]), 10, 32)
	if err1 != nil || err2 != nil || began != start {
		return 0, false
	}
	return CodeOf(unix.WaitStatus(status)), true
}

// Open returns a pidfd of the process, and whether it still is the one that
// started at start.
func Open(pid int, start uint64) (int, bool) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return -1, false
	}
	if now, err := StartTime(pid); err != nil || now != start {
		_ = unix.Close(fd)
		return -1, false
	}
	return fd, true
}

// CodeOf turns a wait status into an exit code.
func CodeOf(ws unix.WaitStatus) int {
	if ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return ws.ExitStatus()
}

// pidfdInfo is struct pidfd_info of linux/pidfd.h, first version.
type pidfdInfo struct {
	mask     uint64
	cgroup   uint64
	ids      [11]uint32
	exitCode int32
}

const (
	pidfdInfoExit = 1 << 3
	pidfdGetInfo  = 3<<30 | 64<<16 | 0xff<<8 | 11 // _IOWR(0xff, 11, struct pidfd_info)
)

// FromPidfd asks the kernel how the process ended. It knows from Linux 6.15
// on, once the process was reaped, whoever did that.
func FromPidfd(pidfd int) (code int, ok bool) {
	info := pidfdInfo{mask: pidfdInfoExit}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(pidfd), pidfdGetInfo, uintptr(unsafe.Pointer(&info)))
	if errno != 0 || info.mask&pidfdInfoExit == 0 {
		return 0, false
	}
	return CodeOf(unix.WaitStatus(info.exitCode)), true
}
