package command

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"strconv"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func update(ctx context.Context, g *globals, args []string) error {
	fs := newFlags("update")
	file := fs.String("resources", "", "file with the resources in JSON, - for stdin")
	fs.StringVar(file, "r", "", "file with the resources in JSON, - for stdin")
	var res specs.LinuxResources
	var mem specs.LinuxMemory
	var cpu specs.LinuxCPU
	var pids specs.LinuxPids
	var weight *int64
	number(fs, "memory", &mem.Limit)
	number(fs, "memory-reservation", &mem.Reservation)
	number(fs, "memory-swap", &mem.Swap)
	number(fs, "cpu-quota", &cpu.Quota)
	number(fs, "cpu-rt-runtime", &cpu.RealtimeRuntime)
	number(fs, "cpu-idle", &cpu.Idle)
	unsigned(fs, "cpu-period", &cpu.Period)
	unsigned(fs, "cpu-share", &cpu.Shares)
	unsigned(fs, "cpu-burst", &cpu.Burst)
	unsigned(fs, "cpu-rt-period", &cpu.RealtimePeriod)
	fs.StringVar(&cpu.Cpus, "cpuset-cpus", "", "processors")
	fs.StringVar(&cpu.Mems, "cpuset-mems", "", "memory nodes")
	number(fs, "pids-limit", &pids.Limit)
	number(fs, "blkio-weight", &weight)
	id, err := oneID(fs, args)
	if err != nil {
		return err
	}
	if weight != nil {
		w := uint16(*weight)
		res.BlockIO = &specs.LinuxBlockIO{Weight: &w}
	}
	res.Memory, res.CPU, res.Pids = &mem, &cpu, &pids
	if *file != "" {
		if res, err = readResources(*file); err != nil {
			return err
		}
	}
	res.Devices = nil
	rt, r, err := g.open(id)
	if err != nil {
		return err
	}
	defer rt.Close()
	return rt.Update(ctx, r.Cgroup, &res)
}

func readResources(name string) (res specs.LinuxResources, err error) {
	in := io.Reader(os.Stdin)
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return res, err
		}
		defer f.Close()
		in = f
	}
	if err := json.NewDecoder(in).Decode(&res); err != nil {
		return res, fmt.Errorf("parse resources: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	return res, nil
}

// number is an option whose absence is told from 0.
func number(fs *flag.FlagSet, name string, to **int64) {
	fs.Func(name, "limit", func(s string) error {
		n, err := strconv.ParseInt(s, 10, 64)
		*to = &n
		return err
	})
}

func unsigned(fs *flag.FlagSet, name string, to **uint64) {
	fs.Func(name, "limit", func(s string) error {
		n, err := strconv.ParseUint(s, 10, 64)
		*to = &n
		return err
	})
}
