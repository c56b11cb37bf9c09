package lifecycle

import (
	"context"
	"fmt"
	"os"
	"strconv"

	"github.com/wherry-engine/wherry/container"
	"github.com/wherry-engine/wherry/engine/check"
	"github.com/wherry-engine/wherry/engine/launch"
	"github.com/wherry-engine/wherry/task"
)

// idsOf says how the root of a container is mounted: as at its start while it
// runs, or else as at its next one.
func (e *Engine) idsOf(u *unit) container.IDMap {
	if u.up() {
		return u.status.Load().IDs
	}
	return e.defaults.Load().IDsOf(u.spec.Load().HostConfig)
}

// startIDs returns the ids that a container is about to be started with, and writes
// them down: a daemon that finds it running must know them. InvalidArgument for what
// cannot be had with them.
func (e *Engine) startIDs(u *unit) (container.IDMap, error) {
	d := e.defaults.Load()
	h := u.spec.Load().HostConfig
	ids := d.IDsOf(h)
	if err := check.UserNS(h, d.Host()); err != nil {
		return ids, err
	}
	if ids.Equal(u.status.Load().IDs) {
		return ids, nil
	}
	return ids, e.setStatus(u, func(s *container.Status) { s.IDs = ids })
}

// describeRoot tells how the root of a container with the given ids is mounted.
func (e *Engine) describeRoot(ctx context.Context, id container.ID, ids container.IDMap) (task.Root, error) {
	root, err := e.o.Layers.Root(ctx, id)
	if err != nil {
		return root, fmt.Errorf("find the writable layer: %w", err)
	}
	root.UIDMappings, root.GIDMappings = ids.UIDs, ids.GIDs
	return root, nil
}

// joined is what a container takes from others, as it is found out.
type joined struct {
	launch.Joins
	userNS string // which one Owner has
}

// share has a container with a user namespace share that of another one, with
// whose other namespaces it could not do anything else. Conflict.
func (j *joined) share(other *unit, ids container.IDMap, what string) error {
	if ids.IsZero() {
		return nil // root of the host may enter any
	}
	theirs := other.status.Load()
	switch {
	case theirs.IDs.IsZero():
		return conflict("cannot join %s namespace of container %s: it is in the user namespace of the host (hint: use --userns=host for this one, too)", what, other.name())
	case !theirs.IDs.Equal(ids):
		return conflict("cannot join %s namespace of container %s: it was started when users were mapped to others; restart it first", what, other.name())
	}
	ns, err := userNSOf(theirs.Pid)
	if err != nil {
		return conflict("cannot join %s namespace of a non running container: %s", what, other.name())
	}
	if j.userNS != "" && j.userNS != ns {
		return conflict("cannot join %s namespace of container %s: another one that is joined has another user namespace", what, other.name())
	}
	j.Owner, j.userNS = string(other.id), ns
	return nil
}

// userNSOf names the user namespace of a process.
func userNSOf(pid int) (string, error) {
	return os.Readlink("/proc/" + strconv.Itoa(pid) + "/ns/user")
}
