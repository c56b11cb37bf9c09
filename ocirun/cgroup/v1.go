package cgroup

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// list collects settings of one kind.
type list []setting

func (l *list) add(controller, file, value string) {
	*l = append(*l, setting{controller: controller, file: file, value: value})
}

func (l *list) late(controller, file, value string) {
	*l = append(*l, setting{controller: controller, file: file, value: value, late: true})
}

func (l *list) optional(controller, file, value string) {
	*l = append(*l, setting{controller: controller, file: file, value: value, optional: true})
}

func i64(n int64) string  { return strconv.FormatInt(n, 10) }
func u64(n uint64) string { return strconv.FormatUint(n, 10) }

func settingsV1(h *Host, path string, res *specs.LinuxResources) ([]setting, error) {
	if len(res.Unified) > 0 {
		return nil, invalid("unified resources need cgroup v2, this host has v1")
	}
	var l list
	if res.Memory != nil {
		if err := memoryV1(&l, h, path, res.Memory); err != nil {
			return nil, err
		}
	}
	cpuV1(&l, res.CPU)
	if p := res.Pids; p != nil && p.Limit != nil {
		l.late("pids", "pids.max", maxIfNone(*p.Limit))
	}
	blockV1(&l, res.BlockIO)
	for _, p := range res.HugepageLimits {
		l.add("hugetlb", "hugetlb."+p.Pagesize+".limit_in_bytes", u64(p.Limit))
		l.optional("hugetlb", "hugetlb."+p.Pagesize+".rsvd.limit_in_bytes", u64(p.Limit))
	}
	if n := res.Network; n != nil {
		if n.ClassID != nil {
			l.add("net_cls", "net_cls.classid", u64(uint64(*n.ClassID)))
		}
		for _, p := range n.Priorities {
			l.add("net_prio", "net_prio.ifpriomap", p.Name+" "+u64(uint64(p.Priority)))
		}
	}
	return l, rdma(&l, res.Rdma)
}

// maxIfNone: a limit of 0 is one, of -1 none.
func maxIfNone(n int64) string {
	if n < 0 {
		return "max"
	}
	return i64(n)
}

func memoryV1(l *list, h *Host, path string, m *specs.LinuxMemory) error {
	if m.CheckBeforeUpdate != nil && *m.CheckBeforeUpdate && m.Limit != nil {
		if used := readInt(h.V1("memory"), path, "memory.usage_in_bytes"); *m.Limit > 0 && used > *m.Limit {
			return invalid("memory limit %d is below the %d bytes in use", *m.Limit, used)
		}
	}
	limit, swap := m.Limit, m.Swap
	if limit != nil && *limit < 0 && swap == nil {
		swap = limit // nothing to be limited together with
	}
	// The kernel wants limit <= limit with swap at every moment.
	swapFirst := false
	if limit != nil && swap != nil {
		// 0: a new cgroup, without limits yet
		current := readInt(h.V1("memory"), path, "memory.limit_in_bytes")
		swapFirst = current > 0 && (*swap < 0 || (*limit >= 0 && *swap >= current))
	}
	setLimit := func() {
		if limit != nil && *limit != 0 {
			l.add("memory", "memory.limit_in_bytes", i64(*limit))
		}
	}
	if !swapFirst {
		setLimit()
	}
	if swap != nil && *swap != 0 {
		l.add("memory", "memory.memsw.limit_in_bytes", i64(*swap))
	}
	if swapFirst {
		setLimit()
	}
	if m.Reservation != nil && *m.Reservation != 0 {
		l.add("memory", "memory.soft_limit_in_bytes", i64(*m.Reservation))
	}
	if m.Kernel != nil && *m.Kernel != 0 {
		l.add("memory", "memory.kmem.limit_in_bytes", i64(*m.Kernel))
	}
	if m.UseHierarchy != nil && (*m.UseHierarchy || readInt(h.V1("memory"), path, "memory.use_hierarchy") != 0) {
		// Always so since Linux 5.11, which refuses to turn it off.
		l.add("memory", "memory.use_hierarchy", map[bool]string{false: "0", true: "1"}[*m.UseHierarchy])
	}
	if m.KernelTCP != nil && *m.KernelTCP != 0 {
		l.add("memory", "memory.kmem.tcp.limit_in_bytes", i64(*m.KernelTCP))
	}
	if m.Swappiness != nil {
		if *m.Swappiness > 100 {
			return invalid("memory swappiness %d is not between 0 and 100", *m.Swappiness)
		}
		l.add("memory", "memory.swappiness", u64(*m.Swappiness))
	}
	if m.DisableOOMKiller != nil && *m.DisableOOMKiller {
		l.add("memory", "memory.oom_control", "1")
	}
	return nil
}

