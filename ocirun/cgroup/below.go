package cgroup

import (
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
)

// Below names a cgroup of each hierarchy, in the order of All: existing ones
// below path, chosen by v1 controller, "" for all others. Nil if nothing is
// chosen. InvalidArgument, NotFound.
func (h *Host) Below(root string, sub map[string]string) ([]string, error) {
	if len(sub) == 0 {
		return nil, nil
	}
	for c := range sub {
		if c != "" && (h.V2 || h.V1(c) == nil) {
			return nil, fmt.Errorf("cgroup controller %q is not mounted on its own: %w", c, errdefs.ErrInvalidArgument)
		}
	}
	out := make([]string, len(h.All))
	for i := range h.All {
		hi := &h.All[i]
		below := sub[""]
		for _, c := range hi.Controllers {
			if s, ok := sub[c]; ok {
				below = s
			}
		}
		if slices.Contains(strings.Split(below, "/"), "..") {
			return nil, fmt.Errorf("cgroup %q leads out of the container's: %w", below, errdefs.ErrInvalidArgument)
		}
		out[i] = path.Join(root, below)
		_, err := os.Stat(hi.Dir(out[i]))
		if err != nil && !(hi.Unified && !h.V2) {
			return nil, fmt.Errorf("cgroup %s: %w: %w", hi.Dir(out[i]), fs.ErrNotExist, errdefs.ErrNotFound)
		}
	}
	return out, nil
}
