package ocirun

import (
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/ocirun/wire"
)

// sysctls: only those that belong to a namespace of the container.
func (r *Runtime) sysctls(p *plan, req *CreateRequest) error {
	own := func(flag int) bool {
		return p.clone&uintptr(flag) != 0 || slices.ContainsFunc(p.enter, func(n nsFD) bool { return n.flag == flag })
	}
	keys := make([]string, 0, len(req.Spec.Linux.Sysctl))
	for k := range req.Spec.Linux.Sysctl {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		dotted := strings.ReplaceAll(k, "/", ".")
		need := 0
		switch {
		case strings.HasPrefix(dotted, "net."):
			need = unix.CLONE_NEWNET
		case strings.HasPrefix(dotted, "fs.mqueue."), ipcSysctl(dotted):
			need = unix.CLONE_NEWIPC
		case dotted == "kernel.domainname":
			need = unix.CLONE_NEWUTS
		case dotted == "kernel.hostname":
			return invalidf("sysctl %q is set by the host name of the specification", k)
		case strings.HasPrefix(dotted, "user."):
			need = unix.CLONE_NEWUSER
		}
		if need == 0 || strings.Contains(k, "..") {
			return invalidf("sysctl %q is not in a separate kernel namespace", k)
		}
		if !own(need) {
			return invalidf("sysctl %q is not allowed in the host's namespace", k)
		}
		p.cfg.Sysctl = append(p.cfg.Sysctl, wire.KeyValue{Key: k, Value: req.Spec.Linux.Sysctl[k]})
	}
	return nil
}

func ipcSysctl(name string) bool {
	switch name {
	case "kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall", "kernel.shmmax",
		"kernel.shmmni", "kernel.shm_rmid_forced", "kernel.msg_next_id", "kernel.sem_next_id", "kernel.shm_next_id":
		return true
	}
	return false
}
