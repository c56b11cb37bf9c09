package stats

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	apicontainer "github.com/moby/moby/api/types/container"
)

// Source says where a container's figures are.
type Source struct {
	// Cgroup is the path below each hierarchy's root (task.Status.Cgroup).
	Cgroup string
	// Pid of the container's init; its network namespace is read. 0: no network figures.
	Pid int
	// Mount is where the cgroup file systems are mounted; "" is /sys/fs/cgroup.
	Mount string
	// MemoryTotal of the machine in bytes, shown as the limit of a container without one.
	MemoryTotal uint64
}

func (s Source) mount() string {
	if s.Mount == "" {
		return "/sys/fs/cgroup"
	}
	return s.Mount
}

// Read takes one sample. Figures of a controller that the machine lacks stay
// zero. NotFound if the container has no cgroup any more.
func Read(s Source) (apicontainer.StatsResponse, error) {
	out := apicontainer.StatsResponse{OSType: "linux", Read: time.Now().UTC()}
	var err error
	if _, e := os.Stat(filepath.Join(s.mount(), "cgroup.controllers")); e == nil {
		err = readV2(s, &out)
	} else {
		err = readV1(s, &out)
	}
	if err != nil {
		return out, err
	}
	if out.CPUStats.SystemUsage, err = systemCPU(); err != nil {
		return out, err
	}
	if out.CPUStats.OnlineCPUs == 0 {
		out.CPUStats.OnlineCPUs = uint32(runtime.NumCPU())
	}
	if out.MemoryStats.Limit == 0 || s.MemoryTotal > 0 && out.MemoryStats.Limit > s.MemoryTotal {
		out.MemoryStats.Limit = s.MemoryTotal
	}
	if s.Pid > 0 {
		out.Networks, err = networks(fmt.Sprintf("/proc/%d/net/dev", s.Pid))
	}
	return out, err
}

// systemCPU is the CPU time of the whole machine in nanoseconds (proc_stat(5)),
// without the guest columns, which user and nice contain.
func systemCPU() (uint64, error) {
	raw, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	line, _, _ := bytes.Cut(raw, []byte("\n"))
	fields := bytes.Fields(line)
	if len(fields) < 8 {
		return 0, fmt.Errorf("/proc/stat: %q is too short", line)
	}
	var ticks uint64
	for _, f := range fields[1:8] {
		n, err := strconv.ParseUint(string(f), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("/proc/stat: %w", err)
		}
		ticks += n
	}
	return ticks * uint64(tick), nil
}

// tick is a USER_HZ tick: 100 per second on every architecture Linux has.
const tick = time.Second / 100

// networks reads net/dev of a process; the loopback is left out.
func networks(file string) (map[string]apicontainer.NetworkStats, error) {
	raw, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil // the process is gone
	}
	if err != nil {
		return nil, err
	}
	return parseNetDev(string(raw)), nil
}

func parseNetDev(text string) map[string]apicontainer.NetworkStats {
	out := map[string]apicontainer.NetworkStats{}
	for line := range strings.Lines(text) {
		name, rest, ok := strings.Cut(line, ":")
		name = strings.TrimSpace(name)
		f := strings.Fields(rest)
		if !ok || name == "lo" || len(f) < 12 {
			continue
		}
		n := func(i int) uint64 { v, _ := strconv.ParseUint(f[i], 10, 64); return v }
		out[name] = apicontainer.NetworkStats{
			RxBytes: n(0), RxPackets: n(1), RxErrors: n(2), RxDropped: n(3),
			TxBytes: n(8), TxPackets: n(9), TxErrors: n(10), TxDropped: n(11),
		}
	}
	return out
}

// files reads the figures of one cgroup directory and remembers the first error
// that matters: a missing file is a figure the kernel does not have.
type files struct {
	dir string
	err error
}

func (f *files) text(name string) string {
	raw, err := os.ReadFile(filepath.Join(f.dir, name))
	if err != nil {
		if !errors.Is(err, os.ErrNotExist) && f.err == nil {
			f.err = err
		}
		return ""
	}
	return string(raw)
}

// number reads a file of one number; "max" and absence are 0.
func (f *files) number(name string) uint64 {
	v, _ := strconv.ParseUint(strings.TrimSpace(f.text(name)), 10, 64)
	return v
}

// pairs reads a flat keyed file ("key value" lines).
func (f *files) pairs(name string) map[string]uint64 {
	out := map[string]uint64{}
	for line := range strings.Lines(f.text(name)) {
		k, v, ok := strings.Cut(strings.TrimSpace(line), " ")
		if n, err := strconv.ParseUint(v, 10, 64); ok && err == nil {
			out[k] = n
		}
	}
	return out
}

func gone(dir string) error {
	if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("cgroup %s: %w", dir, errdefs.ErrNotFound)
	}
	return nil
}
