package check

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	apicontainer "github.com/moby/moby/api/types/container"

	"github.com/wherry-engine/wherry/task"
)

const minMemory = 6 << 20 // bytes

// Resources checks limits. InvalidArgument.
func Resources(r *apicontainer.Resources, cpus int) error {
	for _, f := range []func() error{
		func() error { return memory(r) },
		func() error { return cpu(r, cpus) },
		func() error { return blkio(r) },
	} {
		if err := f(); err != nil {
			return err
		}
	}
	return nil
}

func cgroupParent(parent string, systemd bool) error {
	switch {
	case strings.ContainsAny(parent, "\x00\n") || strings.Contains(parent, ".."):
		return invalid("invalid cgroup parent: %q", parent)
	case parent != "" && systemd && !task.IsSlice(parent):
		return invalid("invalid cgroup parent: %q: with the systemd cgroup driver it must be the name of a slice, such as xxx.slice", parent)
	}
	return nil
}

func memory(r *apicontainer.Resources) error {
	switch {
	case r.Memory < 0:
		return invalid("invalid memory limit: %d", r.Memory)
	case r.Memory != 0 && r.Memory < minMemory:
		return invalid("Minimum memory limit allowed is 6MB")
	case r.MemorySwap < -1:
		return invalid("invalid memoryswap limit: %d", r.MemorySwap)
	case r.Memory > 0 && r.MemorySwap > 0 && r.MemorySwap < r.Memory:
		return invalid("Minimum memoryswap limit should be larger than memory limit, see usage")
	case r.Memory == 0 && r.MemorySwap > 0:
		return invalid("You should always set the Memory limit when using Memoryswap limit, see usage")
	case r.MemorySwappiness != nil && *r.MemorySwappiness != -1 && (*r.MemorySwappiness < 0 || *r.MemorySwappiness > 100):
		return invalid("Invalid value: %v, valid memory swappiness range is 0-100", *r.MemorySwappiness)
	case r.MemoryReservation != 0 && r.MemoryReservation < minMemory:
		return invalid("Minimum memory reservation allowed is 6MB")
	case r.Memory > 0 && r.MemoryReservation > 0 && r.Memory < r.MemoryReservation:
		return invalid("Minimum memory limit can not be less than memory reservation limit, see usage")
	case r.PidsLimit != nil && *r.PidsLimit > 1<<22:
		return invalid("invalid pids limit: %d is more than the kernel allows (%d)", *r.PidsLimit, 1<<22)
	}
	return nil
}

func cpu(r *apicontainer.Resources, cpus int) error {
	switch {
	case r.NanoCPUs > 0 && r.CPUPeriod > 0:
		return invalid("Conflicting options: Nano CPUs and CPU Period cannot both be set")
	case r.NanoCPUs > 0 && r.CPUQuota > 0:
		return invalid("Conflicting options: Nano CPUs and CPU Quota cannot both be set")
	case r.NanoCPUs < 0 || r.NanoCPUs > int64(cpus)*1e9:
		return invalid("range of CPUs is from 0.01 to %d.00, as there are only %d CPUs available", cpus, cpus)
	case r.NanoCPUs > 0 && r.NanoCPUs < 1e7:
		return invalid("range of CPUs is from 0.01 to %d.00, as there are only %d CPUs available", cpus, cpus)
	case r.CPUPeriod != 0 && (r.CPUPeriod < 1000 || r.CPUPeriod > 1000000):
		return invalid("CPU cfs period cannot be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)")
	case r.CPUQuota > 0 && r.CPUQuota < 1000:
		return invalid("CPU cfs quota cannot be less than 1ms (i.e. 1000)")
	case r.CPUShares < 0:
		return invalid("invalid CPU shares: %d", r.CPUShares)
	}
	if err := set("cpus", "CPUs", r.CpusetCpus, "/sys/devices/system/cpu/online"); err != nil {
		return err
	}
	return set("mems", "memory nodes", r.CpusetMems, "/sys/devices/system/node/online")
}

// set checks a list such as 0-2,5 against the one in a file of the kernel.
func set(name, thing, list, file string) error {
	if list == "" {
		return nil
	}
	want, err := parseSet(list)
	if err != nil {
		return invalid("Invalid value %s for cpuset %s", list, name)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		text = []byte("0")
	}
	online := strings.TrimSpace(string(text))
	have, err := parseSet(online)
	if err != nil {
		return fmt.Errorf("read %s: %w", file, err)
	}
	for n := range want {
		if !have[n] {
			return invalid("Requested %s are not available - requested %s, available: %s", thing, list, online)
		}
	}
	return nil
}

func parseSet(list string) (map[int]bool, error) {
	out := map[int]bool{}
	for part := range strings.SplitSeq(list, ",") {
		lo, hi, ranged := strings.Cut(part, "-")
		a, err := strconv.Atoi(lo)
		if err != nil || a < 0 {
			return nil, fmt.Errorf("bad number %q", lo)
		}
		b := a
		if ranged {
			if b, err = strconv.Atoi(hi); err != nil || b < a || b > 8191 {
				return nil, fmt.Errorf("bad range %q", part)
			}
		}
		for ; a <= b; a++ {
			out[a] = true
		}
	}
	return out, nil
}

func blkio(r *apicontainer.Resources) error {
	if r.BlkioWeight > 0 && (r.BlkioWeight < 10 || r.BlkioWeight > 1000) {
		return invalid("Range of blkio weight is from 10 to 1000")
	}
	for _, w := range r.BlkioWeightDevice {
		if w.Weight > 0 && (w.Weight < 10 || w.Weight > 1000) {
			return invalid("Range of blkio weight is from 10 to 1000")
		}
	}
	return nil
}

// realtime says why real-time scheduling cannot be had.
func realtime() error {
	if _, err := os.Stat("/sys/fs/cgroup/cpu/cpu.rt_runtime_us"); err != nil {
		return invalid("kernel does not support CPU real-time scheduler")
	}
	return nil
}
