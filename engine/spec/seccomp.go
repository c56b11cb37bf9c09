package spec

import (
	"os"
	"strings"
	"sync"

	"github.com/moby/profiles/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// filters caches what the built-in profile gives for a set of capabilities.
var filters sync.Map // string → *specs.LinuxSeccomp, never modified

// seccompFilter resolves a profile for the capabilities of s.
func seccompFilter(profile string, s *specs.Spec) (*specs.LinuxSeccomp, error) {
	switch profile {
	case "unconfined":
		return nil, nil
	case "", "builtin", "default":
	default:
		return seccomp.LoadProfile(profile, s)
	}
	key := strings.Join(s.Process.Capabilities.Bounding, " ")
	if f, ok := filters.Load(key); ok {
		return f.(*specs.LinuxSeccomp), nil
	}
	f, err := seccomp.GetDefaultProfile(s)
	if err != nil {
		return nil, err
	}
	filters.Store(key, f)
	return f, nil
}

// AppArmor reports whether the kernel confines by AppArmor.
var AppArmor = sync.OnceValue(func() bool {
	b, err := os.ReadFile("/sys/module/apparmor/parameters/enabled")
	return err == nil && strings.HasPrefix(string(b), "Y")
})

// SELinux reports whether the kernel confines by SELinux.
var SELinux = sync.OnceValue(func() bool {
	known, err := os.ReadFile("/proc/filesystems")
	if err != nil || !strings.Contains(string(known), "\tselinuxfs\n") {
		return false
	}
	label, err := os.ReadFile("/proc/self/attr/current")
	return err == nil && strings.Contains(string(label), ":")
})

// ExecCaps returns the capabilities of a further process in the container.
func ExecCaps(add, drop []string, privileged bool) ([]string, error) {
	return effectiveCaps(add, drop, privileged)
}
