package stat

import (
	"math"
	"strconv"
	"strings"
)

func readV2(d dir, s *Stats) {
	cpu := d.pairs("cpu.stat")
	const micro = 1000 // nanoseconds
	s.CPU.Usage = Usage{Total: cpu["usage_usec"] * micro, User: cpu["user_usec"] * micro, Kernel: cpu["system_usec"] * micro}
	s.CPU.Throttling = Throttling{cpu["nr_periods"], cpu["nr_throttled"], cpu["throttled_usec"] * micro}
	s.CPU.PSI = pressure(d.text("cpu.pressure"))
	s.CPUSet = CPUSet{CPUs: d.list("cpuset.cpus", "cpuset.cpus.effective"), Mems: d.list("cpuset.mems", "cpuset.mems.effective")}
	memoryV2(d, &s.Memory)
	s.Pids = Pids{d.number("pids.current"), limit(d.number("pids.max"))}
	ioV2(d.text("io.stat"), &s.Blkio)
	s.Blkio.PSI = pressure(d.text("io.pressure"))
	for _, size := range d.sizes(".current") {
		p := "hugetlb." + size
		s.Hugetlb[size] = Hugetlb{Usage: d.number(p + ".current"), Failcnt: d.pairs(p + ".events")["max"]}
	}
}

func memoryV2(d dir, m *Memory) {
	m.Usage = MemoryEntry{
		Limit: d.number("memory.max"), Usage: d.number("memory.current"), Max: d.number("memory.peak"), Failcnt: d.pairs("memory.events")["max"],
	}
	m.Swap = MemoryEntry{Limit: d.number("memory.swap.max"), Usage: d.number("memory.swap.current"), Max: d.number("memory.swap.peak")}
	// In this form swap is counted together with memory.
	m.Swap.Usage += m.Usage.Usage
	if m.Swap.Limit != math.MaxUint64 {
		m.Swap.Limit += m.Usage.Limit
	}
	m.Raw = d.pairs("memory.stat")
	m.Cache = m.Raw["file"]
	m.PSI = pressure(d.text("memory.pressure"))
}

// ioV2: "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6".
func ioV2(text string, b *Blkio) {
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		major, minor, ok := device(f[0])
		if !ok {
			continue
		}
		for _, kv := range f[1:] {
			k, v, _ := strings.Cut(kv, "=")
			e := BlkioEntry{Major: major, Minor: minor, Value: parse(v)}
			to := &b.ServiceBytes
			switch k {
			case "rbytes", "rios":
				e.Op = "Read"
			case "wbytes", "wios":
				e.Op = "Write"
			case "dbytes", "dios":
				e.Op = "Discard"
			default:
				continue
			}
			if strings.HasSuffix(k, "ios") {
				to = &b.Serviced
			}
			*to = append(*to, e)
		}
	}
}

// pressure: "some avg10=0.00 avg60=0.00 avg300=0.00 total=0"; nil if the kernel
// does not measure it.
func pressure(text string) *PSI {
	if text == "" {
		return nil
	}
	var p PSI
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 5 {
			continue
		}
		to := &p.Some
		if f[0] == "full" {
			to = &p.Full
		}
		for _, kv := range f[1:] {
			k, v, _ := strings.Cut(kv, "=")
			n, _ := strconv.ParseFloat(v, 64)
			switch k {
			case "avg10":
				to.Avg10 = n
			case "avg60":
				to.Avg60 = n
			case "avg300":
				to.Avg300 = n
			case "total":
				to.Total = parse(v)
			}
		}
	}
	return &p
}
