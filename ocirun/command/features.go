package command

import (
	"context"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	feat "github.com/opencontainers/runtime-spec/specs-go/features"

	"github.com/wherry-engine/wherry/ocirun"
)

// features tells callers what may stand in a specification.
func features(_ context.Context, _ *globals, args []string) error {
	if err := newFlags("features").Parse(args); err != nil {
		return err
	}
	yes, no := true, false
	seccompFlags := []string{
		"SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_SPEC_ALLOW", "SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
	}
	return printJSON(&feat.Features{
		OCIVersionMin: "1.0.0", OCIVersionMax: specs.Version,
		Hooks:        []string{"prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"},
		MountOptions: ocirun.MountOptions(),
		Linux: &feat.Linux{
			Namespaces:   []string{"cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"},
			Capabilities: ocirun.Capabilities(),
			Cgroup:       &feat.Cgroup{V1: &yes, V2: &yes, Systemd: &yes, SystemdUser: &no, Rdma: &yes},
			Seccomp: &feat.Seccomp{
				Enabled:        &yes,
				Actions:        []string{"SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_KILL_THREAD", "SCMP_ACT_LOG", "SCMP_ACT_NOTIFY", "SCMP_ACT_TRACE", "SCMP_ACT_TRAP"},
				Operators:      []string{"SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_LE", "SCMP_CMP_LT", "SCMP_CMP_MASKED_EQ", "SCMP_CMP_NE"},
				Archs:          []string{"SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM", "SCMP_ARCH_X32", "SCMP_ARCH_X86", "SCMP_ARCH_X86_64"},
				KnownFlags:     seccompFlags,
				SupportedFlags: seccompFlags,
			},
			Apparmor: &feat.Apparmor{Enabled: &yes},
			Selinux:  &feat.Selinux{Enabled: &yes},
			IntelRdt: &feat.IntelRdt{Enabled: &yes, Schemata: &yes, Monitoring: &yes},
			MemoryPolicy: &feat.MemoryPolicy{
				Modes: []string{"MPOL_DEFAULT", "MPOL_BIND", "MPOL_INTERLEAVE", "MPOL_WEIGHTED_INTERLEAVE", "MPOL_PREFERRED", "MPOL_PREFERRED_MANY", "MPOL_LOCAL"},
				Flags: []string{"MPOL_F_NUMA_BALANCING", "MPOL_F_RELATIVE_NODES", "MPOL_F_STATIC_NODES"},
			},
			NetDevices: &feat.NetDevices{Enabled: &yes},
			MountExtensions: &feat.MountExtensions{
				IDMap: &feat.IDMap{Enabled: &yes},
			},
		},
	})
}
