package sysinfo

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/moby/moby/api/types/registry"
	"github.com/moby/moby/api/types/swarm"
	"github.com/moby/moby/api/types/system"

	"github.com/wherry-engine/wherry/daemon/apparmor"
	"github.com/wherry-engine/wherry/daemon/config"
)

// Counts of containers by state.
type Counts struct{ All, Running, Paused, Stopped int }

// Options for New. Functions may be nil: what they would tell is left out.
type Options struct {
	// ID is the engine's own.
	ID string
	// Version, Commit and BuildTime of the program.
	Version, Commit, BuildTime string
	APIVersion, MinAPIVersion  string
	// Config returns the configuration in force.
	Config func() *config.Config
	// RuntimePath is the built-in runtime's program.
	RuntimePath string
	// SystemdCgroup tells that the systemd cgroup driver is used.
	SystemdCgroup bool
	Containers    func(ctx context.Context) (Counts, error)
	Images        func(ctx context.Context) (int, error)
	Storage       func() (name string, status [][2]string)
	Listeners     func() int
	Firewall      func() *system.FirewallInfo
	Networks      []string // drivers
	// Warnings of parts that are degraded.
	Warnings func() []string
}

// Source implements the Informer of api/system.
type Source struct {
	o        Options
	host     Host
	features features
}

// New reads the machine's facts.
func New(o Options) *Source { return &Source{o: o, host: ReadHost()} }

// Host returns the machine's facts.
func (s *Source) Host() Host { return s.host }

// Version answers GET /version.
func (s *Source) Version() system.VersionResponse {
	experimental := s.o.Config().Experimental
	return system.VersionResponse{
		Platform:      system.PlatformInfo{Name: "Wherry Engine"},
		Version:       s.o.Version,
		APIVersion:    s.o.APIVersion,
		MinAPIVersion: s.o.MinAPIVersion,
		Os:            runtime.GOOS,
		Arch:          runtime.GOARCH,
		GitCommit:     s.o.Commit,
		GoVersion:     runtime.Version(),
		KernelVersion: s.host.Kernel,
		Experimental:  experimental,
		BuildTime:     s.o.BuildTime,
		Components: []system.ComponentVersion{{
			Name:    "Engine",
			Version: s.o.Version,
			Details: map[string]string{
				"ApiVersion": s.o.APIVersion, "MinAPIVersion": s.o.MinAPIVersion,
				"Os": runtime.GOOS, "Arch": runtime.GOARCH,
				"GitCommit": s.o.Commit, "GoVersion": runtime.Version(), "KernelVersion": s.host.Kernel,
				"Experimental": formatBool(experimental), "BuildTime": s.o.BuildTime,
			},
		}},
	}
}

// Info answers GET /info.
func (s *Source) Info(ctx context.Context) (*system.Info, error) {
	c := s.o.Config()
	info := &system.Info{
		ID: s.o.ID, Name: s.host.Name, ServerVersion: s.o.Version,
		KernelVersion: s.host.Kernel, OperatingSystem: s.host.OS, OSVersion: s.host.OSVersion,
		OSType: runtime.GOOS, Architecture: s.host.Arch, NCPU: s.host.CPUs, MemTotal: s.host.Memory,
		SystemTime: time.Now().Format(systemTimeLayout), NGoroutines: runtime.NumGoroutine(), NFd: openFiles(),
		Debug: c.Debug, ExperimentalBuild: c.Experimental, DockerRootDir: c.DataRoot,
		Labels: append([]string{}, c.Labels...), LoggingDriver: c.Containers.LogDriver,
		IndexServerAddress: "https://index.docker.io/v1/",
		HTTPProxy:          maskUser(c.Proxies.HTTP), HTTPSProxy: maskUser(c.Proxies.HTTPS), NoProxy: c.Proxies.No,
		Swarm:              swarm.Info{LocalNodeState: swarm.LocalNodeStateInactive},
		LiveRestoreEnabled: c.LiveRestore == nil || *c.LiveRestore,
		InitBinary:         "wherry-runtime", InitCommit: system.Commit{ID: s.o.Commit},
		RuncCommit: system.Commit{ID: s.o.Commit}, ContainerdCommit: system.Commit{ID: "none: the content store is part of the engine"},
		Plugins: system.PluginsInfo{
			Volume: []string{"local"}, Network: s.o.Networks, Authorization: []string{}, Log: []string{"json-file", "local"},
		},
		CDISpecDirs: []string{}, SecurityOptions: s.security(c), IPv4Forwarding: forwarding(),
		GenericResources: nil,
	}
	s.cgroups(info)
	s.runtimes(info, c)
	info.RegistryConfig = registryConfig(c.Registry)
	for _, p := range c.Network.Pools {
		info.DefaultAddressPools = append(info.DefaultAddressPools, system.NetworkAddressPool{Base: p.Base, Size: p.Size})
	}
	if err := s.ask(ctx, info); err != nil {
		return nil, err
	}
	info.Warnings = s.warnings(info, c)
	return info, nil
}

