package spec

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/containerd/errdefs"
)

func invalid(format string, args ...any) error {
	return errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf(format, args...))
}

// capNames is in the order of the kernel's numbers.
const capNames = `CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE
NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE
SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL
SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE`

// defaultCaps are what a container has unless told otherwise.
const defaultCaps = `CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP
NET_BIND_SERVICE SYS_CHROOT KILL AUDIT_WRITE`

// known returns every capability the kernel and this engine both have and that
// this process may give away.
var known = sync.OnceValue(func() []string {
	last := 40
	if b, err := os.ReadFile("/proc/sys/kernel/cap_last_cap"); err == nil {
		if n, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil {
			last = n
		}
	}
	bounding := boundingSet()
	var out []string
	for i, name := range strings.Fields(capNames) {
		if i <= last && bounding&(1<<i) != 0 {
			out = append(out, "CAP_"+name)
		}
	}
	return out
})

func boundingSet() uint64 {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return ^uint64(0)
	}
	_, rest, ok := strings.Cut(string(status), "CapBnd:")
	if !ok {
		return ^uint64(0)
	}
	hex, _, _ := strings.Cut(rest, "\n")
	set, err := strconv.ParseUint(strings.TrimSpace(hex), 16, 64)
	if err != nil {
		return ^uint64(0)
	}
	return set
}

// Capabilities normalizes names to CAP_X; ALL stays. InvalidArgument.
func Capabilities(names []string) ([]string, error) {
	var out []string
	for _, name := range names {
		up := strings.ToUpper(name)
		if up == "ALL" || up == "CAP_ALL" {
			out = append(out, "ALL")
			continue
		}
		short := strings.TrimPrefix(up, "CAP_")
		if !slices.Contains(strings.Fields(capNames), short) {
			return nil, invalid("unknown capability: %q", name)
		}
		out = append(out, "CAP_"+short)
	}
	return out, nil
}

// effectiveCaps applies what was added and dropped to the defaults.
func effectiveCaps(add, drop []string, privileged bool) ([]string, error) {
	if privileged {
		return known(), nil
	}
	add, err := Capabilities(add)
	if err != nil {
		return nil, err
	}
	if drop, err = Capabilities(drop); err != nil {
		return nil, err
	}
	var base []string
	switch {
	case slices.Contains(add, "ALL"):
		base = known()
	case slices.Contains(drop, "ALL"):
	default:
		for _, name := range strings.Fields(defaultCaps) {
			base = append(base, "CAP_"+name)
		}
	}
	out := make([]string, 0, len(base)+len(add))
	for _, c := range base {
		if !slices.Contains(drop, c) {
			out = append(out, c)
		}
	}
	for _, c := range add {
		if c != "ALL" && !slices.Contains(out, c) {
			out = append(out, c)
		}
	}
	return slices.DeleteFunc(out, func(c string) bool { return !slices.Contains(known(), c) && !slices.Contains(add, c) }), nil
}
