package soak

import (
	"bufio"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/wherry-engine/wherry/internal/testenv"
)

// process is what one process of the engine takes.
type process struct {
	rss, pss int // KiB
	fds      int
	threads  int
	mounts   int
}

// sample is what the engine takes as a whole.
type sample struct {
	procs map[string]process // by face
	// Of the machine, as far as it is this engine's.
	cgroups, links, netns int
	// Files: sizes in KiB, and how many there are in the exec root and in the data root.
	state, metadata, execRoot int
	execFiles, dataFiles      int
}

var faces = []string{"daemon", "supervisor", "keeper", "net"}

func take(d *testenv.Daemon, cgroup string) sample {
	s := sample{procs: map[string]process{}}
	spaces := map[string]bool{}
	for _, face := range faces {
		pid := d.Pid()
		if face != "daemon" {
			pid = d.Helper(face)
		}
		p := measure(pid)
		p.mounts = mounts(pid, d)
		if face == "supervisor" {
			p.fds -= 2 * standing(pid)
		}
		s.procs[face] = p
		for _, l := range links(pid) {
			if strings.HasPrefix(l, "net:") {
				spaces[l] = true
			}
		}
	}
	s.netns = len(spaces)
	s.cgroups = count("/sys/fs/cgroup", func(path string) bool { return strings.Contains(path, cgroup+"/") })
	ports, _ := os.ReadDir("/sys/class/net/" + d.Bridge + "/brif")
	s.links = len(ports)
	for _, name := range []string{"state.db", "state.journal"} {
		s.state += size(filepath.Join(d.DataRoot, name))
	}
	s.metadata = size(filepath.Join(d.DataRoot, "metadata.db"))
	s.execRoot, s.execFiles = tree(d.ExecRoot)
	for _, dir := range []string{"containers", "layers", "volumes", "tmp"} {
		_, n := tree(filepath.Join(d.DataRoot, dir))
		s.dataFiles += n
	}
	return s
}

func measure(pid int) process {
	dir := "/proc/" + strconv.Itoa(pid)
	return process{
		rss: field(dir+"/status", "VmRSS:"), threads: field(dir+"/status", "Threads:"), pss: field(dir+"/smaps_rollup", "Pss:"),
		fds: len(links(pid)),
	}
}

// standing counts the inits that stand by. How many there are depends on how much
// was started at once; of each the supervisor has a socket and a pidfd.
func standing(supervisor int) (n int) {
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", supervisor))
	for _, list := range lists {
		pids, _ := os.ReadFile(list)
		for _, pid := range strings.Fields(string(pids)) {
			if line, _ := os.ReadFile("/proc/" + pid + "/cmdline"); strings.HasPrefix(string(line), "wherry-runtime\x00init") {
				n++
			}
		}
	}
	return n
}

// mounts counts those of the engine that a process sees.
func mounts(pid int, d *testenv.Daemon) (n int) {
	all, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/mountinfo")
	for line := range strings.Lines(string(all)) {
		if strings.Contains(line, d.DataRoot) || strings.Contains(line, d.ExecRoot) {
			n++
		}
	}
	return n
}

// links are what the descriptors of a process refer to.
func links(pid int) []string {
	all, _ := filepath.Glob("/proc/" + strconv.Itoa(pid) + "/fd/*")
	out := make([]string, 0, len(all))
	for _, path := range all {
		if l, err := os.Readlink(path); err == nil {
			out = append(out, l)
		}
	}
	return out
}

// field is the number behind a name in a file of /proc.
func field(path, name string) int {
	f, err := os.Open(path)
	if err != nil {
		return 0
	}
	defer f.Close()
	for sc := bufio.NewScanner(f); sc.Scan(); {
		if rest, ok := strings.CutPrefix(sc.Text(), name); ok {
			n, _ := strconv.Atoi(strings.Fields(rest)[0])
			return n
		}
	}
	return 0
}

func size(path string) int {
	fi, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return int(fi.Size() / 1024)
}

// tree returns the size of all files below dir (KiB), and their number,
// directories included.
func tree(dir string) (kib, files int) {
	bytes := int64(0)
	_ = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil {
			return nil
		}
		files++
		if fi, err := e.Info(); err == nil && fi.Mode().IsRegular() {
			bytes += fi.Size()
		}
		return nil
	})
	return int(bytes / 1024), files
}

func count(dir string, match func(string) bool) (n int) {
	_ = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.IsDir() && match(path) {
			n++
		}
		return nil
	})
	return n
}

// row is a line of the table.
func (s sample) row(cycles int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%7d", cycles)
	for _, face := range faces {
		p := s.procs[face]
		fmt.Fprintf(&b, " | %7d %4d %3d", p.rss, p.fds, p.threads)
	}
	fmt.Fprintf(&b, " | %6d %6d %4d | %d", s.state, s.metadata, s.execRoot, s.execFiles+s.dataFiles)
	return b.String()
}

const head = "         daemon            | supervisor       | keeper           | net              | KiB\n" +
	" cycles     rss  fds thr |     rss  fds thr |     rss  fds thr |     rss  fds thr |  state   meta exec | files"
