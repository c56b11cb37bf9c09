package ocirun

import (
	"os"
	"strings"
	"sync"

	"github.com/wherry-engine/wherry/ocirun/wire"
)

// selinux tells whether the kernel has SELinux and it is enabled: its file
// system is registered then, and every process has a label.
var selinux = sync.OnceValue(func() bool {
	known, err := os.ReadFile("/proc/filesystems")
	if err != nil || !strings.Contains(string(known), "\tselinuxfs\n") {
		return false
	}
	label, err := os.ReadFile("/proc/thread-self/attr/current")
	return err == nil && strings.Contains(string(label), ":")
})

// appArmor tells whether the kernel has AppArmor and it is enabled.
var appArmor = sync.OnceValue(func() bool {
	b, err := os.ReadFile("/sys/module/apparmor/parameters/enabled")
	return err == nil && strings.HasPrefix(string(b), "Y")
})

// label gives a new file system the SELinux context of linux.mountLabel, as far
// as it takes one; the kernel's own label their files themselves.
func label(w *wire.Mount, context string) {
	switch w.Type {
	case "proc", "sysfs", "cgroup", "cgroup2":
		return
	}
	if w.Kind == wire.MountFS {
		w.Label = context
	}
}