func cpuV1(l *list, c *specs.LinuxCPU) {
	if c == nil {
		return
	}
	if c.Cpus != "" {
		l.add("cpuset", "cpuset.cpus", c.Cpus)
	}
	if c.Mems != "" {
		l.add("cpuset", "cpuset.mems", c.Mems)
	}
	if c.Shares != nil && *c.Shares != 0 {
		l.add("cpu", "cpu.shares", u64(*c.Shares))
	}
	if c.Period != nil && *c.Period != 0 {
		l.late("cpu", "cpu.cfs_period_us", u64(*c.Period))
	}
	if c.Quota != nil && *c.Quota != 0 {
		l.late("cpu", "cpu.cfs_quota_us", i64(*c.Quota))
	}
	if c.Burst != nil {
		l.late("cpu", "cpu.cfs_burst_us", u64(*c.Burst))
	}
	if c.RealtimePeriod != nil && *c.RealtimePeriod != 0 {
		l.late("cpu", "cpu.rt_period_us", u64(*c.RealtimePeriod))
	}
	if c.RealtimeRuntime != nil && *c.RealtimeRuntime != 0 {
		l.late("cpu", "cpu.rt_runtime_us", i64(*c.RealtimeRuntime))
	}
	if c.Idle != nil {
		l.late("cpu", "cpu.idle", i64(*c.Idle))
	}
}

func blockV1(l *list, b *specs.LinuxBlockIO) {
	if b == nil {
		return
	}
	if b.Weight != nil && *b.Weight != 0 {
		*l = append(*l, setting{controller: "blkio", file: "blkio.bfq.weight", fallback: "blkio.weight", value: u64(uint64(*b.Weight))})
	}
	if b.LeafWeight != nil && *b.LeafWeight != 0 {
		l.add("blkio", "blkio.leaf_weight", u64(uint64(*b.LeafWeight)))
	}
	for _, d := range b.WeightDevice {
		if d.Weight != nil {
			*l = append(*l, setting{controller: "blkio", file: "blkio.bfq.weight_device", fallback: "blkio.weight_device",
				value: fmt.Sprintf("%d:%d %d", d.Major, d.Minor, *d.Weight)})
		}
	}
	for _, d := range b.WeightDevice {
		if d.LeafWeight != nil {
			l.add("blkio", "blkio.leaf_weight_device", fmt.Sprintf("%d:%d %d", d.Major, d.Minor, *d.LeafWeight))
		}
	}
	throttle := func(file string, devs []specs.LinuxThrottleDevice) {
		for _, d := range devs {
			l.add("blkio", file, fmt.Sprintf("%d:%d %d", d.Major, d.Minor, d.Rate))
		}
	}
	throttle("blkio.throttle.read_bps_device", b.ThrottleReadBpsDevice)
	throttle("blkio.throttle.write_bps_device", b.ThrottleWriteBpsDevice)
	throttle("blkio.throttle.read_iops_device", b.ThrottleReadIOPSDevice)
	throttle("blkio.throttle.write_iops_device", b.ThrottleWriteIOPSDevice)
}

func rdma(l *list, devices map[string]specs.LinuxRdma) error {
	for _, dev := range slices.Sorted(maps.Keys(devices)) {
		r := devices[dev]
		if r.HcaHandles == nil && r.HcaObjects == nil {
			return invalid("rdma device %s: neither handles nor objects are limited", dev)
		}
		l.add("rdma", "rdma.max", rdmaLine(dev, r))
	}
	return nil
}

func rdmaLine(dev string, r specs.LinuxRdma) string {
	line := dev
	if r.HcaHandles != nil {
		line += " hca_handle=" + u64(uint64(*r.HcaHandles))
	}
	if r.HcaObjects != nil {
		line += " hca_object=" + u64(uint64(*r.HcaObjects))
	}
	return line
}

// readInt reads a number from a cgroup file; 0 if there is none.
func readInt(hi *Hierarchy, path, file string) int64 {
	if hi == nil {
		return 0
	}
	b, err := os.ReadFile(filepath.Join(hi.Dir(path), file))
	if err != nil {
		return 0
	}
	n, _ := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	return n
}
