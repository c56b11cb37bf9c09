package describe

import (
	"cmp"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	apicontainer "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	apinetwork "github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/storage"

	"github.com/wherry-engine/wherry/container"
	"github.com/wherry-engine/wherry/engine/spec"
)

// Inspect describes a container in full, but for its sizes and execs.
func (c *Container) Inspect() apicontainer.InspectResponse {
	s := c.Spec
	out := apicontainer.InspectResponse{
		ID: string(s.ID), Created: s.Created.Format(time.RFC3339Nano), State: c.state(),
		Image: s.Image, Name: "/" + s.Name, RestartCount: c.Status.Restarts, Driver: s.Driver, Platform: s.Platform,
		ResolvConfPath: filepath.Join(c.Dir, "resolv.conf"),
		HostnamePath:   filepath.Join(c.Dir, "hostname"),
		HostsPath:      filepath.Join(c.Dir, "hosts"),
		HostConfig:     s.HostConfig, Config: s.Config, Mounts: mountPoints(s.Mounts),
		NetworkSettings: c.networkSettings(), ImageManifestDescriptor: s.Manifest,
		Storage: &storage.Storage{RootFS: &storage.RootFSStorage{Snapshot: &storage.RootFSStorageSnapshot{Name: s.Driver}}},
	}
	if s.HostConfig.LogConfig.Type == "json-file" {
		out.LogPath = s.LogPath
	}
	if !c.Status.StartedAt.IsZero() {
		out.AppArmorProfile = c.appArmor()
	}
	args := slices.Concat(s.Config.Entrypoint, s.Config.Cmd)
	out.Path, out.Args = args[0], args[1:]
	return out
}

// appArmor is the profile that confines the container.
func (c *Container) appArmor() string {
	h := c.Spec.HostConfig
	sec, err := spec.ParseSecurity(h.SecurityOpt)
	if err != nil {
		return "" // checked when it was created
	}
	return sec.Profile(c.AppArmor, h.Privileged)
}

func (c *Container) state() *apicontainer.State {
	st := c.Status
	return &apicontainer.State{
		Status:  apicontainer.ContainerState(st.State),
		Running: st.State.Up(), Paused: st.State == container.StatePaused,
		Restarting: st.State == container.StateRestarting, Dead: st.State == container.StateDead,
		OOMKilled: st.OOMKilled, Pid: st.Pid, ExitCode: st.ExitCode, Error: cmp.Or(st.Error, st.LogTrouble),
		StartedAt: st.StartedAt.UTC().Format(time.RFC3339Nano), FinishedAt: st.FinishedAt.UTC().Format(time.RFC3339Nano),
		Health: c.Health,
	}
}

// mountPoints is the API's view of mounts.
func mountPoints(ms []container.Mount) []apicontainer.MountPoint {
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
func (c *Container) networkSettings() *apicontainer.NetworkSettings {
	out := &apicontainer.NetworkSettings{Ports: apinetwork.PortMap{}, Networks: c.networks()}
	sb := c.Sandbox()
	if sb == nil {
		return out
	}
	out.SandboxID = string(sb.ID)
	if pid := c.Status.Pid; pid != 0 {
		out.SandboxKey = fmt.Sprintf("/proc/%d/ns/net", pid)
	}
	for p := range c.Spec.Config.ExposedPorts {
		out.Ports[p] = nil
	}
	for p, b := range sb.Ports {
		out.Ports[p] = b
	}
	return out
}

// networks returns the endpoints by the network's name.
func (c *Container) networks() map[string]*apinetwork.EndpointSettings {
	out := map[string]*apinetwork.EndpointSettings{}
	if s := c.Spec; s.Networking != nil {
		for name, ep := range s.Networking.EndpointsConfig {
			out[name] = ep
		}
	}
	sb := c.Sandbox()
	if sb == nil {
		return out
	}
	for _, ep := range sb.Endpoints {
		out[ep.Name] = ep.Settings
	}
	return out
}
