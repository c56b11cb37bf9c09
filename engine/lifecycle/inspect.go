package lifecycle

import (
	"cmp"
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	apicontainer "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	apinetwork "github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/storage"

	"github.com/wherry-engine/wherry/container"
	"github.com/wherry-engine/wherry/engine/health"
	"github.com/wherry-engine/wherry/engine/netconfig"
	"github.com/wherry-engine/wherry/engine/spec"
	"github.com/wherry-engine/wherry/network"
)

// Inspect describes a container. NotFound.
func (e *Engine) Inspect(ctx context.Context, ref string, size bool) (apicontainer.InspectResponse, error) {
	u, err := e.index.find(ref)
	if err != nil {
		return apicontainer.InspectResponse{}, err
	}
	e.refreshOwned(ctx, u)
	s := u.spec.Load()
	out := apicontainer.InspectResponse{
		ID: string(s.ID), Created: s.Created.Format(time.RFC3339Nano), State: e.stateOf(u),
		Image: s.Image, Name: "/" + s.Name, RestartCount: u.status.Load().Restarts, Driver: s.Driver, Platform: s.Platform,
		ResolvConfPath: filepath.Join(e.dir(s.ID), "resolv.conf"),
		HostnamePath:   filepath.Join(e.dir(s.ID), "hostname"),
		HostsPath:      filepath.Join(e.dir(s.ID), "hosts"),
		HostConfig:     s.HostConfig, Config: s.Config, Mounts: MountPoints(s.Mounts),
		NetworkSettings: e.networkSettings(ctx, u), ImageManifestDescriptor: s.Manifest,
		Storage: &storage.Storage{RootFS: &storage.RootFSStorage{Snapshot: &storage.RootFSStorageSnapshot{Name: s.Driver}}},
		ExecIDs: e.execs.Of(u.id),
	}
	if s.HostConfig.LogConfig.Type == "json-file" {
		out.LogPath = s.LogPath
	}
	if !u.status.Load().StartedAt.IsZero() {
		out.AppArmorProfile = e.appArmor(s)
	}
	args := slices.Concat(s.Config.Entrypoint, s.Config.Cmd)
	out.Path, out.Args = args[0], args[1:]
	if size {
		rw, root, err := e.sizes(ctx, u)
		if err != nil {
			return out, err
		}
		out.SizeRw, out.SizeRootFs = &rw, &root
	}
	return out, nil
}

// appArmor is the profile that confines the container.
func (e *Engine) appArmor(s *container.Spec) string {
	sec, err := spec.ParseSecurity(s.HostConfig.SecurityOpt)
	if err != nil {
		return "" // checked when it was created
	}
	return sec.Profile(e.defaults.Load().AppArmor, s.HostConfig.Privileged)
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

func (e *Engine) stateOf(u *unit) *apicontainer.State {
	st := u.status.Load()
	return &apicontainer.State{
		Status:  apicontainer.ContainerState(st.State),
		Running: isUp(st.State), Paused: st.State == container.StatePaused,
		Restarting: st.State == container.StateRestarting, Dead: st.State == container.StateDead,
		OOMKilled: st.OOMKilled, Pid: st.Pid, ExitCode: st.ExitCode, Error: cmp.Or(st.Error, st.LogTrouble),
		StartedAt: st.StartedAt.UTC().Format(time.RFC3339Nano), FinishedAt: st.FinishedAt.UTC().Format(time.RFC3339Nano),
		Health: u.health(),
	}
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

// MountPoints is the API's view of mounts.
func MountPoints(ms []container.Mount) []apicontainer.MountPoint {
	out := make([]apicontainer.MountPoint, 0, len(ms))
	for _, m := range ms {
		p := apicontainer.MountPoint{
			Type: m.Type, Name: m.Name, Source: m.Source, Destination: m.Destination, Driver: m.Driver,
			Mode: m.Mode, RW: m.RW, Propagation: m.Propagation,
		}
		if m.Type == mount.TypeTmpfs {
			if m.Request == nil {
				continue // those of --tmpfs are in HostConfig only
			}
			p.Source, p.Driver = "", ""
		}
		out = append(out, p)
	}
	return out
}

// networkSettings shows what the container has, or would have if it ran.
func (e *Engine) networkSettings(ctx context.Context, u *unit) *apicontainer.NetworkSettings {
	s := u.spec.Load()
	out := &apicontainer.NetworkSettings{Ports: apinetwork.PortMap{}, Networks: e.networksOf(ctx, u)}
	if !u.up() || !netconfig.HasSandbox(s.HostConfig) {
		return out
	}
	sb, err := e.o.Sandboxes.Get(ctx, network.SandboxID(s.Sandbox))
	if err != nil {
		return out
	}
	out.SandboxID = string(sb.ID)
	if pid := u.status.Load().Pid; pid != 0 {
		out.SandboxKey = fmt.Sprintf("/proc/%d/ns/net", pid)
	}
	for p := range s.Config.ExposedPorts {
		out.Ports[p] = nil
	}
	for p, b := range sb.Ports {
		out.Ports[p] = b
	}
	return out
}

// networksOf returns the endpoints by the network's name.
func (e *Engine) networksOf(ctx context.Context, u *unit) map[string]*apinetwork.EndpointSettings {
	s := u.spec.Load()
	out := map[string]*apinetwork.EndpointSettings{}
	if s.Networking != nil {
		for name, ep := range s.Networking.EndpointsConfig {
			out[name] = ep
		}
	}
	if !u.up() || !netconfig.HasSandbox(s.HostConfig) {
		return out
	}
	sb, err := e.o.Sandboxes.Get(ctx, network.SandboxID(s.Sandbox))
	if err != nil {
		return out
	}
	for _, ep := range sb.Endpoints {
		out[ep.Name] = ep.Settings
	}
	return out
}
