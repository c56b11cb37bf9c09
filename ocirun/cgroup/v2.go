package cgroup

import (
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func settingsV2(h *Host, path string, res *specs.LinuxResources) ([]setting, error) {
	var l list
	if res.Memory != nil {
		if err := memoryV2(&l, h, path, res.Memory); err != nil {
			return nil, err
		}
	}
	if err := cpuV2(&l, res.CPU); err != nil {
		return nil, err
	}
	if p := res.Pids; p != nil && p.Limit != nil {
		l.late("pids", "pids.max", maxIfNone(*p.Limit))
	}
	if err := blockV2(&l, res.BlockIO); err != nil {
		return nil, err
	}
	for _, p := range res.HugepageLimits {
		l.add("hugetlb", "hugetlb."+p.Pagesize+".max", u64(p.Limit))
		l.optional("hugetlb", "hugetlb."+p.Pagesize+".rsvd.max", u64(p.Limit))
	}
	if res.Network != nil && (res.Network.ClassID != nil || len(res.Network.Priorities) > 0) {
		return nil, invalid("network class and priority need cgroup v1, this host has v2")
	}
	if err := rdma(&l, res.Rdma); err != nil {
		return nil, err
	}
	keys := make([]string, 0, len(res.Unified))
	for k := range res.Unified {
		if err := checkKey(k); err != nil {
			return nil, err
		}
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		// The kernel takes one line at a time.
		for line := range strings.Lines(res.Unified[k]) {
			l.add("", k, strings.TrimSuffix(line, "\n"))
		}
		if res.Unified[k] == "" {
			l.add("", k, "")
		}
	}
	return l, nil
}

// limitV2 spells a v1 number for v2: negative is no limit.
func limitV2(n int64) string {
	if n < 0 {
		return "max"
	}
	return i64(n)
}

func memoryV2(l *list, h *Host, path string, m *specs.LinuxMemory) error {
	limit := int64(0)
	if m.Limit != nil {
		limit = *m.Limit
	}
	if m.CheckBeforeUpdate != nil && *m.CheckBeforeUpdate && limit > 0 {
		if used := readInt(h.Unified(), path, "memory.current"); used > limit {
			return invalid("memory limit %d is below the %d bytes in use", limit, used)
		}
	}
	if m.Swap != nil && *m.Swap != 0 {
		// Here swap is counted apart from memory; in the specification together.
		switch {
		case *m.Swap < 0:
			l.add("", "memory.swap.max", "max")
		case limit <= 0:
			return invalid("a limit of memory and swap needs a limit of memory")
		case *m.Swap < limit:
			return invalid("the limit of memory and swap (%d) is below that of memory (%d)", *m.Swap, limit)
		default:
			l.add("", "memory.swap.max", i64(*m.Swap-limit))
		}
	} else if limit < 0 {
		l.optional("", "memory.swap.max", "max")
	}
	if m.Kernel != nil && *m.Kernel > 0 || m.KernelTCP != nil && *m.KernelTCP > 0 {
		return invalid("limits of kernel memory need cgroup v1, this host has v2")
	}
	if m.UseHierarchy != nil && !*m.UseHierarchy {
		return invalid("cgroup v2, which this host has, is always hierarchical")
	}
	if m.Limit != nil && *m.Limit != 0 {
		l.add("", "memory.max", limitV2(*m.Limit))
	}
	if m.Reservation != nil && *m.Reservation != 0 {
		l.add("", "memory.low", limitV2(*m.Reservation))
	}
	if m.Swappiness != nil {
		return invalid("memory swappiness needs cgroup v1, this host has v2")
	}
	if m.DisableOOMKiller != nil && *m.DisableOOMKiller {
		return invalid("disabling the OOM killer needs cgroup v1, this host has v2")
	}
	return nil
}

func cpuV2(l *list, c *specs.LinuxCPU) error {
	if c == nil {
		return nil
	}
	if c.RealtimePeriod != nil && *c.RealtimePeriod != 0 || c.RealtimeRuntime != nil && *c.RealtimeRuntime != 0 {
		return invalid("real-time scheduling limits need cgroup v1, this host has v2")
	}
	if c.Cpus != "" {
		l.add("", "cpuset.cpus", c.Cpus)
	}
	if c.Mems != "" {
		l.add("", "cpuset.mems", c.Mems)
	}
	switch {
	case c.Idle == nil:
	case *c.Idle == 0: // before a weight, which what is idle cannot have
		l.add("", "cpu.idle", "0")
	default:
		l.late("", "cpu.idle", i64(*c.Idle))
	}
	if c.Shares != nil && *c.Shares != 0 && (c.Idle == nil || *c.Idle == 0) {
		l.add("", "cpu.weight", u64(Weight(*c.Shares)))
	}
	quota, period := "", ""
	if c.Quota != nil && *c.Quota != 0 {
		quota = limitV2(*c.Quota)
	}
	if c.Period != nil && *c.Period != 0 {
		period = u64(*c.Period)
	}
	switch {
	case quota != "" && period != "":
		l.late("", "cpu.max", quota+" "+period)
	case quota != "":
		l.late("", "cpu.max", quota)
	case period != "":
		l.late("", "cpu.max", "max "+period)
	}
	if c.Burst != nil {
		l.late("", "cpu.max.burst", u64(*c.Burst))
	}
	return nil
}

// Weight maps shares (2 … 262144, 1024 by default) to a v2 weight (1 … 10000,
// 100 by default) along the curve through those three points in the logarithms,
// as the other runtimes do since 2025.
func Weight(shares uint64) uint64 {
	shares = max(2, min(shares, 262144))
	l := math.Log2(float64(shares))
	w := math.Ceil(math.Pow(10, (l*l+125*l)/612-7.0/34))
	return uint64(max(1, min(w, 10000)))
}

func blockV2(l *list, b *specs.LinuxBlockIO) error {
	if b == nil {
		return nil
	}
	if b.LeafWeight != nil && *b.LeafWeight != 0 {
		return invalid("a leaf weight of block I/O needs cgroup v1, this host has v2")
	}
	// bfq counts to 1000, as the specification, the generic controller to 10000.
	weigh := func(prefix string, w uint16) {
		*l = append(*l, setting{
			needs: "the scheduler bfq or io.cost", file: "io.bfq.weight", value: prefix + u64(uint64(w)), fallback: "io.weight", fallbackValue: prefix + u64(ioWeight(w)),
		})
	}
	if b.Weight != nil && *b.Weight != 0 {
		weigh("", *b.Weight)
	}
	for _, d := range b.WeightDevice {
		if d.LeafWeight != nil && *d.LeafWeight != 0 {
			return invalid("a leaf weight of block I/O needs cgroup v1, this host has v2")
		}
		if d.Weight != nil {
			weigh(fmt.Sprintf("%d:%d ", d.Major, d.Minor), *d.Weight)
		}
	}
	throttle := func(key string, devs []specs.LinuxThrottleDevice) {
		for _, d := range devs {
			l.add("", "io.max", fmt.Sprintf("%d:%d %s=%d", d.Major, d.Minor, key, d.Rate))
		}
	}
	throttle("rbps", b.ThrottleReadBpsDevice)
	throttle("wbps", b.ThrottleWriteBpsDevice)
	throttle("riops", b.ThrottleReadIOPSDevice)
	throttle("wiops", b.ThrottleWriteIOPSDevice)
	return nil
}

// ioWeight maps 10 … 1000 to 1 … 10000, in a straight line as the other
// runtimes do.
func ioWeight(w uint16) uint64 {
	if w <= 10 {
		return 1
	}
	return min(10000, 1+(uint64(w)-10)*9999/990)
}

// UnitWeight is the weight of a unit that systemd writes to io.bfq.weight, if that
// is there, or else to io.weight, as Limits would. It maps its 100 … 10000 to
// 100 … 1000 for bfq, and what is below to itself.
func (h *Host) UnitWeight(w uint16) uint64 {
	if bfq, _ := filepath.Glob(h.Unified().Dir("*/io.bfq.weight")); len(bfq) == 0 {
		return ioWeight(w)
	}
	if w <= 100 {
		return uint64(w)
	}
	return min(10000, 100+(uint64(w)-100)*11)
}
