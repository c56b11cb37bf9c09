// Package sysinfo tells what info and version show: facts about the machine,
// read once, and about the engine, asked for each time.
package sysinfo

import (
	"bufio"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Host is what does not change while the daemon runs.
type Host struct {
	Kernel, OS, OSVersion, Arch, Name string
	CPUs                              int
	Memory                            int64 // bytes
	Cgroup                            Cgroup
}

// Cgroup says what the machine's cgroups can do.
type Cgroup struct {
	Version                                           string // "1" or "2"
	Memory, Swap, OOMKill, Shares, Period, Quota, Set bool
	Pids, Blkio                                       bool
}

// ReadHost looks at the machine.
func ReadHost() Host {
	h := Host{CPUs: runtime.NumCPU(), Cgroup: readCgroup("/sys/fs/cgroup")}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		h.Kernel, h.Arch, h.Name = unix.ByteSliceToString(u.Release[:]), unix.ByteSliceToString(u.Machine[:]), unix.ByteSliceToString(u.Nodename[:])
	}
	var cpus unix.CPUSet
	if unix.SchedGetaffinity(0, &cpus) == nil && cpus.Count() > 0 {
		h.CPUs = cpus.Count()
	}
	var si unix.Sysinfo_t
	if unix.Sysinfo(&si) == nil {
		h.Memory = int64(si.Totalram) * int64(max(si.Unit, 1)) //nolint:unconvert // differs by architecture
	}
	h.OS, h.OSVersion = readRelease("/etc/os-release", "/usr/lib/os-release")
	return h
}

func readRelease(paths ...string) (name, version string) {
	for _, p := range paths {
		f, err := os.Open(p)
		if err != nil {
			continue
		}
		vars := map[string]string{}
		for sc := bufio.NewScanner(f); sc.Scan(); {
			k, v, _ := strings.Cut(sc.Text(), "=")
			vars[k] = strings.Trim(v, `"'`)
		}
		_ = f.Close() // only read
		name = vars["PRETTY_NAME"]
		if name == "" {
			name = "Linux"
		}
		return name, vars["VERSION_ID"]
	}
	return "Linux", ""
}

func readCgroup(root string) Cgroup {
	var st unix.Statfs_t
	if unix.Statfs(root, &st) == nil && st.Type == unix.CGROUP2_SUPER_MAGIC {
		return readUnified(root)
	}
	has := func(parts ...string) bool {
		_, err := os.Stat(filepath.Join(append([]string{root}, parts...)...))
		return err == nil
	}
	return Cgroup{
		Version: "1",
		Memory:  has("memory", "memory.limit_in_bytes"),
		Swap:    has("memory", "memory.memsw.limit_in_bytes"),
		OOMKill: has("memory", "memory.oom_control"),
		Shares:  has("cpu", "cpu.shares"),
		Period:  has("cpu", "cpu.cfs_period_us"),
		Quota:   has("cpu", "cpu.cfs_quota_us"),
		Set:     has("cpuset", "cpuset.cpus"),
		Pids:    has("pids"),
		Blkio:   has("blkio", "blkio.throttle.read_bps_device"),
	}
}

func readUnified(root string) Cgroup {
	data, err := os.ReadFile(filepath.Join(root, "cgroup.controllers"))
	if err != nil {
		return Cgroup{Version: "2"}
	}
	have := strings.Fields(string(data))
	has := func(name string) bool { return slices.Contains(have, name) }
	return Cgroup{
		Version: "2", Memory: has("memory"), Swap: has("memory") && swapAccounting(root),
		Shares: has("cpu"), Period: has("cpu"), Quota: has("cpu"), Set: has("cpuset"), Pids: has("pids"), Blkio: has("io"),
	}
}

// swapAccounting looks into our own group: the root group has no limits.
func swapAccounting(root string) bool {
	data, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return false
	}
	for line := range strings.SplitSeq(string(data), "\n") {
		if path, ok := strings.CutPrefix(line, "0::"); ok && path != "/" {
			_, err := os.Stat(filepath.Join(root, path, "memory.swap.max"))
			return err == nil
		}
	}
	return true // we are in the root group; kernels since 5.8 account by default
}

// forwarding reads the kernel's switch for IPv4.
func forwarding() bool {
	data, err := os.ReadFile("/proc/sys/net/ipv4/ip_forward")
	return err == nil && strings.TrimSpace(string(data)) == "1"
}

// openFiles counts our descriptors.
func openFiles() int {
	d, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return -1
	}
	return len(d)
}

// systemTimeLayout is what clients parse.
const systemTimeLayout = "2006-01-02T15:04:05.999999999Z07:00"

func formatBool(b bool) string { return strconv.FormatBool(b) }
