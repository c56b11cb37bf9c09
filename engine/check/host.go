package check

import (
	"slices"
	"strings"

	apicontainer "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"

	"github.com/wherry-engine/wherry/engine/spec"
	"github.com/wherry-engine/wherry/task"
)

// Host is what the machine and the daemon's configuration allow.
type Host struct {
	CPUs     int
	Runtimes map[string]*task.Runtime // by name; nil is the built-in one
	LogTypes []string                 // log drivers that can be used
	// SystemdCgroup tells that systemd makes the cgroups.
	SystemdCgroup bool
	// UserNS tells that containers have user namespaces of their own.
	UserNS bool
}

// HostConfig checks the other half of a request, and how both fit. InvalidArgument,
// NotImplemented for what the engine does not do yet.
func HostConfig(h *apicontainer.HostConfig, c *apicontainer.Config, host Host) error {
	for _, f := range []func() error{
		func() error { return modes(h, c) },
		func() error { return Resources(&h.Resources, host.CPUs) },
		func() error { return cgroupParent(h.CgroupParent, host.SystemdCgroup) },
		func() error { return RestartPolicy(h.RestartPolicy, h.AutoRemove) },
		func() error { return ExtraHosts(h.ExtraHosts) },
		func() error { return security(h) },
		func() error { return unsupported(h) },
		func() error { return logging(h.LogConfig, host.LogTypes) },
		func() error { return sysctls(h) },
		func() error { return ports(h.PortBindings) },
		func() error { return UserNS(h, host) },
	} {
		if err := f(); err != nil {
			return err
		}
	}
	if h.ShmSize < 0 {
		return invalid("SHM size can not be less than 0")
	}
	if h.OomScoreAdj < -1000 || h.OomScoreAdj > 1000 {
		return invalid("Invalid value %d, range for oom score adj is [-1000, 1000]", h.OomScoreAdj)
	}
	if h.Runtime != "" {
		if _, ok := host.Runtimes[h.Runtime]; !ok {
			return invalid("unknown or invalid runtime name: %s", h.Runtime)
		}
	}
	for name := range h.Annotations {
		if name == "" {
			return invalid("invalid Annotations: the empty string is not permitted as an annotation key")
		}
	}
	return nil
}

// RestartPolicy checks a policy. InvalidArgument.
func RestartPolicy(p apicontainer.RestartPolicy, autoRemove bool) error {
	if autoRemove && !p.IsNone() {
		return invalid("can't create 'AutoRemove' container with restart policy")
	}
	if err := apicontainer.ValidateRestartPolicy(p); err != nil {
		return invalid("%v", err)
	}
	return nil
}

func modes(h *apicontainer.HostConfig, c *apicontainer.Config) error {
	switch {
	case !h.IpcMode.Valid(), h.IpcMode == "container:":
		return invalid("invalid IPC mode: %v", h.IpcMode)
	case !h.PidMode.Valid():
		return invalid("invalid PID mode: %v", h.PidMode)
	case !h.UTSMode.Valid():
		return invalid("invalid UTS mode: %v", h.UTSMode)
	case !h.UsernsMode.Valid():
		return invalid("invalid userns mode: %v", h.UsernsMode)
	case !h.CgroupnsMode.Valid():
		return invalid("invalid cgroup namespace mode: %v", h.CgroupnsMode)
	case h.UTSMode.IsHost() && c.Hostname != "":
		return invalid("conflicting options: hostname and the UTS mode")
	case h.NetworkMode.IsHost() && len(h.Links) > 0:
		return invalid("conflicting options: host type networking can't be used with links. This would result in undefined behavior")
	case h.CgroupnsMode.IsPrivate() && spec.CgroupV1() && h.Privileged:
		return nil
	}
	if h.NetworkMode.IsContainer() {
		return joined(h, c)
	}
	return nil
}

// joined checks what cannot be said for a container in another one's network.
func joined(h *apicontainer.HostConfig, c *apicontainer.Config) error {
	switch {
	case h.NetworkMode.ConnectedContainer() == "":
		return invalid("invalid network mode: invalid container format container:<name|id>")
	case c.Hostname != "":
		return invalid("conflicting options: hostname and the network mode")
	case len(h.Links) > 0:
		return invalid("conflicting options: container type network can't be used with links. This would result in undefined behavior")
	case len(h.DNS) > 0:
		return invalid("conflicting options: dns and the network mode")
	case len(h.ExtraHosts) > 0:
		return invalid("conflicting options: custom host-to-IP mapping and the network mode")
	case len(h.PortBindings) > 0 || h.PublishAllPorts:
		return invalid("conflicting options: port publishing and the container type network mode")
	case len(c.ExposedPorts) > 0:
		return invalid("conflicting options: port exposing and the container type network mode")
	}
	return nil
}

