package spec

import (
	"encoding/json"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
)

// Security is the parsed form of --security-opt.
type Security struct {
	NoNewPrivileges *bool
	// Seccomp is "" for the default, "unconfined", or a profile as JSON.
	Seccomp  string
	AppArmor string
	// Unmask empties masked and read-only paths (systempaths=unconfined).
	Unmask bool
	// WritableCgroups mounts /sys/fs/cgroup writable.
	WritableCgroups bool
	// Label is an SELinux one that is asked for, such as "type:spc_t". Containers
	// have that of the engine: there is none to disable.
	Label string
}

// ParseSecurity reads security options. InvalidArgument.
func ParseSecurity(opts []string) (Security, error) {
	var s Security
	for _, opt := range opts {
		if opt == "no-new-privileges" {
			yes := true
			s.NoNewPrivileges = &yes
			continue
		}
		if opt == "disable" {
			continue // of old clients: label=disable
		}
		key, value, ok := strings.Cut(opt, "=")
		if !ok {
			key, value, ok = strings.Cut(opt, ":")
		}
		if !ok {
			return s, invalid("invalid --security-opt 1: %q", opt)
		}
		if err := s.set(key, value); err != nil {
			return s, err
		}
	}
	return s, nil
}

func (s *Security) set(key, value string) error {
	switch key {
	case "label":
		return s.label(value)
	case "apparmor":
		s.AppArmor = value
	case "seccomp":
		if value != "unconfined" && value != "builtin" && !json.Valid([]byte(value)) {
			return invalid("decoding seccomp profile failed: %q is neither unconfined, builtin nor JSON", trim(value))
		}
		s.Seccomp = value
	case "no-new-privileges":
		on, err := strconv.ParseBool(value)
		if err != nil {
			return invalid("invalid --security-opt 2: %q", key+"="+value)
		}
		s.NoNewPrivileges = &on
	case "writable-cgroups":
		on, err := strconv.ParseBool(value)
		if err != nil {
			return invalid("invalid --security-opt 2: %q", key+"="+value)
		}
		s.WritableCgroups = on
	case "systempaths":
		if value != "unconfined" {
			return invalid("invalid --security-opt 2: %q", key+"="+value)
		}
		s.Unmask = true
	default:
		return invalid("invalid --security-opt 2: %q", key+"="+trim(value))
	}
	return nil
}

// label reads an option such as "type:spc_t" or "disable".
func (s *Security) label(value string) error {
	key, what, _ := strings.Cut(value, ":")
	switch key {
	case "disable":
		if value == key {
			return nil
		}
	case "user", "role", "type", "level", "filetype":
		if what != "" {
			s.Label = value
			return nil
		}
	}
	return invalid("bad label option %q: it is disable, or user, role, type, level or filetype with a colon and a value", trim(value))
}

// Profile is the AppArmor profile of a container: the one it names, none if it
// is privileged, else the default one. It is empty on kernels without AppArmor.
func (s *Security) Profile(byDefault string, privileged bool) string {
	switch {
	case !AppArmor():
		return ""
	case s.AppArmor != "":
		return s.AppArmor
	case privileged:
		return "unconfined"
	default:
		return byDefault
	}
}

func trim(s string) string {
	if len(s) > 60 {
		return s[:60] + "…"
	}
	return s
}

// maskedPaths and readonlyPaths hide what the kernel does not confine by
// namespace. The counters of throttled processors, where there are any, tell of
// what others compute (GHSA-6fw5-f8r9-fgfm).
func maskedPaths() []string {
	return append([]string{
		"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
		"/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/sys/devices/virtual/powercap",
		"/sys/firmware",
	}, throttles()...)
}

var throttles = sync.OnceValue(func() []string {
	paths, _ := filepath.Glob("/sys/devices/system/cpu/cpu*/thermal_throttle") // the pattern is well-formed
	return paths
})

func readonlyPaths() []string {
	return []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
}

// Paths returns the masked and read-only paths inspect shows for a new
// container: what the user set, else the defaults.
func Paths(privileged, unmask bool, masked, readonly []string) (m, r []string) {
	if privileged || unmask {
		return []string{}, []string{}
	}
	if masked == nil {
		masked = maskedPaths()
	}
	if readonly == nil {
		readonly = readonlyPaths()
	}
	return masked, readonly
}
