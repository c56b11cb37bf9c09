package cli

import (
	"context"

	"github.com/moby/moby/api/types/container"
	"github.com/spf13/pflag"

	"github.com/wherry-engine/wherry/cli/opts"
	"github.com/wherry-engine/wherry/client"
)

func updateCommand() command {
	return command{
		group: "container", name: "update", top: "update",
		usage: "[OPTIONS] CONTAINER [CONTAINER...]", short: "Change the limits and restart policy of containers",
		args: minArgs(1),
		run: func(a *app, f *pflag.FlagSet) runFunc {
			u := &updater{set: f}
			u.flags(f)
			return func(ctx context.Context, args []string) error {
				req, err := u.request()
				if err != nil {
					return err
				}
				cl, err := a.client()
				if err != nil {
					return err
				}
				return a.updateAll(ctx, cl, args, req)
			}
		},
	}
}

type updater struct {
	set                       *pflag.FlagSet
	res                       container.Resources
	memory, reservation, swap opts.Bytes
	cpus                      opts.CPUs
	pids                      int64
	restart                   string
}

func (u *updater) flags(f *pflag.FlagSet) {
	r := &u.res
	u.swap.MinusOne = true
	f.Uint16Var(&r.BlkioWeight, "blkio-weight", 0, "Share of disk IO against other containers, 10 to 1000 (default 0, none set)")
	f.Int64Var(&r.CPUPeriod, "cpu-period", 0, "Length of a scheduling period, in microseconds")
	f.Int64Var(&r.CPUQuota, "cpu-quota", 0, "CPU time allowed in each period, in microseconds")
	f.Int64Var(&r.CPURealtimePeriod, "cpu-rt-period", 0, "Length of a real-time scheduling period, in microseconds")
	f.Int64Var(&r.CPURealtimeRuntime, "cpu-rt-runtime", 0, "Real-time CPU time allowed in each period, in microseconds")
	f.Int64VarP(&r.CPUShares, "cpu-shares", "c", 0, "Share of CPU time against other containers (1024 is usual)")
	f.Var(&u.cpus, "cpus", "Most CPUs' worth of time to use, such as 1.5")
	f.StringVar(&r.CpusetCpus, "cpuset-cpus", "", "CPUs that may be used, such as 0-3 or 0,1")
	f.StringVar(&r.CpusetMems, "cpuset-mems", "", "NUMA memory nodes that may be used, such as 0-3 or 0,1")
	f.VarP(&u.memory, "memory", "m", "Memory limit")
	f.Var(&u.reservation, "memory-reservation", "Memory to stay near when the host runs short")
	f.Var(&u.swap, "memory-swap", "Limit of memory and swap together; -1 for no limit")
	refuse(f, "kernel-memory")
	f.Int64Var(&u.pids, "pids-limit", 0, "Most processes and threads; -1 for no limit")
	f.StringVar(&u.restart, "restart", "", "When to start it again (no, on-failure[:N], always, unless-stopped)")
}

func (u *updater) request() (container.UpdateConfig, error) {
	var req container.UpdateConfig
	if u.set.NFlag() == 0 {
		return req, invalidf("you must provide one or more flags when using this command")
	}
	req.Resources = u.res
	req.Memory, req.MemoryReservation, req.MemorySwap = u.memory.N, u.reservation.N, u.swap.N
	req.NanoCPUs = int64(u.cpus)
	if u.set.Changed("pids-limit") {
		req.PidsLimit = &u.pids
	}
	var err error
	req.RestartPolicy, err = opts.Restart(u.restart)
	return req, err
}

func (a *app) updateAll(ctx context.Context, cl *client.Client, names []string, req container.UpdateConfig) error {
	var warnings []string
	err := a.each(names, func(name string) error {
		var r container.UpdateResponse
		err := cl.Post(ctx, containerPath(name, "update"), nil, req, &r)
		warnings = append(warnings, r.Warnings...)
		return err
	})
	a.warn(warnings)
	return err
}
