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
		usage: "[OPTIONS] CONTAINER [CONTAINER...]", short: "Update configuration of one or more containers",
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
	f.Uint16Var(&r.BlkioWeight, "blkio-weight", 0, "Block IO (relative weight), between 10 and 1000, or 0 to disable (default 0)")
	f.Int64Var(&r.CPUPeriod, "cpu-period", 0, "Limit CPU CFS (Completely Fair Scheduler) period")
	f.Int64Var(&r.CPUQuota, "cpu-quota", 0, "Limit CPU CFS (Completely Fair Scheduler) quota")
	f.Int64Var(&r.CPURealtimePeriod, "cpu-rt-period", 0, "Limit the CPU real-time period in microseconds")
	f.Int64Var(&r.CPURealtimeRuntime, "cpu-rt-runtime", 0, "Limit the CPU real-time runtime in microseconds")
	f.Int64VarP(&r.CPUShares, "cpu-shares", "c", 0, "CPU shares (relative weight)")
	f.Var(&u.cpus, "cpus", "Number of CPUs")
	f.StringVar(&r.CpusetCpus, "cpuset-cpus", "", "CPUs in which to allow execution (0-3, 0,1)")
	f.StringVar(&r.CpusetMems, "cpuset-mems", "", "MEMs in which to allow execution (0-3, 0,1)")
	f.VarP(&u.memory, "memory", "m", "Memory limit")
	f.Var(&u.reservation, "memory-reservation", "Memory soft limit")
	f.Var(&u.swap, "memory-swap", "Swap limit equal to memory plus swap: -1 to enable unlimited swap")
	refuse(f, "kernel-memory")
	f.Int64Var(&u.pids, "pids-limit", 0, "Tune container pids limit (set -1 for unlimited)")
	f.StringVar(&u.restart, "restart", "", "Restart policy to apply when a container exits")
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
