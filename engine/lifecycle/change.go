package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/errdefs"
	apicontainer "github.com/moby/moby/api/types/container"
	apievents "github.com/moby/moby/api/types/events"

	"github.com/wherry-engine/wherry/container"
	"github.com/wherry-engine/wherry/engine/check"
	"github.com/wherry-engine/wherry/engine/describe"
	"github.com/wherry-engine/wherry/engine/launch"
	"github.com/wherry-engine/wherry/engine/naming"
	"github.com/wherry-engine/wherry/engine/netconfig"
	"github.com/wherry-engine/wherry/engine/spec"
	"github.com/wherry-engine/wherry/network"
	"github.com/wherry-engine/wherry/task"
)

// Rename gives a container another name. InvalidArgument, Conflict.
func (e *Engine) Rename(ctx context.Context, ref, name string) error {
	name = trimSlash(name)
	if name == "" {
		return invalid("Neither old nor new names may be empty")
	}
	u, err := e.index.find(ref)
	if err != nil {
		return err
	}
	if err := naming.Check(name); err != nil {
		return err
	}
	return u.owner.do(func() error {
		if u.isGone() {
			return notFound(ref)
		}
		old := u.name()
		if old == name {
			return invalid("Renaming a container with the same name as its current name")
		}
		if err := e.index.reserve(name, u.id); err != nil {
			return err
		}
		if err := e.setSpec(u, func(s *container.Spec) { s.Name = name }); err != nil {
			e.index.release(name, u.id)
			return err
		}
		e.index.release(old, u.id)
		if s := u.spec.Load(); u.up() && netconfig.HasSandbox(s.HostConfig) {
			if err := e.o.Sandboxes.Rename(ctx, network.SandboxID(s.Sandbox), name); err != nil && !errdefs.IsNotFound(err) {
				e.log.Error("rename in networks", "container", u.id, "err", err)
			}
		}
		e.emit(u, apievents.ActionRename, map[string]string{"oldName": "/" + old})
		return nil
	})
}

// Update changes limits and the restart policy. InvalidArgument, Conflict.
func (e *Engine) Update(ctx context.Context, ref string, req apicontainer.UpdateConfig) ([]string, error) {
	u, err := e.index.find(ref)
	if err != nil {
		return nil, err
	}
	ctx = context.WithoutCancel(ctx)
	return nil, u.owner.do(func() error {
		if u.isGone() {
			return notFound(ref)
		}
		e.refresh(ctx, u)
		if st := u.status.Load().State; st == container.StateRemoving || st == container.StateDead {
			return conflict("Cannot update container %s: container is marked for removal and cannot be \"update\".", u.id)
		}
		h := *u.spec.Load().HostConfig
		if req.RestartPolicy.Name != "" {
			if err := check.RestartPolicy(req.RestartPolicy, h.AutoRemove); err != nil {
				if h.AutoRemove {
					return invalid("Restart policy cannot be updated because AutoRemove is enabled for the container")
				}
				return err
			}
			h.RestartPolicy = req.RestartPolicy
		}
		if err := mergeResources(&h.Resources, &req.Resources); err != nil {
			return err
		}
		if err := check.Resources(&h.Resources, e.defaults.Load().Host().CPUs); err != nil {
			return err
		}
		if u.up() {
			err := e.updateTask(ctx, u, &h, req)
			if err != nil {
				e.refresh(ctx, u) // its end is no reason to refuse
			}
			if err != nil && u.up() && !ended(u.status.Load().Pid) {
				return fmt.Errorf("Cannot update container %s: %w", u.id, err) //nolint:revive,staticcheck // the words of the API
			}
		}
		if err := e.setSpec(u, func(s *container.Spec) { s.HostConfig = &h }); err != nil {
			return err
		}
		e.emit(u, apievents.ActionUpdate, nil)
		return nil
	})
}

