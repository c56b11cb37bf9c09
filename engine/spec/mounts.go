package spec

import (
	"fmt"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// mounts returns the default mounts, without those the user replaced, and the user's.
func mounts(in Input, sec Security) []specs.Mount {
	h := in.Container.HostConfig
	out := defaultMounts(h.Privileged, h.Privileged || sec.WritableCgroups)
	if shm, ok := shmMount(in); ok {
		out = append(out, shm)
	}
	out = slices.DeleteFunc(out, func(m specs.Mount) bool {
		return slices.ContainsFunc(in.Mounts, func(u specs.Mount) bool { return u.Destination == m.Destination })
	})
	return append(out, in.Mounts...)
}

func defaultMounts(privileged, cgroupRW bool) []specs.Mount {
	sys := []string{"nosuid", "noexec", "nodev"}
	cgroup := []string{"nosuid", "noexec", "nodev"}
	if !privileged {
		sys = append(sys, "ro")
	}
	if !cgroupRW {
		cgroup = append(cgroup, "ro")
	}
	return []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
		{
			Destination: "/dev", Type: "tmpfs", Source: "tmpfs",
			Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"},
		},
		{
			Destination: "/dev/pts", Type: "devpts", Source: "devpts",
			Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"},
		},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: sys},
		{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: cgroup},
		{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
	}
}

func shmMount(in Input) (specs.Mount, bool) {
	h := in.Container.HostConfig
	bind := func(source string) (specs.Mount, bool) {
		return specs.Mount{
			Destination: "/dev/shm", Type: "bind", Source: source,
			Options: []string{"rbind", "nosuid", "noexec", "nodev", "rprivate"},
		}, true
	}
	switch {
	case h.IpcMode.IsNone():
		return specs.Mount{}, false
	case h.IpcMode.IsHost():
		return bind("/dev/shm")
	case in.ShmSource != "":
		return bind(in.ShmSource)
	}
	size := h.ShmSize
	if size == 0 {
		size = defaultShm
	}
	return specs.Mount{
		Destination: "/dev/shm", Type: "tmpfs", Source: "shm",
		Options: []string{"nosuid", "noexec", "nodev", "mode=1777", fmt.Sprintf("size=%d", size)},
	}, true
}
