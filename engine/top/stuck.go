package top

import (
	"fmt"
	"os"
	"strings"
)

// Stuck describes the processes in a cgroup that no signal reaches: they sleep
// uninterruptibly in the kernel.
func Stuck(mount, cgroup string) []string {
	pids, _ := Pids(mount, cgroup)
	var out []string
	for _, pid := range pids {
		p, err := readProcess(pid)
		if err != nil || p.state != "D" {
			continue
		}
		where := ""
		// Where in the kernel it waits, if that tells (proc_pid_wchan(5)).
		if raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/wchan", pid)); err == nil && strings.Trim(string(raw), "0") != "" {
			where = " in " + string(raw)
		}
		out = append(out, fmt.Sprintf("process %d (%q) is in uninterruptible sleep%s", pid, p.comm, where))
	}
	return out
}
