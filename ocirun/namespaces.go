package ocirun

import (
	"fmt"
	"maps"
	"os"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/ocirun/netdev"
	"github.com/wherry-engine/wherry/ocirun/wire"
)

// namespaces sorts them into those to make and those to join.
func (r *Runtime) namespaces(p *plan, req *CreateRequest) error {
	var seen int
	join := func(flag int, f *os.File, name string) error {
		var err error
		if f == nil {
			if f, err = os.Open(name); err != nil {
				return invalidf("join namespace: %v", err)
			}
			p.opened = append(p.opened, f)
		}
		switch flag {
		case unix.CLONE_NEWNS: // the init's program is found in this one
			p.cfg.Enter = append(p.cfg.Enter, wire.Enter{FD: p.pass(int(f.Fd())), Flag: flag})
		case unix.CLONE_NEWUSER:
			p.userNS = f
		case unix.CLONE_NEWTIME:
			p.timeNS = f
		default:
			p.enter = append(p.enter, nsFD{int(f.Fd()), flag})
		}
		return nil
	}
	for _, ns := range req.Spec.Linux.Namespaces {
		flag := nsFlag(string(ns.Type))
		if flag == 0 {
			return invalidf("unknown namespace type %q", ns.Type)
		}
		if seen&flag != 0 {
			return invalidf("namespace %q is given twice", ns.Type)
		}
		seen |= flag
		f := req.Join[ns.Type]
		if ns.Type == specs.NetworkNamespace && req.NetNS != nil {
			f = req.NetNS
		}
		if f != nil || ns.Path != "" {
			if err := join(flag, f, ns.Path); err != nil {
				return err
			}
			continue
		}
		switch flag {
		case unix.CLONE_NEWTIME:
			p.newTime = true
		case unix.CLONE_NEWCGROUP: // after it is in its cgroups
			p.cfg.Unshare |= flag
		default:
			p.clone |= uintptr(flag)
		}
	}
	for typ, f := range req.Join {
		if flag := nsFlag(string(typ)); f != nil && seen&flag == 0 {
			seen |= flag
			if err := join(flag, f, ""); err != nil {
				return err
			}
		}
	}
	if req.NetNS != nil && seen&unix.CLONE_NEWNET == 0 {
		if err := join(unix.CLONE_NEWNET, req.NetNS, ""); err != nil {
			return err
		}
		seen |= unix.CLONE_NEWNET
	}
	if err := timeOffsets(p, req.Spec.Linux); err != nil {
		return err
	}
	return r.checkNamespaces(p, req, seen)
}

// timeOffsets writes them as time_namespaces(7) wants them.
func timeOffsets(p *plan, l *specs.Linux) error {
	if len(l.TimeOffsets) > 0 && !p.newTime {
		return invalidf("time offsets need a new time namespace")
	}
	clocks := slices.Sorted(maps.Keys(l.TimeOffsets))
	for _, clock := range clocks {
		if clock != "monotonic" && clock != "boottime" {
			return invalidf("there is no offset for the clock %q", clock)
		}
		o := l.TimeOffsets[clock]
		if o.Nanosecs >= 1e9 {
			return invalidf("time offset of %s: %d nanoseconds are more than a second", clock, o.Nanosecs)
		}
		p.timeOffsets += fmt.Sprintf("%s %d %d\n", clock, o.Secs, o.Nanosecs)
	}
	return nil
}

func (r *Runtime) checkNamespaces(p *plan, req *CreateRequest, seen int) error {
	l := req.Spec.Linux
	p.cfg.NewMountNS = p.clone&unix.CLONE_NEWNS != 0
	if !p.cfg.NewMountNS {
		switch {
		case req.Root != nil:
			return lackf("a root mount without a mount namespace for it")
		case l.RootfsPropagation != "":
			return invalidf("the propagation of the root needs a mount namespace of the container's own")
		}
	}
	if len(l.NetDevices) > 0 && seen&unix.CLONE_NEWNET == 0 {
		return invalidf("network devices need a network namespace")
	}
	if err := netdev.Check(l.NetDevices); err != nil {
		return err
	}
	if (req.Spec.Hostname != "" || req.Spec.Domainname != "") && seen&unix.CLONE_NEWUTS == 0 {
		return invalidf("a host name needs a uts namespace")
	}
	if p.clone&unix.CLONE_NEWUSER == 0 {
		p.cfg.UserNS = p.userNS != nil
		if len(l.UIDMappings)+len(l.GIDMappings) > 0 && p.userNS == nil {
			return invalidf("id mappings need a user namespace")
		}
		return nil
	}
	if len(l.UIDMappings) == 0 || len(l.GIDMappings) == 0 {
		return invalidf("a new user namespace needs mappings of user and group ids")
	}
	if p.timeNS != nil {
		return lackf("a new user namespace together with a time namespace that is joined")
	}
	p.cfg.UserNS = true
	p.uidMap, p.gidMap = l.UIDMappings, l.GIDMappings
	return nil
}
