package defaults

import (
	"maps"
	"slices"

	"github.com/containerd/errdefs"
	apicontainer "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"

	"github.com/wherry-engine/wherry/container"
	"github.com/wherry-engine/wherry/engine/check"
	"github.com/wherry-engine/wherry/engine/spec"
)

// Complete checks the host's half of a request and fills in what inspect shows.
// It returns warnings. InvalidArgument, NotImplemented.
func (d *Containers) Complete(req *container.CreateRequest) ([]string, error) {
	h := req.HostConfig
	if req.Config.Image == "" {
		return nil, errdefs.ErrInvalidArgument.WithMessage("no image specified")
	}
	if h.NetworkMode == "" || h.NetworkMode.IsDefault() {
		h.NetworkMode = network.NetworkBridge
	}
	if req.Config.NetworkDisabled {
		h.NetworkMode = network.NetworkNone
	}
	if h.LogConfig.Type == "" {
		h.LogConfig.Type = d.LogDriver
	}
	if h.LogConfig.Type == d.LogDriver {
		opts := maps.Clone(d.LogOptions)
		if opts == nil {
			opts = map[string]string{}
		}
		maps.Copy(opts, h.LogConfig.Config)
		h.LogConfig.Config = opts
	}
	if err := check.HostConfig(h, req.Config, d.Host()); err != nil {
		return nil, err
	}
	warnings := d.fillHost(h)
	completeNetworking(req)
	return append(warnings, discarded(h)...), nil
}

// fillHost sets the defaults of a host configuration.
func (d *Containers) fillHost(h *apicontainer.HostConfig) (warnings []string) {
	if h.RestartPolicy.Name == "" {
		h.RestartPolicy.Name = apicontainer.RestartPolicyDisabled
	}
	if h.IpcMode == "" {
		h.IpcMode = d.IpcMode
	}
	if h.CgroupnsMode == "" {
		h.CgroupnsMode = d.CgroupnsMode
	}
	if h.CgroupnsMode == "" {
		h.CgroupnsMode = apicontainer.CgroupnsModeHost
		if !spec.CgroupV1() && !h.Privileged {
			h.CgroupnsMode = apicontainer.CgroupnsModePrivate
		}
	}
	if h.ShmSize == 0 {
		h.ShmSize = d.ShmSize
	}
	if h.Runtime == "" {
		h.Runtime = d.DefaultRuntime
	}
	if h.Memory > 0 && h.MemorySwap == 0 {
		h.MemorySwap = h.Memory * 2
	}
	if h.OomKillDisable == nil {
		off := false
		h.OomKillDisable = &off
	}
	if h.PidsLimit != nil && *h.PidsLimit <= 0 {
		h.PidsLimit = nil
	}
	if h.MemorySwappiness != nil && *h.MemorySwappiness == -1 {
		h.MemorySwappiness = nil
	}
	if h.Init == nil && d.Init {
		on := true
		h.Init = &on
	}
	sec, err := spec.ParseSecurity(h.SecurityOpt)
	if err == nil {
		h.MaskedPaths, h.ReadonlyPaths = spec.Paths(h.Privileged, sec.Unmask, h.MaskedPaths, h.ReadonlyPaths)
		if sec.AppArmor != "" && sec.AppArmor != "unconfined" && !spec.AppArmor() {
			warnings = append(warnings, "AppArmor is not enabled on this host. The profile is discarded.")
		}
		if sec.Label != "" { // refused where there is SELinux
			warnings = append(warnings, "SELinux is not enabled on this host. The label is discarded.")
		}
	}
	h.Binds = slices.Clone(h.Binds)
	return warnings
}

// discarded warns of what the machine cannot do and the request can live without.
func discarded(h *apicontainer.HostConfig) (warnings []string) {
	if h.NetworkMode.IsHost() && len(h.PortBindings) > 0 {
		warnings = append(warnings, "Published ports are discarded when using host network mode")
	}
	if !spec.CgroupV1() && h.OomKillDisable != nil && *h.OomKillDisable {
		warnings = append(warnings, "Your kernel does not support OomKillDisable. OomKillDisable discarded.")
	}
	if !spec.CgroupV1() && h.MemorySwappiness != nil {
		warnings = append(warnings, "Your kernel does not support memory swappiness capabilities or the cgroup is not mounted. Memory swappiness discarded.")
	}
	return warnings
}

// completeNetworking makes sure that the network of the mode is among the endpoints.
func completeNetworking(req *container.CreateRequest) {
	mode := req.HostConfig.NetworkMode
	eps := map[string]*network.EndpointSettings{}
	if req.Networking != nil {
		for name, s := range req.Networking.EndpointsConfig {
			if name == network.NetworkDefault {
				name = network.NetworkBridge
			}
			if s == nil {
				s = &network.EndpointSettings{}
			}
			eps[name] = s
		}
	}
	if mode.IsContainer() {
		eps = map[string]*network.EndpointSettings{}
	} else if eps[mode.NetworkName()] == nil {
		eps[mode.NetworkName()] = &network.EndpointSettings{}
	}
	req.Networking = &network.NetworkingConfig{EndpointsConfig: eps}
}
