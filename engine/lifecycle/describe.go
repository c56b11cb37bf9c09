package lifecycle

import (
	"context"
	"fmt"
	"sync"

	"github.com/containerd/errdefs"
	apicontainer "github.com/moby/moby/api/types/container"

	"github.com/wherry-engine/wherry/container"
	"github.com/wherry-engine/wherry/engine/describe"
	"github.com/wherry-engine/wherry/engine/health"
	"github.com/wherry-engine/wherry/engine/netconfig"
	"github.com/wherry-engine/wherry/network"
)

// Inspect describes a container. NotFound.
func (e *Engine) Inspect(ctx context.Context, ref string, size bool) (apicontainer.InspectResponse, error) {
	u, err := e.index.find(ref)
	if err != nil {
		return apicontainer.InspectResponse{}, err
	}
	e.refreshOwned(ctx, u)
	out := e.describe(ctx, u).Inspect()
	out.ExecIDs = e.execs.Of(u.id)
	if size {
		rw, root, err := e.sizes(ctx, u)
		if err != nil {
			return out, err
		}
		out.SizeRw, out.SizeRootFs = &rw, &root
	}
	return out, nil
}

// List describes containers, newest first. InvalidArgument for a bad filter.
func (e *Engine) List(ctx context.Context, req container.ListRequest) ([]apicontainer.Summary, error) {
	f, err := describe.NewFilter(req, describe.Lookup{
		Container: e.findID,
		Image: func(ref string) (string, error) {
			img, err := e.o.Images.Resolve(ctx, ref, nil)
			return img.ID.String(), err
		},
	})
	if err != nil {
		return nil, err
	}
	out := []apicontainer.Summary{}
	for _, u := range e.index.all() {
		if u.isWatched() && u.up() {
			e.refreshOwned(ctx, u)
		}
		if f.Past(u.id) {
			break
		}
		c := e.describe(ctx, u)
		if !f.Match(c) {
			continue
		}
		s := c.Summary()
		if req.Size {
			if s.SizeRw, s.SizeRootFs, err = e.sizes(ctx, u); err != nil && !errdefs.IsNotFound(err) {
				return nil, err
			}
		}
		out = append(out, s)
		if req.Limit > 0 && len(out) == req.Limit {
			break
		}
	}
	return out, nil
}

// sizes returns the bytes of the writable layer, and those with the image's.
func (e *Engine) sizes(ctx context.Context, u *unit) (rw, root int64, err error) {
	usage, err := e.o.Layers.Usage(ctx, u.id)
	if err != nil {
		return 0, 0, fmt.Errorf("measure the writable layer: %w", err)
	}
	img, err := e.o.Images.Resolve(ctx, u.spec.Load().Image, nil)
	if err != nil {
		return usage.Bytes, usage.Bytes, nil //nolint:nilerr // the image may have been removed by force
	}
	return usage.Bytes, usage.Bytes + img.Size, nil
}

// health returns the results of the health checks, nil if there are none to make.
func (u *unit) health() *apicontainer.Health {
	if !health.Enabled(u.spec.Load().Config.Healthcheck) {
		return nil
	}
	u.mu.Lock()
	p, last := u.handle.probe, u.handle.lastHealth
	u.mu.Unlock()
	switch {
	case p != nil:
		return p.Snapshot()
	case last != nil:
		return last
	}
	h := &apicontainer.Health{Status: apicontainer.Starting, Log: []*apicontainer.HealthcheckResult{}}
	if !u.up() {
		h.Status = apicontainer.Unhealthy
		if u.status.Load().State == container.StateCreated {
			h.Status = apicontainer.Starting
		}
	}
	return h
}

// describe gathers what is known of a container now.
func (e *Engine) describe(ctx context.Context, u *unit) *describe.Container {
	s, st := u.spec.Load(), u.status.Load()
	return &describe.Container{
		Spec: s, Status: st, Health: u.health(), Dir: e.dir(u.id), AppArmor: e.defaults.Load().AppArmor,
		Sandbox: sync.OnceValue(func() *network.Sandbox {
			if !st.State.Up() || !netconfig.HasSandbox(s.HostConfig) {
				return nil
			}
			sb, err := e.o.Sandboxes.Get(ctx, network.SandboxID(s.Sandbox))
			if err != nil {
				return nil
			}
			return &sb
		}),
	}
}

func (e *Engine) findID(ref string) (container.ID, error) {
	u, err := e.index.find(ref)
	if err != nil {
		return "", err
	}
	return u.id, nil
}
