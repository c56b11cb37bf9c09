// Package cgroup creates, limits, freezes and removes the control groups of
// containers, on the unified hierarchy (v2), on separate hierarchies (v1), and
// on hosts that have both (hybrid). It is the cgroupfs driver: it writes files
// and asks no daemon. Statistics are read by whoever wants them.
//
// A cgroup is named by its path below the mount point of every hierarchy.
package cgroup

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
)

// Hierarchy is one mounted hierarchy.
type Hierarchy struct {
	// Mount is its mount point.
	Mount string
	// Controllers it has, such as cpu and cpuacct; a named v1 hierarchy has
	// one entry "name=systemd". Empty for the unified one.
	Controllers []string
	// Unified marks v2.
	Unified bool
}

// Has tells whether the hierarchy carries the v1 controller.
func (h *Hierarchy) Has(controller string) bool { return slices.Contains(h.Controllers, controller) }

// Host describes the control groups of this machine.
type Host struct {
	// All hierarchies, the unified one last.
	All []Hierarchy
	// V2 is set if the controllers are on the unified hierarchy.
	V2 bool
}

// Detect reads the mount table.
func Detect() (*Host, error) {
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

// V1 returns the hierarchy of a v1 controller, or nil.
func (h *Host) V1(controller string) *Hierarchy {
	for i := range h.All {
		if h.All[i].Has(controller) {
			return &h.All[i]
		}
	}
	return nil
}

// Unified returns the v2 hierarchy, or nil.
func (h *Host) Unified() *Hierarchy {
	if n := len(h.All); n > 0 && h.All[n-1].Unified {
		return &h.All[n-1]
	}
	return nil
}

// Dir is where the cgroup is in the hierarchy.
func (h *Hierarchy) Dir(path string) string { return filepath.Join(h.Mount, path) }

// Check refuses a path that is not below the mount points.
func Check(path string) error {
	if !filepath.IsAbs(path) || filepath.Clean(path) != path || path == "/" {
		return fmt.Errorf("cgroup path %q must be absolute, clean and below the root: %w", path, errdefs.ErrInvalidArgument)
	}
	return nil
}
