// Package stat reads what a container's control groups count, in the form in
// which callers of OCI runtimes know it from the command "events". It writes
// nothing.
package stat

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/wherry-engine/wherry/ocirun/cgroup"
)

// Stats of one cgroup. The names in JSON are runc's.
type Stats struct {
	CPU               CPU                `json:"cpu"`
	CPUSet            CPUSet             `json:"cpuset"`
	Memory            Memory             `json:"memory"`
	Pids              Pids               `json:"pids"`
	Blkio             Blkio              `json:"blkio"`
	Hugetlb           map[string]Hugetlb `json:"hugetlb"`
	IntelRdt          struct{}           `json:"intel_rdt"`
	NetworkInterfaces []struct{}         `json:"network_interfaces"`
}

// CPU time in nanoseconds.
type CPU struct {
	Usage      Usage      `json:"usage"`
	Throttling Throttling `json:"throttling"`
	PSI        *PSI       `json:"psi,omitempty"`
}

// Usage of processors, in nanoseconds; by processor on v1.
type Usage struct {
	Total        uint64   `json:"total,omitempty"`
	Percpu       []uint64 `json:"percpu,omitempty"`
	PercpuKernel []uint64 `json:"percpu_kernel,omitempty"`
	PercpuUser   []uint64 `json:"percpu_user,omitempty"`
	Kernel       uint64   `json:"kernel"`
	User         uint64   `json:"user"`
}

// Throttling by a limit of processor time; ThrottledTime in nanoseconds.
type Throttling struct {
	Periods          uint64 `json:"periods,omitempty"`
	ThrottledPeriods uint64 `json:"throttledPeriods,omitempty"`
	ThrottledTime    uint64 `json:"throttledTime,omitempty"`
}

// CPUSet is where the cgroup may run.
type CPUSet struct {
	CPUs                  []uint16 `json:"cpus,omitempty"`
	CPUExclusive          uint64   `json:"cpu_exclusive"`
	Mems                  []uint16 `json:"mems,omitempty"`
	MemHardwall           uint64   `json:"mem_hardwall"`
	MemExclusive          uint64   `json:"mem_exclusive"`
	MemoryMigrate         uint64   `json:"memory_migrate"`
	MemorySpreadPage      uint64   `json:"memory_spread_page"`
	MemorySpreadSlab      uint64   `json:"memory_spread_slab"`
	MemoryPressure        uint64   `json:"memory_pressure"`
	SchedLoadBalance      uint64   `json:"sched_load_balance"`
	SchedRelaxDomainLevel int64    `json:"sched_relax_domain_level"`
}

// Memory in bytes.
type Memory struct {
	Cache     uint64            `json:"cache,omitempty"`
	Usage     MemoryEntry       `json:"usage"`
	Swap      MemoryEntry       `json:"swap"`
	Kernel    MemoryEntry       `json:"kernel"`
	KernelTCP MemoryEntry       `json:"kernelTCP"`
	Raw       map[string]uint64 `json:"raw,omitempty"`
	PSI       *PSI              `json:"psi,omitempty"`
}

// MemoryEntry is one kind of memory; no limit is the largest number.
type MemoryEntry struct {
	Limit   uint64 `json:"limit"`
	Usage   uint64 `json:"usage,omitempty"`
	Max     uint64 `json:"max,omitempty"`
	Failcnt uint64 `json:"failcnt"`
}

// Pids counts processes; Limit 0 is none.
type Pids struct {
	Current uint64 `json:"current,omitempty"`
	Limit   uint64 `json:"limit,omitempty"`
}

// Blkio counts I/O by device.
type Blkio struct {
	ServiceBytes []BlkioEntry `json:"ioServiceBytesRecursive,omitempty"`
	Serviced     []BlkioEntry `json:"ioServicedRecursive,omitempty"`
	Queued       []BlkioEntry `json:"ioQueueRecursive,omitempty"`
	ServiceTime  []BlkioEntry `json:"ioServiceTimeRecursive,omitempty"`
	WaitTime     []BlkioEntry `json:"ioWaitTimeRecursive,omitempty"`
	Merged       []BlkioEntry `json:"ioMergedRecursive,omitempty"`
	Time         []BlkioEntry `json:"ioTimeRecursive,omitempty"`
	Sectors      []BlkioEntry `json:"sectorsRecursive,omitempty"`
	PSI          *PSI         `json:"psi,omitempty"`
}

