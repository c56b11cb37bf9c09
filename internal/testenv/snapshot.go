package testenv

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Snapshot is what containers use up on a machine. Two of them are comparable
// only while nothing else makes or removes such things.
type Snapshot struct {
	Mounts, Links, Tables, Cgroups, Namespaces []string
}

// TakeSnapshot looks at the machine now.
func TakeSnapshot() Snapshot {
	return Snapshot{Mounts: mounts(), Links: links(), Tables: tables(), Cgroups: cgroups(), Namespaces: namespaces()}
}

// Since lists what is there now and was not in the earlier snapshot.
func (s Snapshot) Since(before Snapshot) []string {
	var out []string
	for _, kind := range []struct {
		name     string
		now, was []string
	}{
		{"mount", s.Mounts, before.Mounts},
		{"link", s.Links, before.Links},
		{"nft table", s.Tables, before.Tables},
		{"cgroup", s.Cgroups, before.Cgroups},
		{"network namespace", s.Namespaces, before.Namespaces},
	} {
		for _, item := range kind.now {
			if !slices.Contains(kind.was, item) {
				out = append(out, kind.name+" "+item)
			}
		}
	}
	return out
}

// CheckSince waits a little for what may lag behind, then reports what is
// there that was not before.
func CheckSince(before Snapshot, ignore func(string) bool) error {
	var left []string
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		left = slices.DeleteFunc(TakeSnapshot().Since(before), func(s string) bool { return ignore != nil && ignore(s) })
		if len(left) == 0 {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("left on the machine:\n\t%s", strings.Join(left, "\n\t"))
		}
	}
}

func mounts() []string {
	data, _ := os.ReadFile("/proc/self/mountinfo")
	var out []string
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) > 4 {
			out = append(out, f[4])
		}
	}
	return out
}

func links() []string {
	entries, _ := os.ReadDir("/sys/class/net")
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

func tables() []string {
	out, err := exec.Command("nft", "list", "tables").Output()
	if err != nil {
		return nil
	}
	var lines []string
	for line := range strings.Lines(string(out)) {
		lines = append(lines, strings.TrimSpace(line))
	}
	return lines
}

func cgroups() []string {
	var out []string
	_ = filepath.WalkDir("/sys/fs/cgroup", func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.IsDir() {
			out = append(out, path)
		}
		return nil
	})
	return out
}

// namespaces finds network namespaces by the processes in them and by the
// descriptors that processes hold of them.
func namespaces() []string {
	seen := map[string]bool{}
	add := func(path string) {
		if link, err := os.Readlink(path); err == nil && strings.HasPrefix(link, "net:") {
			seen[link] = true
		}
	}
	procs, _ := filepath.Glob("/proc/[0-9]*")
	for _, p := range procs {
		add(p + "/ns/net")
		fds, _ := os.ReadDir(p + "/fd")
		for _, fd := range fds {
			add(p + "/fd/" + fd.Name())
		}
	}
	var out []string
	for ns := range seen {
		out = append(out, ns)
	}
	sort.Strings(out)
	return out
}

// EngineRuns tells whether any engine runs on this machine, whose comings and
// goings would show in a snapshot.
func EngineRuns() bool {
	comms, _ := filepath.Glob("/proc/[0-9]*/comm")
	for _, path := range comms {
		name, _ := os.ReadFile(path)
		if slices.Contains([]string{"wherryd", "wherry-runtime", "dockerd", "containerd"}, strings.TrimSpace(string(name))) {
			return true
		}
	}
	return false
}

// Helpers are the pids whose command line names the daemon's exec root.
func (d *Daemon) Helpers() []int {
	var out []int
	procs, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, p := range procs {
		data, err := os.ReadFile(p)
		if err != nil {
			continue
		}
		args := strings.Split(string(bytes.TrimRight(data, "\x00")), "\x00")
		if slices.Contains(args, d.ExecRoot) || slices.Contains(args, "--exec-root="+d.ExecRoot) {
			var pid int
			if _, err := fmt.Sscanf(p, "/proc/%d/cmdline", &pid); err == nil && pid != d.Pid() {
				out = append(out, pid)
			}
		}
	}
	return out
}

// Helper is the pid of one helper by its face ("supervisor", "keeper", "net"), or 0.
func (d *Daemon) Helper(face string) int {
	for _, pid := range d.Helpers() {
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err == nil && slices.Contains(strings.Split(string(data), "\x00"), face) {
			return pid
		}
	}
	return 0
}

// mine lists what is on the machine that can only be this daemon's.
func (d *Daemon) mine() []string {
	var out []string
	for _, m := range mounts() {
		if strings.HasPrefix(m, d.ExecRoot+"/") || strings.HasPrefix(m, d.DataRoot+"/") {
			out = append(out, "mount "+m)
		}
	}
	for _, pid := range d.Helpers() {
		data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		out = append(out, fmt.Sprintf("process %d %s", pid, bytes.ReplaceAll(data, []byte{0}, []byte{' '})))
	}
	if slices.Contains(links(), d.Bridge) {
		out = append(out, "link "+d.Bridge)
	}
	for _, table := range tables() {
		if strings.Contains(table, d.Bridge) {
			out = append(out, "nft "+table)
		}
	}
	if entries, err := os.ReadDir(d.ExecRoot); err == nil {
		for _, e := range entries {
			out = append(out, "file "+filepath.Join(d.ExecRoot, e.Name()))
		}
	}
	return out
}

// checkGone reports what a stopped daemon without containers left behind, and
// ends its helpers if there are any, so that one failure does not cause others.
func (d *Daemon) checkGone() error {
	var left []string
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if left = d.mine(); len(left) == 0 {
			return nil
		}
		if time.Now().After(end) {
			break
		}
	}
	errs := []error{fmt.Errorf("the daemon stopped and left:\n\t%s", strings.Join(left, "\n\t"))}
	for _, pid := range d.Helpers() {
		errs = append(errs, unix.Kill(pid, unix.SIGKILL))
	}
	for _, m := range mounts() {
		if strings.HasPrefix(m, d.ExecRoot+"/") || strings.HasPrefix(m, d.DataRoot+"/") {
			errs = append(errs, unix.Unmount(m, unix.MNT_DETACH))
		}
	}
	if slices.Contains(links(), d.Bridge) {
		errs = append(errs, exec.Command("ip", "link", "del", d.Bridge).Run())
	}
	return errors.Join(errs...)
}
