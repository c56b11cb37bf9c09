package top

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	apicontainer "github.com/moby/moby/api/types/container"
)

// Options say whose processes to list and how.
type Options struct {
	// Cgroup is the path below each hierarchy's root; Mount is where the
	// cgroup file systems are, "" is /sys/fs/cgroup.
	Cgroup, Mount string
	// Args are ps's: "-ef" (the default), "aux", or "-o COLUMN,…" / "-eo …",
	// also several of them.
	Args string
	// UserName names a uid; nil asks the host's /etc/passwd, as ps does.
	UserName func(uid int) string
}

// List returns the processes of the container. NotFound if its cgroup is gone,
// InvalidArgument for arguments that are not understood.
func List(o Options) (apicontainer.TopResponse, error) {
	cols, err := columns(o.Args)
	if err != nil {
		return apicontainer.TopResponse{}, err
	}
	pids, err := Pids(o.Mount, o.Cgroup)
	if err != nil {
		return apicontainer.TopResponse{}, err
	}
	m, err := readMachine()
	if err != nil {
		return apicontainer.TopResponse{}, err
	}
	out := apicontainer.TopResponse{Titles: make([]string, 0, len(cols)), Processes: [][]string{}}
	for _, c := range cols {
		out.Titles = append(out.Titles, c.title)
	}
	if o.UserName == nil {
		o.UserName = hostUsers()
	}
	for _, pid := range pids {
		p, err := readProcess(pid)
		if errors.Is(err, os.ErrNotExist) {
			continue // it ended meanwhile
		}
		if err != nil {
			return out, err
		}
		p.machine, p.user = m, o.UserName
		row := make([]string, 0, len(cols))
		for _, c := range cols {
			row = append(row, c.value(p))
		}
		out.Processes = append(out.Processes, row)
	}
	return out, nil
}

// hostUsers reads the machine's users once; unknown ids have no name.
func hostUsers() func(uid int) string {
	raw, _ := os.ReadFile("/etc/passwd") // without it, numbers are shown
	names := map[string]string{}
	for line := range strings.Lines(string(raw)) {
		if f := strings.Split(line, ":"); len(f) > 2 && names[f[2]] == "" {
			names[f[2]] = f[0]
		}
	}
	return func(uid int) string { return names[strconv.Itoa(uid)] }
}

// Pids lists the processes in a cgroup and the cgroups below it, sorted.
func Pids(mount, cgroup string) ([]int, error) {
	dir, err := cgroupDir(cmp.Or(mount, "/sys/fs/cgroup"), cgroup)
	if err != nil {
		return nil, err
	}
	var pids []int
	err = filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		raw, err := os.ReadFile(filepath.Join(p, "cgroup.procs"))
		if err != nil {
			return err
		}
		for f := range strings.FieldsSeq(string(raw)) {
			if n, err := strconv.Atoi(f); err == nil {
				pids = append(pids, n)
			}
		}
		return nil
	})
	slices.Sort(pids)
	return pids, err
}

// cgroupDir finds the container's cgroup in a hierarchy that has it.
func cgroupDir(mount, cgroup string) (string, error) {
	for _, h := range []string{"", "pids", "memory", "freezer", "devices"} {
		dir := filepath.Join(mount, h, cgroup)
		if _, err := os.Stat(filepath.Join(dir, "cgroup.procs")); err == nil {
			return dir, nil
		}
	}
	return "", fmt.Errorf("cgroup %s: %w", cgroup, errdefs.ErrNotFound)
}

// machine is what columns need to know of the machine.
type machine struct {
	boot   time.Time
	memory uint64 // KiB
}

func readMachine() (machine, error) {
	var m machine
	raw, err := os.ReadFile("/proc/stat")
	if err != nil {
		return m, err
	}
	for line := range strings.Lines(string(raw)) {
		if rest, ok := strings.CutPrefix(line, "btime "); ok {
			n, err := strconv.ParseInt(strings.TrimSpace(rest), 10, 64)
			if err != nil {
				return m, fmt.Errorf("/proc/stat: %w", err)
			}
			m.boot = time.Unix(n, 0)
		}
	}
	raw, err = os.ReadFile("/proc/meminfo")
	if err != nil {
		return m, err
	}
	if f := strings.Fields(string(raw)); len(f) > 1 {
		m.memory, err = strconv.ParseUint(f[1], 10, 64)
	}
	return m, err
}

// hertz is USER_HZ.
const hertz = 100

// process is one row's data.
type process struct {
	pid, ppid, pgid, sid, uid int
	tty                       int
	nice, threads             int64
	state, comm, args         string
	start, cpu                time.Duration // since boot; used
	vsz, rss                  uint64        // KiB
	machine                   machine
	user                      func(int) string
}

// readProcess reads /proc/PID (proc_pid_stat(5)).
func readProcess(pid int) (process, error) {
	dir := fmt.Sprintf("/proc/%d/", pid)
	raw, err := os.ReadFile(dir + "stat")
	if err != nil {
		return process{}, err
	}
	fi, err := os.Stat(dir)
	if err != nil {
		return process{}, err
	}
	p, err := parseStat(string(raw))
	if err != nil {
		return p, err
	}
	p.pid, p.uid = pid, ownerOf(fi)
	cmd, err := os.ReadFile(dir + "cmdline")
	if err != nil {
		return p, err
	}
	p.args = strings.TrimSpace(strings.ReplaceAll(string(cmd), "\x00", " "))
	if p.args == "" {
		p.args = "[" + p.comm + "]"
	}
	return p, nil
}

// parseStat parses the stat file; the name may contain anything.
func parseStat(s string) (process, error) {
	open, end := strings.IndexByte(s, '('), strings.LastIndexByte(s, ')')
	if open < 0 || end < open {
		return process{}, fmt.Errorf("malformed process status %q", s)
	}
	f := strings.Fields(s[end+1:])
	if len(f) < 22 {
		return process{}, fmt.Errorf("malformed process status %q", s)
	}
	n := func(i int) int64 { v, _ := strconv.ParseInt(f[i-3], 10, 64); return v } // field numbers of the manual
	ticks := func(v int64) time.Duration { return time.Duration(v) * time.Second / hertz }
	return process{
		comm: s[open+1 : end], state: f[0],
		ppid: int(n(4)), pgid: int(n(5)), sid: int(n(6)), tty: int(n(7)),
		cpu: ticks(n(14) + n(15)), nice: n(19), threads: n(20), start: ticks(n(22)),
		vsz: uint64(n(23)) >> 10, rss: uint64(n(24)) * uint64(os.Getpagesize()) >> 10,
	}, nil
}
