package cgroup

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// Detect finds the hierarchies: where they usually are, or else by the mount
// table, which takes the kernel longer to write than a command may take here.
func Detect() (*Host, error) {
	if own, err := os.ReadFile("/proc/self/cgroup"); err == nil {
		if h := usual(own, "/sys/fs/cgroup", fsType); h != nil {
			return h, nil
		}
	}
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	h := parseMounts(table)
	if len(h.All) == 0 {
		return nil, fmt.Errorf("no cgroup file system is mounted: %w", errdefs.ErrUnavailable)
	}
	return h, nil
}

// fsType is the magic number of a directory's file system, 0 if there is none.
func fsType(dir string) int64 {
	var st unix.Statfs_t
	if unix.Statfs(dir, &st) != nil {
		return 0
	}
	return int64(st.Type)
}

// usual looks for the hierarchies of which own, /proc/self/cgroup, has a line
// each: the unified one at top, or those of v1 in its directories of their names
// and the unified one of a hybrid host, on which nothing depends, in "unified".
// It returns nil if a hierarchy is not there.
func usual(own []byte, top string, typ func(dir string) int64) *Host {
	h := &Host{}
	at := typ(top)
	if at == unix.CGROUP_SUPER_MAGIC {
		return nil
	}
	for line := range bytes.Lines(own) {
		f := strings.SplitN(string(line), ":", 3)
		if len(f) < 3 || f[1] == "" { // unified
			continue
		}
		mount := filepath.Join(top, strings.TrimPrefix(f[1], "name="))
		c := controllersOf(f[1])
		if len(c) == 0 || typ(mount) != unix.CGROUP_SUPER_MAGIC {
			return nil
		}
		h.All = append(h.All, Hierarchy{Mount: mount, Controllers: c})
	}
	v1 := len(h.All) > 0
	switch unified := filepath.Join(top, "unified"); {
	case at == unix.CGROUP2_SUPER_MAGIC && !v1:
		h.V2, h.All = true, []Hierarchy{{Mount: top, Unified: true}}
	case at == unix.CGROUP2_SUPER_MAGIC || !v1:
		return nil
	case typ(unified) == unix.CGROUP2_SUPER_MAGIC:
		h.All = append(h.All, Hierarchy{Mount: unified, Unified: true})
	}
	return h
}

// parseMounts takes the first mount of each hierarchy.
func parseMounts(table []byte) *Host {
	h := &Host{}
	var unified []Hierarchy
	seen := map[string]bool{}
	for line := range bytes.Lines(table) {
		f := strings.Fields(string(line))
		sep := slices.Index(f, "-")
		if sep < 6 || len(f) < sep+4 {
			continue
		}
		mount := unescape(f[4])
		switch f[sep+1] {
		case "cgroup2":
			if len(unified) == 0 {
				unified = append(unified, Hierarchy{Mount: mount, Unified: true})
			}
		case "cgroup":
			c := controllersOf(f[sep+3])
			if key := strings.Join(c, ","); key != "" && !seen[key] {
				seen[key] = true
				h.All = append(h.All, Hierarchy{Mount: mount, Controllers: c})
			}
		}
	}
	h.V2 = len(h.All) == 0 && len(unified) > 0
	h.All = append(h.All, unified...)
	return h
}

// controllersOf picks the controllers out of super-block options.
func controllersOf(options string) []string {
	var c []string
	for o := range strings.SplitSeq(options, ",") {
		switch {
		case strings.HasPrefix(o, "name="):
			c = append(c, o)
		case slices.Contains(v1Controllers, o):
			c = append(c, o)
		}
	}
	return c
}

var v1Controllers = []string{
	"cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids",
	"hugetlb", "net_cls", "net_prio", "perf_event", "rdma", "misc",
}

// unescape undoes the octal escapes of the mount table.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}
