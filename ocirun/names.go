package ocirun

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// capabilityNames in the kernel's order.
const capabilityNames = "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP " +
	"LINUX_IMMUTABLE NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO " +
	"SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE " +
	"AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON " +
	"BPF CHECKPOINT_RESTORE"

// Capabilities lists every capability this runtime knows, as specifications
// spell them, in the kernel's order.
func Capabilities() []string {
	names := strings.Fields(capabilityNames)
	for i := range names {
		names[i] = "CAP_" + names[i]
	}
	return names
}

// HeldCapabilities lists those that this process can give to containers.
func (r *Runtime) HeldCapabilities() []string {
	var held []string
	for i, name := range Capabilities() {
		if r.held&(1<<i) != 0 {
			held = append(held, name)
		}
	}
	return held
}

// capabilityList has the names in the kernel's order.
var capabilityList = sync.OnceValue(func() []string { return strings.Fields(capabilityNames) })

// capSet makes a bit mask of names.
func capSet(names []string) (uint64, error) {
	if len(names) == 0 {
		return 0, nil
	}
	var set uint64
	for _, n := range names {
		i := slices.Index(capabilityList(), strings.TrimPrefix(strings.ToUpper(n), "CAP_"))
		if i < 0 {
			return 0, fmt.Errorf("unknown capability %q: %w", n, errdefs.ErrInvalidArgument)
		}
		set |= 1 << i
	}
	return set, nil
}

// rlimitNames in the kernel's order.
const rlimitNames = "CPU FSIZE DATA STACK CORE RSS NPROC NOFILE MEMLOCK AS LOCKS SIGPENDING MSGQUEUE NICE RTPRIO RTTIME"

func rlimitNumber(name string) (int, error) {
	n, ok := strings.CutPrefix(name, "RLIMIT_")
	if i := slices.Index(strings.Fields(rlimitNames), n); ok && i >= 0 {
		return i, nil
	}
	return 0, fmt.Errorf("unknown resource limit %q: %w", name, errdefs.ErrInvalidArgument)
}

// nsFlag of a namespace type.
func nsFlag(typ string) int {
	switch typ {
	case "pid":
		return unix.CLONE_NEWPID
	case "network":
		return unix.CLONE_NEWNET
	case "mount":
		return unix.CLONE_NEWNS
	case "ipc":
		return unix.CLONE_NEWIPC
	case "uts":
		return unix.CLONE_NEWUTS
	case "user":
		return unix.CLONE_NEWUSER
	case "cgroup":
		return unix.CLONE_NEWCGROUP
	case "time":
		return unix.CLONE_NEWTIME
	}
	return 0
}
