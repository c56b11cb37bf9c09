// Package cgroup creates, limits, freezes and removes the control groups of
// containers, on the unified hierarchy (v2), on separate hierarchies (v1), and
// on hosts that have both (hybrid). It is the cgroupfs driver: it writes files
// and asks no daemon. Statistics are read by whoever wants them.
//
// A cgroup is named by its path below the mount point of every hierarchy.
package cgroup

import (
	"fmt"
	"path/filepath"
	"slices"

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