// ask fills in what other parts of the engine know.
func (s *Source) ask(ctx context.Context, info *system.Info) error {
	if s.o.Containers != nil {
		n, err := s.o.Containers(ctx)
		if err != nil {
			return fmt.Errorf("count containers: %w", err)
		}
		info.Containers, info.ContainersRunning, info.ContainersPaused, info.ContainersStopped = n.All, n.Running, n.Paused, n.Stopped
	}
	if s.o.Images != nil {
		n, err := s.o.Images(ctx)
		if err != nil {
			return fmt.Errorf("count images: %w", err)
		}
		info.Images = n
	}
	if s.o.Storage != nil {
		info.Driver, info.DriverStatus = s.o.Storage()
	}
	if s.o.Listeners != nil {
		info.NEventsListener = s.o.Listeners()
	}
	if s.o.Firewall != nil {
		info.FirewallBackend = s.o.Firewall()
	}
	return nil
}

func (s *Source) cgroups(info *system.Info) {
	g := s.host.Cgroup
	info.CgroupVersion, info.CgroupDriver = g.Version, "cgroupfs"
	if s.o.SystemdCgroup {
		info.CgroupDriver = "systemd"
	}
	info.MemoryLimit, info.SwapLimit, info.OomKillDisable = g.Memory, g.Swap, g.OOMKill
	info.CPUCfsPeriod, info.CPUCfsQuota, info.CPUShares, info.CPUSet, info.PidsLimit = g.Period, g.Quota, g.Shares, g.Set, g.Pids
}

func (s *Source) runtimes(info *system.Info, c *config.Config) {
	info.DefaultRuntime = c.DefaultRun
	known := s.features.of(c, s.o.RuntimePath)
	builtin := system.RuntimeWithStatus{Runtime: system.Runtime{Path: s.o.RuntimePath}, Status: known[config.BuiltinRuntime]}
	info.Runtimes = map[string]system.RuntimeWithStatus{config.BuiltinRuntime: builtin, "runc": builtin}
	for name, r := range c.Runtimes {
		info.Runtimes[name] = system.RuntimeWithStatus{
			Runtime: system.Runtime{Path: r.Path, Args: r.Args, Type: r.Type, Options: r.Options}, Status: known[name],
		}
	}
}

func (s *Source) security(c *config.Config) []string {
	profile := c.Containers.SeccompProfile
	if profile == "" {
		profile = "builtin"
	}
	var opts []string
	if apparmor.Supported() {
		opts = append(opts, "name=apparmor")
	}
	opts = append(opts, "name=seccomp,profile="+profile)
	mode := c.Containers.CgroupNSMode
	if mode == "private" || mode == "" && s.host.Cgroup.Version == "2" {
		opts = append(opts, "name=cgroupns")
	}
	if c.Containers.UsernsRemap != "" {
		opts = append(opts, "name=userns")
	}
	if c.Containers.NoNewPrivileges {
		opts = append(opts, "name=no-new-privileges")
	}
	return opts
}

func (s *Source) warnings(info *system.Info, c *config.Config) []string {
	var w []string
	add := func(missing bool, text string) {
		if missing {
			w = append(w, "WARNING: "+text)
		}
	}
	for _, h := range c.Hosts {
		add(strings.HasPrefix(h, "tcp://") && !c.TLS.Enabled, "API is accessible on "+strings.Replace(h, "tcp://", "http://", 1)+
			" without encryption. Access to the remote API is equivalent to root access on the host.")
	}
	add(!info.MemoryLimit, "No memory limit support")
	add(!info.SwapLimit, "No swap limit support")
	add(!info.CPUCfsPeriod, "No cpu cfs period support")
	add(!info.CPUCfsQuota, "No cpu cfs quota support")
	add(!info.CPUShares, "No cpu shares support")
	add(!info.CPUSet, "No cpuset support")
	add(!info.PidsLimit, "No pids limit support")
	add(!s.host.Cgroup.Blkio, "No blkio throttle support")
	add(!info.IPv4Forwarding, "IPv4 forwarding is disabled")
	add(!c.Network.IPTables, "no firewall rules are installed for IPv4 (--iptables=false)")
	add(!c.Network.IP6Tables, "no firewall rules are installed for IPv6 (--ip6tables=false)")
	lack := apparmor.Lack()
	add(lack != "", "the kernel has AppArmor, but containers are not confined by it: "+lack)
	if s.o.Warnings != nil {
		for _, text := range s.o.Warnings() {
			add(true, text)
		}
	}
	return w
}

func registryConfig(r config.Registry) *registry.ServiceConfig {
	c := &registry.ServiceConfig{
		Mirrors: append([]string{}, r.Mirrors...),
		IndexConfigs: map[string]*registry.IndexInfo{
			"docker.io": {Name: "docker.io", Mirrors: append([]string{}, r.Mirrors...), Secure: true, Official: true},
		},
	}
	insecure := append(slices.Clone(r.Insecure), "::1/128", "127.0.0.0/8")
	for _, s := range insecure {
		if p, err := parsePrefix(s); err == nil {
			c.InsecureRegistryCIDRs = append(c.InsecureRegistryCIDRs, p)
			continue
		}
		c.IndexConfigs[s] = &registry.IndexInfo{Name: s, Mirrors: []string{}}
	}
	return c
}
