package cgroup

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Complete adds to an update what its limits depend on and it leaves as it is:
// one of quota and period is written, and told to systemd, together with the other, and
// on v2 a limit of memory and swap counts from that of memory. What is idle no
// more has the usual weight, which systemd is to know.
func (h *Host) Complete(path string, res *specs.LinuxResources) *specs.LinuxResources {
	if res == nil {
		return nil
	}
	out := *res
	if c := res.CPU; c != nil && set(c.Quota) != set(c.Period) {
		cpu := *c
		quota, period := h.bandwidth(path)
		if !set(c.Quota) {
			cpu.Quota = quota
		}
		if !set(c.Period) {
			cpu.Period = period
		}
		out.CPU = &cpu
	}
	if c := out.CPU; h.V2 && c != nil && c.Idle != nil && *c.Idle == 0 && !set(c.Shares) && readInt(h.Unified(), path, "cpu.idle") == 1 {
		cpu, shares := *c, uint64(1024)
		cpu.Shares = &shares
		out.CPU = &cpu
	}
	if m := res.Memory; h.V2 && m != nil && set(m.Swap) && !set(m.Limit) {
		if limit := readInt(h.Unified(), path, "memory.max"); limit > 0 {
			memory := *m
			memory.Limit = &limit
			out.Memory = &memory
		}
	}
	return &out
}

// set tells whether a limit is given; 0 is none.
func set[T int64 | uint64](n *T) bool { return n != nil && *n != 0 }

// bandwidth is what a cgroup may use of the processors; nil where it is unknown,
// -1 for a quota that is none.
func (h *Host) bandwidth(path string) (quota *int64, period *uint64) {
	var text string
	if h.V2 {
		b, _ := os.ReadFile(filepath.Join(h.Unified().Dir(path), "cpu.max"))
		text = string(b)
	} else if hi := h.V1("cpu"); hi != nil {
		for _, file := range []string{"cpu.cfs_quota_us", "cpu.cfs_period_us"} {
			b, _ := os.ReadFile(filepath.Join(hi.Dir(path), file))
			text += string(b)
		}
	}
	f := strings.Fields(text)
	if len(f) != 2 {
		return nil, nil
	}
	if f[0] == "max" {
		f[0] = "-1"
	}
	if n, err := strconv.ParseInt(f[0], 10, 64); err == nil {
		quota = &n
	}
	if n, err := strconv.ParseUint(f[1], 10, 64); err == nil {
		period = &n
	}
	return quota, period
}
