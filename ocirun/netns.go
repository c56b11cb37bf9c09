package ocirun

import (
	"fmt"
	"os"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// NewNetNS makes a network namespace that belongs to a user namespace, so that root
// there may configure it and mount its sysfs: to the one given, or to a new one with
// the mappings, which lives as long as the network namespace does (see OwnerOf).
func (r *Runtime) NewNetNS(userNS *os.File, uids, gids []specs.LinuxIDMapping) (*os.File, error) {
	b := &birth{clone: unix.CLONE_NEWNET, userNS: userNS}
	if userNS == nil {
		b.clone |= unix.CLONE_NEWUSER
		b.uidMap, b.gidMap = uids, gids
	}
	// It is born with a process; this one only waits.
	s, err := r.spawn(b)
	if err != nil {
		return nil, fmt.Errorf("make a network namespace in a user namespace: %w", err)
	}
	defer r.drop(s)
	return os.Open(fmt.Sprintf("/proc/%d/ns/net", s.pid))
}

// OwnerOf returns the user namespace that another namespace belongs to (ioctl_ns(2)).
func OwnerOf(ns *os.File) (*os.File, error) {
	fd, err := unix.IoctlRetInt(int(ns.Fd()), unix.NS_GET_USERNS)
	if err != nil {
		return nil, fmt.Errorf("find the user namespace of a namespace: %w", err)
	}
	return os.NewFile(uintptr(fd), "user"), nil
}

// HostRoot is who root of a specification's user namespace is on the host: user
// and group 0 without mappings.
func HostRoot(l *specs.Linux) (uid, gid int) {
	if l == nil {
		return 0, 0
	}
	u, _ := rootOf(l.UIDMappings)
	g, _ := rootOf(l.GIDMappings)
	return int(u), int(g)
}
