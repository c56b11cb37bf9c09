package stat

import (
	"strconv"
	"strings"

	"github.com/wherry-engine/wherry/ocirun/cgroup"
)

const ticksPerSecond = 100 // USER_HZ

func readV1(h *cgroup.Host, path string, s *Stats) {
	of := func(controller string) dir {
		if hi := h.V1(controller); hi != nil {
			return dir(hi.Dir(path))
		}
		return ""
	}
	cpuV1(of("cpu"), of("cpuacct"), of("cpuset"), s)
	memoryV1(of("memory"), &s.Memory)
	pids := of("pids")
	s.Pids = Pids{pids.number("pids.current"), limit(pids.number("pids.max"))}
	blkioV1(of("blkio"), &s.Blkio)
	huge := of("hugetlb")
	for _, size := range huge.sizes(".usage_in_bytes") {
		p := "hugetlb." + size
		s.Hugetlb[size] = Hugetlb{huge.number(p + ".usage_in_bytes"), huge.number(p + ".max_usage_in_bytes"), huge.number(p + ".failcnt")}
	}
}

// limit of processes: none is 0 here.
func limit(n uint64) uint64 {
	if n+1 == 0 {
		return 0
	}
	return n
}

func cpuV1(cpu, acct, set dir, s *Stats) {
	u := &s.CPU.Usage
	u.Total = acct.number("cpuacct.usage")
	for f := range strings.FieldsSeq(acct.text("cpuacct.usage_percpu")) {
		u.Percpu = append(u.Percpu, parse(f))
	}
	for line := range strings.Lines(acct.text("cpuacct.usage_all")) {
		if f := strings.Fields(line); len(f) == 3 && f[0] != "cpu" {
			u.PercpuUser, u.PercpuKernel = append(u.PercpuUser, parse(f[1])), append(u.PercpuKernel, parse(f[2]))
		}
	}
	split := acct.pairs("cpuacct.stat")
	u.User, u.Kernel = split["user"]*(1e9/ticksPerSecond), split["system"]*(1e9/ticksPerSecond)
	t := cpu.pairs("cpu.stat")
	s.CPU.Throttling = Throttling{t["nr_periods"], t["nr_throttled"], t["throttled_time"]}
	s.CPUSet = CPUSet{
		CPUs: set.list("cpuset.cpus"), Mems: set.list("cpuset.mems"),
		CPUExclusive: set.number("cpuset.cpu_exclusive"), MemHardwall: set.number("cpuset.mem_hardwall"),
		MemExclusive: set.number("cpuset.mem_exclusive"), MemoryMigrate: set.number("cpuset.memory_migrate"),
		MemorySpreadPage: set.number("cpuset.memory_spread_page"), MemorySpreadSlab: set.number("cpuset.memory_spread_slab"),
		MemoryPressure: set.number("cpuset.memory_pressure"), SchedLoadBalance: set.number("cpuset.sched_load_balance"),
	}
	s.CPUSet.SchedRelaxDomainLevel, _ = strconv.ParseInt(set.text("cpuset.sched_relax_domain_level"), 10, 64)
}

func memoryV1(d dir, m *Memory) {
	entry := func(prefix string) MemoryEntry {
		return MemoryEntry{
			Limit: d.number(prefix + ".limit_in_bytes"), Usage: d.number(prefix + ".usage_in_bytes"),
			Max: d.number(prefix + ".max_usage_in_bytes"), Failcnt: d.number(prefix + ".failcnt"),
		}
	}
	m.Usage, m.Swap, m.Kernel, m.KernelTCP = entry("memory"), entry("memory.memsw"), entry("memory.kmem"), entry("memory.kmem.tcp")
	m.Raw = d.pairs("memory.stat")
	m.Cache = m.Raw["cache"]
}

func blkioV1(d dir, b *Blkio) {
	for _, f := range []struct {
		file string
		to   *[]BlkioEntry
	}{
		{"io_service_bytes", &b.ServiceBytes}, {"io_serviced", &b.Serviced}, {"io_queued", &b.Queued}, {"io_service_time", &b.ServiceTime},
		{"io_wait_time", &b.WaitTime}, {"io_merged", &b.Merged}, {"time", &b.Time}, {"sectors", &b.Sectors},
	} {
		*f.to = blkioLines(d.text("blkio.bfq." + f.file + "_recursive"))
		if len(*f.to) == 0 {
			*f.to = blkioLines(d.text("blkio." + f.file + "_recursive"))
		}
	}
	if len(b.ServiceBytes) == 0 && len(b.Serviced) == 0 {
		b.ServiceBytes = blkioLines(d.text("blkio.throttle.io_service_bytes_recursive"))
		b.Serviced = blkioLines(d.text("blkio.throttle.io_serviced_recursive"))
	}
}

// blkioLines: "8:0 Read 42", "8:0 42"; the sum at the end does not count.
func blkioLines(text string) []BlkioEntry {
	var out []BlkioEntry
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		major, minor, ok := device(f[0])
		if !ok {
			continue
		}
		e := BlkioEntry{Major: major, Minor: minor, Value: parse(f[len(f)-1])}
		if len(f) == 3 {
			e.Op = f[1]
		}
		out = append(out, e)
	}
	return out
}
