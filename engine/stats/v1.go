package stats

import (
	"path/filepath"
	"strconv"
	"strings"

	apicontainer "github.com/moby/moby/api/types/container"
)

// readV1 reads the hierarchies of cgroup v1 (kernel: admin-guide/cgroup-v1).
func readV1(s Source, out *apicontainer.StatsResponse) error {
	at := func(controller string) *files {
		return &files{dir: filepath.Join(s.mount(), controller, s.Cgroup)}
	}
	mem := at("memory")
	if err := gone(mem.dir); err != nil {
		return err
	}
	cpu, acct, blk, pids := at("cpu"), at("cpuacct"), at("blkio"), at("pids")
	cpuV1(cpu, acct, &out.CPUStats)

	out.MemoryStats = apicontainer.MemoryStats{
		Usage: mem.number("memory.usage_in_bytes"), MaxUsage: mem.number("memory.max_usage_in_bytes"),
		Failcnt: mem.number("memory.failcnt"), Limit: mem.number("memory.limit_in_bytes"),
		Stats: mem.pairs("memory.stat"),
	}
	out.PidsStats = apicontainer.PidsStats{Current: pids.number("pids.current"), Limit: pids.number("pids.max")}
	suffix := "_recursive"
	bytesFile, countFile := "blkio.bfq.io_service_bytes"+suffix, "blkio.bfq.io_serviced"+suffix
	out.BlkioStats = apicontainer.BlkioStats{
		IoServiceBytesRecursive: blkioV1(blk.text(bytesFile)), IoServicedRecursive: blkioV1(blk.text(countFile)),
	}
	if len(out.BlkioStats.IoServiceBytesRecursive) == 0 {
		out.BlkioStats.IoServiceBytesRecursive = blkioV1(blk.text("blkio.throttle.io_service_bytes" + suffix))
		out.BlkioStats.IoServicedRecursive = blkioV1(blk.text("blkio.throttle.io_serviced" + suffix))
	}
	for _, f := range []*files{mem, cpu, acct, blk, pids} {
		if f.err != nil {
			return f.err
		}
	}
	return nil
}

func cpuV1(cpu, acct *files, out *apicontainer.CPUStats) {
	stat := acct.pairs("cpuacct.stat") // ticks
	out.CPUUsage = apicontainer.CPUUsage{
		TotalUsage:        acct.number("cpuacct.usage"),
		UsageInUsermode:   stat["user"] * uint64(tick),
		UsageInKernelmode: stat["system"] * uint64(tick),
	}
	for _, f := range strings.Fields(acct.text("cpuacct.usage_percpu")) {
		n, err := strconv.ParseUint(f, 10, 64)
		if err != nil {
			break
		}
		out.CPUUsage.PercpuUsage = append(out.CPUUsage.PercpuUsage, n)
	}
	throttle := cpu.pairs("cpu.stat")
	out.ThrottlingData = apicontainer.ThrottlingData{
		Periods: throttle["nr_periods"], ThrottledPeriods: throttle["nr_throttled"], ThrottledTime: throttle["throttled_time"],
	}
}

// blkioV1 parses "8:0 Read 4096" lines; the total of all devices is left out.
func blkioV1(text string) []apicontainer.BlkioStatEntry {
	var out []apicontainer.BlkioStatEntry
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) != 3 {
			continue
		}
		if e, ok := blkioEntry(f[0], f[1], f[2]); ok {
			out = append(out, e)
		}
	}
	return out
}

func blkioEntry(dev, op, value string) (apicontainer.BlkioStatEntry, bool) {
	major, minor, ok := strings.Cut(dev, ":")
	ma, err1 := strconv.ParseUint(major, 10, 64)
	mi, err2 := strconv.ParseUint(minor, 10, 64)
	v, err3 := strconv.ParseUint(value, 10, 64)
	return apicontainer.BlkioStatEntry{Major: ma, Minor: mi, Op: op, Value: v}, ok && err1 == nil && err2 == nil && err3 == nil
}