func unsupported(h *apicontainer.HostConfig) error {
	switch {
	case len(h.DeviceRequests) > 0:
		return refused("the device request for driver %q with capabilities %v", h.DeviceRequests[0].Driver, h.DeviceRequests[0].Capabilities)
	case len(h.StorageOpt) > 0:
		return refused("storage-opt")
	case !h.Isolation.IsValid():
		return invalid("invalid isolation '%s' on linux", h.Isolation)
	case h.CPUCount != 0:
		return invalid("invalid option: CPU count is for Windows containers only")
	case h.CPUPercent != 0:
		return invalid("linux does not support CPU percent")
	case h.IOMaximumBandwidth != 0:
		return invalid("invalid QoS settings: linux does not support Maximum IO Bandwidth")
	case h.IOMaximumIOps != 0:
		return invalid("invalid QoS settings: linux does not support Maximum IO IOps")
	case h.Cgroup != "":
		return refused("a cgroup specification (%q)", h.Cgroup)
	case h.CPURealtimePeriod != 0 || h.CPURealtimeRuntime != 0:
		return realtime()
	}
	return nil
}

func ports(m network.PortMap) error {
	for port, bindings := range m {
		if !port.IsValid() || port.Num() == 0 {
			return invalid("invalid port specification: %q", port.String())
		}
		switch port.Proto() {
		case network.TCP, network.UDP:
		case network.SCTP:
			return refused("publishing SCTP port %s", port)
		default:
			return invalid("invalid proto: %s", port.Proto())
		}
		for _, b := range bindings {
			if b.HostPort == "" {
				continue
			}
			if _, err := network.ParsePortRange(b.HostPort); err != nil || strings.Contains(b.HostPort, "/") {
				return invalid("invalid port specification: %q", b.HostPort)
			}
		}
	}
	return nil
}

// Endpoint checks what is asked of an endpoint in a network that users did not
// make. InvalidArgument.
func Endpoint(name string, ep *network.EndpointSettings) error {
	if ep == nil || apicontainer.NetworkMode(name).IsUserDefined() {
		return nil
	}
	if len(ep.Aliases) > 0 {
		return invalid("network-scoped aliases are only supported for user-defined networks")
	}
	if ip := ep.IPAMConfig; ip != nil && (ip.IPv4Address.IsValid() || ip.IPv6Address.IsValid()) {
		return invalid("user specified IP address is supported on user defined networks only")
	}
	return nil
}

func logging(l apicontainer.LogConfig, known []string) error {
	if l.Type != "" && l.Type != "none" && !slices.Contains(known, l.Type) {
		return invalid("logger: no log driver named '%s' is registered", l.Type)
	}
	return LogOptions(l.Type, l.Config)
}

func sysctls(h *apicontainer.HostConfig) error {
	for name := range h.Sysctls {
		switch {
		case strings.HasPrefix(name, "net."):
			if h.NetworkMode.IsHost() {
				return invalid("invalid sysctl %q: not allowed with the host's network", name)
			}
		case strings.HasPrefix(name, "kernel.sem"), strings.HasPrefix(name, "kernel.shm"),
			strings.HasPrefix(name, "kernel.msg"), strings.HasPrefix(name, "fs.mqueue."):
			if h.IpcMode.IsHost() {
				return invalid("invalid sysctl %q: not allowed with the host's IPC namespace", name)
			}
		case name == "kernel.domainname":
		default:
			return invalid("sysctl '%s' is not allowed", name)
		}
	}
	return nil
}

func security(h *apicontainer.HostConfig) error {
	sec, err := spec.ParseSecurity(h.SecurityOpt)
	if err != nil {
		return err
	}
	if sec.Label != "" && spec.SELinux() {
		return refused("security option label=%s (an SELinux label other than the engine's own)", sec.Label)
	}
	for _, list := range [][]string{h.CapAdd, h.CapDrop} {
		if _, err := spec.Capabilities(list); err != nil {
			return err
		}
	}
	for _, d := range h.Devices {
		if err := spec.CheckDevice(d); err != nil {
			return err
		}
	}
	for _, rule := range h.DeviceCgroupRules {
		if _, err := spec.ParseDeviceRule(rule); err != nil {
			return err
		}
	}
	for _, u := range h.Ulimits {
		if err := spec.CheckUlimit(u); err != nil {
			return err
		}
	}
	return nil
}
