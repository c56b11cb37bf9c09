package stats

import (
	"path/filepath"
	"strings"
	"time"

	apicontainer "github.com/moby/moby/api/types/container"
)

// readV2 reads the unified hierarchy (kernel: admin-guide/cgroup-v2).
func readV2(s Source, out *apicontainer.StatsResponse) error {
	g := &files{dir: filepath.Join(s.mount(), s.Cgroup)}
	if err := gone(g.dir); err != nil {
		return err
	}
	cpu := g.pairs("cpu.stat") // microseconds
	micro := uint64(time.Microsecond)
	out.CPUStats.CPUUsage = apicontainer.CPUUsage{
		TotalUsage: cpu["usage_usec"] * micro, UsageInUsermode: cpu["user_usec"] * micro, UsageInKernelmode: cpu["system_usec"] * micro,
	}
	out.CPUStats.ThrottlingData = apicontainer.ThrottlingData{
		Periods: cpu["nr_periods"], ThrottledPeriods: cpu["nr_throttled"], ThrottledTime: cpu["throttled_usec"] * micro,
	}
	out.MemoryStats = apicontainer.MemoryStats{
		Usage: g.number("memory.current"), Limit: g.number("memory.max"), Stats: g.pairs("memory.stat"),
		Failcnt: g.pairs("memory.events")["oom"],
	}
	out.PidsStats = apicontainer.PidsStats{Current: g.number("pids.current"), Limit: g.number("pids.max")}
	out.BlkioStats = blkioV2(g.text("io.stat"))
	return g.err
}

// blkioV2 parses "8:0 rbytes=1 wbytes=2 rios=3 wios=4 …" lines.
func blkioV2(text string) apicontainer.BlkioStats {
	var out apicontainer.BlkioStats
	for line := range strings.Lines(text) {
		dev, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		for kv := range strings.FieldsSeq(rest) {
			k, v, _ := strings.Cut(kv, "=")
			var op string
			list := &out.IoServiceBytesRecursive
			switch k {
			case "rbytes":
				op = "read"
			case "wbytes":
				op = "write"
			case "rios":
				op, list = "read", &out.IoServicedRecursive
			case "wios":
				op, list = "write", &out.IoServicedRecursive
			default:
				continue
			}
			if e, ok := blkioEntry(dev, op, v); ok {
				*list = append(*list, e)
			}
		}
	}
	return out
}