func (e *Engine) updateTask(ctx context.Context, u *unit, h *apicontainer.HostConfig, req apicontainer.UpdateConfig) error {
	res, err := spec.Resources(&h.Resources)
	if err != nil {
		return err
	}
	up := task.UpdateRequest{Resources: res}
	if req.RestartPolicy.Name != "" {
		p := launch.RestartPolicy(req.RestartPolicy)
		up.Restart = &p
	}
	return e.o.Tasks.Update(ctx, string(u.id), up)
}

// mergeResources sets what an update names. InvalidArgument for what cannot change.
func mergeResources(r, up *apicontainer.Resources) error {
	switch {
	case len(up.Devices)+len(up.DeviceCgroupRules)+len(up.DeviceRequests) > 0:
		return invalid("devices cannot be updated")
	case up.CgroupParent != "" && up.CgroupParent != r.CgroupParent:
		return invalid("the cgroup parent cannot be updated")
	case len(up.Ulimits) > 0:
		return invalid("ulimits cannot be updated")
	case up.NanoCPUs > 0 && (r.CPUPeriod > 0 || r.CPUQuota > 0):
		return conflict("Conflicting options: Nano CPUs cannot be updated as CPU Period or Quota has already been set")
	case r.NanoCPUs > 0 && (up.CPUPeriod > 0 || up.CPUQuota > 0):
		return conflict("Conflicting options: CPU Period or Quota cannot be updated as NanoCPUs has already been set")
	}
	set := func(dst *int64, v int64) {
		if v != 0 {
			*dst = v
		}
	}
	if up.Memory != 0 && up.MemorySwap == 0 && r.MemorySwap > 0 && up.Memory > r.MemorySwap {
		return invalid("Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time")
	}
	set(&r.Memory, up.Memory)
	set(&r.MemorySwap, up.MemorySwap)
	set(&r.MemoryReservation, up.MemoryReservation)
	set(&r.CPUShares, up.CPUShares)
	set(&r.NanoCPUs, up.NanoCPUs)
	set(&r.CPUPeriod, up.CPUPeriod)
	set(&r.CPUQuota, up.CPUQuota)
	set(&r.CPURealtimePeriod, up.CPURealtimePeriod)
	set(&r.CPURealtimeRuntime, up.CPURealtimeRuntime)
	if up.BlkioWeight != 0 {
		r.BlkioWeight = up.BlkioWeight
	}
	if up.CpusetCpus != "" {
		r.CpusetCpus = up.CpusetCpus
	}
	if up.CpusetMems != "" {
		r.CpusetMems = up.CpusetMems
	}
	if up.PidsLimit != nil {
		limit := max(*up.PidsLimit, 0) // 0 is none
		r.PidsLimit = &limit
	}
	return nil
}

// Prune removes containers that do not run. InvalidArgument.
func (e *Engine) Prune(ctx context.Context, filters map[string][]string, until time.Time) (apicontainer.PruneReport, error) {
	var out apicontainer.PruneReport
	var errs []error
	for _, u := range e.index.all() {
		s, st := u.spec.Load(), u.status.Load()
		if st.State.Up() || st.State == container.StateRemoving || !until.IsZero() && s.Created.After(until) ||
			!describe.Labelled(s, filters) {
			continue
		}
		if ctx.Err() != nil {
			break
		}
		usage, err := e.o.Layers.Usage(ctx, u.id)
		if err != nil {
			usage.Bytes = 0
		}
		err = e.remove(context.WithoutCancel(ctx), u, container.DeleteRequest{})
		switch {
		case errdefs.IsConflict(err), errdefs.IsNotFound(err):
			continue
		case err != nil:
			errs = append(errs, err)
			continue
		}
		out.ContainersDeleted = append(out.ContainersDeleted, string(u.id))
		out.SpaceReclaimed += uint64(usage.Bytes)
	}
	e.o.Events.Publish(apievents.ContainerEventType, apievents.ActionPrune, "", map[string]string{"reclaimed": fmt.Sprint(out.SpaceReclaimed)})
	return out, errors.Join(errs...)
}