// BlkioEntry is one operation on one device.
type BlkioEntry struct {
	Major uint64 `json:"major,omitempty"`
	Minor uint64 `json:"minor,omitempty"`
	Op    string `json:"op,omitempty"`
	Value uint64 `json:"value,omitempty"`
}

// Hugetlb is huge pages of one size, in bytes.
type Hugetlb struct {
	Usage   uint64 `json:"usage,omitempty"`
	Max     uint64 `json:"max,omitempty"`
	Failcnt uint64 `json:"failcnt"`
}

// PSI is the pressure on one resource (Documentation/accounting/psi.rst).
type PSI struct {
	Some Pressure `json:"some"`
	Full Pressure `json:"full"`
}

// Pressure in percent of the last seconds, Total in microseconds.
type Pressure struct {
	Avg10  float64 `json:"avg10"`
	Avg60  float64 `json:"avg60"`
	Avg300 float64 `json:"avg300"`
	Total  uint64  `json:"total"`
}

// Read the counters of a cgroup. What the kernel or host lacks is zero.
// NotFound.
func Read(h *cgroup.Host, path string) (*Stats, error) {
	if !h.Exists(path) {
		return nil, fmt.Errorf("cgroup %s: %w", path, errdefs.ErrNotFound)
	}
	s := &Stats{Hugetlb: map[string]Hugetlb{}}
	if h.V2 {
		readV2(dir(h.Unified().Dir(path)), s)
	} else {
		readV1(h, path, s)
	}
	return s, nil
}

// dir of one cgroup; "" if its hierarchy is not mounted.
type dir string

func (d dir) text(name string) string {
	if d == "" {
		return ""
	}
	b, err := os.ReadFile(filepath.Join(string(d), name))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// number reads one; "max" is the largest.
func (d dir) number(name string) uint64 { return parse(d.text(name)) }

func parse(s string) uint64 {
	if s == "max" {
		return math.MaxUint64
	}
	n, _ := strconv.ParseUint(s, 10, 64)
	return n
}

// pairs reads lines of a name and a number.
func (d dir) pairs(name string) map[string]uint64 {
	out := map[string]uint64{}
	for line := range strings.Lines(d.text(name)) {
		if k, v, ok := strings.Cut(strings.TrimSpace(line), " "); ok {
			out[k] = parse(v)
		}
	}
	return out
}

// list reads "0-3,7".
func (d dir) list(names ...string) []uint16 {
	var out []uint16
	for _, name := range names {
		for part := range strings.SplitSeq(d.text(name), ",") {
			from, to, isRange := strings.Cut(part, "-")
			lo, err := strconv.ParseUint(from, 10, 16)
			if err != nil {
				continue
			}
			hi := lo
			if isRange {
				if hi, err = strconv.ParseUint(to, 10, 16); err != nil {
					continue
				}
			}
			for n := lo; n <= hi; n++ {
				out = append(out, uint16(n))
			}
		}
		if len(out) > 0 {
			break
		}
	}
	return out
}

// sizes of huge pages that the cgroup counts, such as "2MB".
func (d dir) sizes(suffix string) []string {
	if d == "" {
		return nil
	}
	entries, _ := os.ReadDir(string(d))
	var out []string
	for _, e := range entries {
		if size, ok := strings.CutSuffix(strings.TrimPrefix(e.Name(), "hugetlb."), suffix); ok && strings.HasPrefix(e.Name(), "hugetlb.") && !strings.Contains(size, ".") {
			out = append(out, size)
		}
	}
	return out
}

func device(s string) (major, minor uint64, ok bool) {
	a, b, ok := strings.Cut(s, ":")
	return parse(a), parse(b), ok
}
