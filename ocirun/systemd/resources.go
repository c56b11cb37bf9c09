package systemd

import (
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

const infinity = uint64(math.MaxUint64)

// Weights map numbers of the specification to systemd's, which are those of v2.
type Weights struct {
	// CPU is that of shares of processor time.
	CPU func(shares uint64) uint64
	// IO is that of a weight of block I/O.
	IO func(weight uint16) uint64
}

// Properties says resources in systemd's terms (systemd.resource-control(5)), as
// far as it has them: it writes the limits of a unit anew when its configuration
// is loaded again, and would undo those it does not know. All limits are also
// written to the cgroup by us.
func Properties(v2 bool, res *specs.LinuxResources, weights Weights) []Property {
	if res == nil {
		return nil
	}
	var out []Property
	add := func(name string, v any) { out = append(out, Property{name, v}) }
	if m := res.Memory; m != nil {
		limit := "MemoryLimit"
		if v2 {
			limit = "MemoryMax"
			if m.Reservation != nil && *m.Reservation != 0 {
				add("MemoryLow", orInfinity(*m.Reservation))
			}
			if m.Swap != nil && m.Limit != nil && *m.Swap >= *m.Limit && *m.Limit > 0 {
				add("MemorySwapMax", uint64(*m.Swap-*m.Limit))
			} else if m.Swap != nil && *m.Swap < 0 {
				add("MemorySwapMax", infinity)
			}
		}
		if m.Limit != nil && *m.Limit != 0 {
			add(limit, orInfinity(*m.Limit))
		}
	}
	if res.CPU != nil {
		out = append(out, cpu(v2, res.CPU, weights.CPU)...)
	}
	if p := res.Pids; p != nil && p.Limit != nil {
		add("TasksMax", max(1, orInfinity(*p.Limit))) // 0 is none to systemd
	}
	if b := res.BlockIO; b != nil && b.Weight != nil && *b.Weight != 0 {
		if v2 {
			add("IOWeight", weights.IO(*b.Weight))
		} else {
			add("BlockIOWeight", uint64(*b.Weight))
		}
	}
	if v2 {
		for key, value := range res.Unified {
			out = append(out, unified(key, value)...)
		}
	}
	return append(out, devices(res.Devices)...)
}

func orInfinity(n int64) uint64 {
	if n < 0 {
		return infinity
	}
	return uint64(n)
}

func cpu(v2 bool, c *specs.LinuxCPU, weight func(uint64) uint64) []Property {
	var out []Property
	switch {
	case v2 && c.Idle != nil && *c.Idle == 1:
		out = append(out, idle)
	case c.Shares != nil && *c.Shares != 0:
		if v2 {
			out = append(out, Property{"CPUWeight", weight(*c.Shares)})
		} else {
			out = append(out, Property{"CPUShares", *c.Shares})
		}
	}
	var period uint64
	if c.Period != nil {
		period = *c.Period
	}
	var quota int64
	if c.Quota != nil {
		quota = *c.Quota
	}
	out = append(out, bandwidth(quota, period)...)
	if v2 {
		for name, list := range map[string]string{"AllowedCPUs": c.Cpus, "AllowedMemoryNodes": c.Mems} {
			if bits, ok := bitmap(list); ok {
				out = append(out, Property{name, bits})
			}
		}
	}
	return out
}

// idle is a weight of 0, which systemd knows since version 252.
var idle = Property{"CPUWeight", uint64(0)}

// bandwidth is processor time; 0 is what is not given, a negative quota none.
func bandwidth(quota int64, period uint64) []Property {
	var out []Property
	if period != 0 {
		out = append(out, Property{"CPUQuotaPeriodUSec", period})
	} else {
		period = 100000
	}
	if quota < 0 {
		return append(out, Property{"CPUQuotaPerSecUSec", infinity})
	}
	if quota > 0 {
		// systemd rounds to hundredths of a second, and never up.
		const step = 10000
		out = append(out, Property{"CPUQuotaPerSecUSec", (uint64(quota)*1e6/period + step - 1) / step * step})
	}
	return out
}

// bitmap of a list such as "0-3,7".
func bitmap(list string) ([]byte, bool) {
	var out []byte
	for part := range strings.SplitSeq(list, ",") {
		from, to, isRange := strings.Cut(strings.TrimSpace(part), "-")
		if !isRange {
			to = from
		}
		lo, err := strconv.ParseUint(from, 10, 13)
		if err != nil {
			return nil, false // the kernel will say what is wrong
		}
		hi, err := strconv.ParseUint(to, 10, 13)
		if err != nil {
			return nil, false
		}
		for n := lo; n <= hi; n++ {
			for uint64(len(out)) <= n/8 {
				out = append(out, 0)
			}
			out[n/8] |= 1 << (n % 8)
		}
	}
	return out, len(out) > 0
}

// unified keys that systemd has a property for.
func unified(key, value string) []Property {
	value = strings.TrimSpace(value)
	switch key {
	case "cpu.max":
		return cpuMax(value)
	case "cpu.idle":
		if value == "1" {
			return []Property{idle}
		}
		return nil
	case "io.weight":
		value = strings.TrimPrefix(value, "default ") // one of a device is no number
	}
	name := map[string]string{
		"memory.max": "MemoryMax", "memory.high": "MemoryHigh", "memory.low": "MemoryLow", "memory.min": "MemoryMin", "memory.swap.max": "MemorySwapMax",
		"cpu.weight": "CPUWeight", "io.weight": "IOWeight", "pids.max": "TasksMax", "cpuset.cpus": "AllowedCPUs", "cpuset.mems": "AllowedMemoryNodes",
	}[key]
	if name == "" {
		return nil
	}
	if strings.HasPrefix(key, "cpuset.") {
		if bits, ok := bitmap(value); ok {
			return []Property{{name, bits}}
		}
		return nil
	}
	if value == "max" {
		return []Property{{name, infinity}}
	}
	n, err := strconv.ParseUint(value, 10, 64)
	if err != nil {
		return nil // the kernel will say what is wrong
	}
	return []Property{{name, n}}
}

// cpuMax says "QUOTA PERIOD", without a period of the usual one.
func cpuMax(value string) []Property {
	quota, periodText, hasPeriod := strings.Cut(value, " ")
	var period uint64
	if hasPeriod {
		var err error
		if period, err = strconv.ParseUint(strings.TrimSpace(periodText), 10, 64); err != nil {
			return nil
		}
	}
	if quota == "max" {
		return bandwidth(-1, period)
	}
	n, err := strconv.ParseInt(quota, 10, 64)
	if err != nil {
		return nil
	}
	return bandwidth(n, period)
}

// devices says rules that begin by denying everything and then allow some;
// others systemd cannot express, and it leaves the devices alone.
func devices(rules []specs.LinuxDeviceCgroup) []Property {
	start := -1
	for i, r := range rules {
		if !r.Allow && (r.Type == "" || r.Type == "a") && every(r.Major) && every(r.Minor) {
			start = i
		}
	}
	if start < 0 {
		return nil
	}
	allow := []Pair{}
	for _, r := range rules[start+1:] {
		if !r.Allow {
			return nil
		}
		access := r.Access
		if access == "" {
			access = "rwm"
		}
		types := []string{"char", "block"}
		switch r.Type {
		case "c":
			types = types[:1]
		case "b":
			types = types[1:]
		}
		for _, t := range types {
			for _, name := range deviceNames(t, r.Major, r.Minor) {
				allow = append(allow, Pair{name, access})
			}
		}
	}
	return []Property{{"DevicePolicy", "strict"}, {"DeviceAllow", allow}}
}

func every(n *int64) bool { return n == nil || *n < 0 }

// deviceNames as systemd takes them: a group of /proc/devices, or a link's name.
func deviceNames(typ string, major, minor *int64) []string {
	switch {
	case every(major):
		return []string{typ + "-*"} // a minor number of any major one has no name
	case every(minor):
		var out []string
		for _, group := range groups(typ, *major) {
			out = append(out, typ+"-"+group)
		}
		return out
	}
	return []string{fmt.Sprintf("/dev/%s/%d:%d", typ, *major, *minor)}
}

// groups of devices with a major number.
func groups(typ string, major int64) []string {
	b, err := os.ReadFile("/proc/devices")
	if err != nil {
		return nil
	}
	section, out := "", []string(nil)
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		switch {
		case len(f) == 2 && f[1] == "devices:":
			section = map[string]string{"Character": "char", "Block": "block"}[f[0]]
		case len(f) == 2 && section == typ && f[0] == strconv.FormatInt(major, 10):
			out = append(out, f[1])
		}
	}
	return out
}
