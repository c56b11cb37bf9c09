package command

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/wherry-engine/wherry/ocirun"
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
	for name, to := range map[string]**int64{
		"memory": &mem.Limit, "memory-reservation": &mem.Reservation, "memory-swap": &mem.Swap,
		"kernel-memory": &mem.Kernel, "kernel-memory-tcp": &mem.KernelTCP,
	} {
		size(fs, name, to)
	}
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
	l3 := fs.String("l3-cache-schema", "", "schema of the L3 cache (intelRdt)")
	mb := fs.String("mem-bw-schema", "", "schema of the memory bandwidth (intelRdt)")
	id, err := oneID(fs, args)
	if err != nil {
		return err
	}
	if weight != nil {
		if *weight < 0 || *weight > math.MaxUint16 {
			return fmt.Errorf("update: weight %d: %w", *weight, errdefs.ErrInvalidArgument)
		}
		w := uint16(*weight)
		res.BlockIO = &specs.LinuxBlockIO{Weight: &w}
	}
	res.Memory, res.CPU, res.Pids = &mem, &cpu, &pids
	if *file != "" {
		if res, err = readResources(*file); err != nil {
			return err
		}
	}
	res.Devices = nil // callers give those of the container, which stay
	rt, r, err := g.open(id)
	if err != nil {
		return err
	}
	defer rt.Close()
	if *l3+*mb != "" {
		if err := ocirun.UpdateRdt(id, r.Spec, *l3, *mb); err != nil {
			return err
		}
	}
	if r.Systemd {
		if err := rt.UpdateUnit(r.Cgroup, &res); err != nil {
			return err
		}
	}
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

// size is a number of bytes such as 64M, or -1.
func size(fs *flag.FlagSet, name string, to **int64) {
	fs.Func(name, "bytes", func(s string) error {
		n, err := parseSize(s)
		*to = &n
		return err
	})
}

// parseSize reads a number with an optional unit of 1024: k, m, g, t or p,
// followed by nothing, b or ib.
func parseSize(s string) (int64, error) {
	lower := strings.ToLower(strings.TrimSpace(s))
	number := strings.TrimRight(lower, "bikmgtp")
	unit := strings.TrimSuffix(strings.TrimSuffix(lower[len(number):], "b"), "i")
	shift := 10 * (1 + strings.Index("kmgtp", unit))
	switch {
	case unit == "":
		shift = 0
	case len(unit) > 1 || shift == 0:
		return 0, errors.New("unknown unit of size")
	}
	n, err := strconv.ParseInt(strings.TrimSpace(number), 10, 64)
	if err == nil && n<<shift>>shift != n {
		err = strconv.ErrRange
	}
	return n << shift, err
}

func unsigned(fs *flag.FlagSet, name string, to **uint64) {
	fs.Func(name, "limit", func(s string) error {
		n, err := strconv.ParseUint(s, 10, 64)
		*to = &n
		return err
	})
}
