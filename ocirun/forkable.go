package ocirun

import (
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/wherry-engine/wherry/ocirun/wire"
)

// forkable tells whether the process of an exec can be forked by an init
// outside of the container: not if its root is not that of its mount namespace,
// it is to enter another cgroup or a time namespace, which a
// program with several threads cannot, has a scheduling that a fork does not
// hand down, an affinity, which older kernels forget when it enters the cgroups,
// or a listener to hand over.
func forkable(req *ExecRequest, cfg *wire.Config) bool {
	if _, foreign := foreignMounts(req.Spec.Linux); foreign || len(req.SubCgroups) > 0 {
		return false
	}
	return !hasNamespace(req.Spec, specs.TimeNamespace) && req.Process.Scheduler == nil && req.Process.ExecCPUAffinity == nil && !cfg.Process.Notify
}

func hasNamespace(s *specs.Spec, typ specs.LinuxNamespaceType) bool {
	return slices.ContainsFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == typ })
}
