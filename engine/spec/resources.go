package spec

import (
	"os"
	"sync"

	"github.com/moby/moby/api/types/blkiodev"
	apicontainer "github.com/moby/moby/api/types/container"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// CgroupV1 reports whether controllers are mounted the old way, hybrid included.
var CgroupV1 = sync.OnceValue(func() bool {
	_, err := os.Stat("/sys/fs/cgroup/cgroup.controllers")
	return err != nil
})

// Resources translates the limits of the API. InvalidArgument for a device
// that is not there.
func Resources(r *apicontainer.Resources) (*specs.LinuxResources, error) {
	out := &specs.LinuxResources{Memory: memory(r), CPU: cpu(r)}
	if r.PidsLimit != nil {
		limit := *r.PidsLimit
		if limit == 0 {
			limit = -1
		}
		out.Pids = &specs.LinuxPids{Limit: &limit}
	}
	var err error
	if out.BlockIO, err = blkio(r); err != nil {
		return nil, err
	}
	return out, nil
}

func memory(r *apicontainer.Resources) *specs.LinuxMemory {
	var m specs.LinuxMemory
	used := false
	set := func(dst **int64, v int64) {
		if v != 0 {
			*dst, used = &v, true
		}
	}
	set(&m.Limit, r.Memory)
	set(&m.Reservation, r.MemoryReservation)
	set(&m.Swap, r.MemorySwap)
	if r.MemorySwappiness != nil && *r.MemorySwappiness >= 0 && CgroupV1() {
		v := uint64(*r.MemorySwappiness)
		m.Swappiness, used = &v, true
	}
	if r.OomKillDisable != nil && *r.OomKillDisable && CgroupV1() {
		m.DisableOOMKiller, used = r.OomKillDisable, true
	}
	if !used {
		return nil
	}
	return &m
}

func cpu(r *apicontainer.Resources) *specs.LinuxCPU {
	var c specs.LinuxCPU
	used := r.CpusetCpus != "" || r.CpusetMems != ""
	c.Cpus, c.Mems = r.CpusetCpus, r.CpusetMems
	if r.CPUShares != 0 {
		v := uint64(r.CPUShares)
		c.Shares, used = &v, true
	}
	if r.NanoCPUs > 0 {
		period := uint64(100000)
		quota := r.NanoCPUs * int64(period) / 1e9
		c.Period, c.Quota, used = &period, &quota, true
	}
	if r.CPUPeriod != 0 {
		v := uint64(r.CPUPeriod)
		c.Period, used = &v, true
	}
	if r.CPUQuota != 0 {
		v := r.CPUQuota
		c.Quota, used = &v, true
	}
	if r.CPURealtimePeriod != 0 {
		v := uint64(r.CPURealtimePeriod)
		c.RealtimePeriod, used = &v, true
	}
	if r.CPURealtimeRuntime != 0 {
		v := r.CPURealtimeRuntime
		c.RealtimeRuntime, used = &v, true
	}
	if !used {
		return nil
	}
	return &c
}

func blkio(r *apicontainer.Resources) (*specs.LinuxBlockIO, error) {
	var b specs.LinuxBlockIO
	used := false
	if r.BlkioWeight != 0 {
		w := r.BlkioWeight
		b.Weight, used = &w, true
	}
	for _, w := range r.BlkioWeightDevice {
		major, minor, err := device(w.Path)
		if err != nil {
			return nil, err
		}
		d := specs.LinuxWeightDevice{Weight: &w.Weight}
		d.Major, d.Minor = major, minor
		b.WeightDevice, used = append(b.WeightDevice, d), true
	}
	for _, t := range []struct {
		in  []*blkiodev.ThrottleDevice
		out *[]specs.LinuxThrottleDevice
	}{
		{r.BlkioDeviceReadBps, &b.ThrottleReadBpsDevice}, {r.BlkioDeviceWriteBps, &b.ThrottleWriteBpsDevice},
		{r.BlkioDeviceReadIOps, &b.ThrottleReadIOPSDevice}, {r.BlkioDeviceWriteIOps, &b.ThrottleWriteIOPSDevice},
	} {
		for _, in := range t.in {
			major, minor, err := device(in.Path)
			if err != nil {
				return nil, err
			}
			d := specs.LinuxThrottleDevice{Rate: in.Rate}
			d.Major, d.Minor = major, minor
			*t.out, used = append(*t.out, d), true
		}
	}
	if !used {
		return nil, nil
	}
	return &b, nil
}

func device(path string) (major, minor int64, err error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return 0, 0, invalid("blkio device %q: %v", path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFBLK { // or the numbers would be those of another device
		return 0, 0, invalid("blkio device %q is not a block device", path)
	}
	return int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev)), nil
}
