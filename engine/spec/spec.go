// Package spec turns a container into an OCI runtime configuration with
// Docker's defaults. It reads the machine (capabilities, devices) and changes
// nothing.
package spec

import (
	"path"
	"slices"
	"strings"

	"github.com/docker/go-units"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/wherry-engine/wherry/container"
)

// Input is what a configuration is made of.
type Input struct {
	Container *container.Spec
	// Mounts are the user's and the engine's own files, in mount order; one
	// replaces a default mount of the same destination.
	Mounts []specs.Mount
	// LinkEnv is set before the container's own environment.
	LinkEnv []string
	// ShmSource binds another container's /dev/shm; empty makes a new one.
	ShmSource string
	// IDs are those of the container's user namespace; zero for the host's.
	IDs      container.IDMap
	Defaults Defaults
}

// Defaults come from the daemon's configuration.
type Defaults struct {
	NoNewPrivileges bool
	Seccomp         string // "" built in, "unconfined", or a profile as JSON
	Ulimits         map[string]*units.Ulimit
	AppArmor        string // profile of containers that name none; empty for no confinement
}

const (
	defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	defaultShm  = 64 << 20 // bytes
)

// Build makes the configuration. InvalidArgument for what the machine lacks.
func Build(in Input) (*specs.Spec, error) {
	c, h := in.Container.Config, in.Container.HostConfig
	sec, err := ParseSecurity(h.SecurityOpt)
	if err != nil {
		return nil, err
	}
	caps, err := effectiveCaps(h.CapAdd, h.CapDrop, h.Privileged)
	if err != nil {
		return nil, err
	}
	res, err := Resources(&h.Resources)
	if err != nil {
		return nil, err
	}
	s := &specs.Spec{
		Version:     specs.Version,
		Root:        &specs.Root{Path: "rootfs", Readonly: h.ReadonlyRootfs},
		Hostname:    c.Hostname,
		Domainname:  c.Domainname,
		Annotations: h.Annotations,
		Process: &specs.Process{
			Terminal: c.Tty, Cwd: cwd(c.WorkingDir), Env: Env(in.Container, in.LinkEnv),
			Args:            slices.Concat(c.Entrypoint, c.Cmd),
			NoNewPrivileges: noNewPrivileges(sec, in.Defaults, h.Privileged),
			Capabilities: &specs.LinuxCapabilities{
				Bounding: caps, Effective: caps, Permitted: caps,
			},
			Rlimits:     rlimits(h.Ulimits, in.Defaults.Ulimits),
			OOMScoreAdj: &h.OomScoreAdj,
		},
		Linux: &specs.Linux{
			Resources: res, Namespaces: namespaces(in.Container), Sysctl: sysctls(h.Sysctls),
			MaskedPaths: h.MaskedPaths, ReadonlyPaths: h.ReadonlyPaths,
		},
	}
	if !in.IDs.IsZero() {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
		s.Linux.UIDMappings, s.Linux.GIDMappings = in.IDs.UIDs, in.IDs.GIDs
	}
	s.Process.User.Umask = h.Umask
	if h.UTSMode.IsHost() {
		s.Hostname, s.Domainname = "", ""
	}
	s.Mounts = mounts(in, sec)
	s.Process.ApparmorProfile = sec.Profile(in.Defaults.AppArmor, h.Privileged)
	return s, finish(s, in, sec)
}

// finish adds devices, seccomp and what else depends on the rest.
func finish(s *specs.Spec, in Input, sec Security) error {
	h := in.Container.HostConfig
	s.Linux.Resources.Devices = defaultDeviceRules()
	if h.Privileged {
		if err := allHostDevices(s); err != nil {
			return err
		}
	}
	for _, d := range h.Devices {
		if h.Privileged && (d.PathInContainer == "" || d.PathInContainer == d.PathOnHost) {
			continue
		}
		if err := addDevices(s, d); err != nil {
			return err
		}
	}
	for _, rule := range h.DeviceCgroupRules {
		r, err := ParseDeviceRule(rule)
		if err != nil {
			return err
		}
		s.Linux.Resources.Devices = append(s.Linux.Resources.Devices, r)
	}
	if h.Privileged && sec.Seccomp == "" {
		return nil
	}
	profile := sec.Seccomp
	if profile == "" {
		profile = in.Defaults.Seccomp
	}
	filter, err := seccompFilter(profile, s)
	if err != nil {
		return invalid("%v", err)
	}
	s.Linux.Seccomp = filter
	return nil
}

func cwd(dir string) string {
	if dir == "" {
		return "/"
	}
	return path.Clean(dir)
}

func noNewPrivileges(sec Security, d Defaults, privileged bool) bool {
	if sec.NoNewPrivileges != nil {
		return *sec.NoNewPrivileges
	}
	return d.NoNewPrivileges && !privileged
}

// Env returns the environment of the container's process.
func Env(s *container.Spec, links []string) []string {
	c := s.Config
	env := []string{defaultPath, "HOSTNAME=" + c.Hostname}
	if c.Tty {
		env = append(env, "TERM=xterm")
	}
	return MergeEnv(append(env, links...), c.Env)
}

// MergeEnv replaces or appends; "NAME" without a value removes.
func MergeEnv(env, over []string) []string {
	at := make(map[string]int, len(env)+len(over))
	for i, e := range env {
		name, _, _ := strings.Cut(e, "=")
		at[name] = i
	}
	for _, e := range over {
		name, _, hasValue := strings.Cut(e, "=")
		i, ok := at[name]
		switch {
		case !hasValue && ok:
			env[i] = ""
			delete(at, name)
		case !hasValue:
		case ok:
			env[i] = e
		default:
			at[name] = len(env)
			env = append(env, e)
		}
	}
	return slices.DeleteFunc(env, func(e string) bool { return e == "" })
}

func rlimits(own []*units.Ulimit, defaults map[string]*units.Ulimit) []specs.POSIXRlimit {
	var out []specs.POSIXRlimit
	seen := map[string]bool{}
	add := func(u *units.Ulimit) {
		if !seen[u.Name] {
			seen[u.Name] = true
			out = append(out, specs.POSIXRlimit{
				Type: "RLIMIT_" + strings.ToUpper(u.Name), Soft: uint64(u.Soft), Hard: uint64(u.Hard),
			})
		}
	}
	for _, u := range own {
		add(u)
	}
	for _, u := range defaults {
		add(u)
	}
	slices.SortFunc(out, func(a, b specs.POSIXRlimit) int { return strings.Compare(a.Type, b.Type) })
	return out
}

// namespaces lists those the container has of its own or joins; which one is
// joined is said by the start request.
func namespaces(s *container.Spec) []specs.LinuxNamespace {
	h := s.HostConfig
	out := []specs.LinuxNamespace{{Type: specs.MountNamespace}}
	add := func(has bool, t specs.LinuxNamespaceType) {
		if has {
			out = append(out, specs.LinuxNamespace{Type: t})
		}
	}
	add(!h.NetworkMode.IsHost(), specs.NetworkNamespace)
	add(!h.UTSMode.IsHost(), specs.UTSNamespace)
	add(!h.PidMode.IsHost(), specs.PIDNamespace)
	add(!h.IpcMode.IsHost(), specs.IPCNamespace)
	add(h.CgroupnsMode.IsPrivate(), specs.CgroupNamespace)
	return out
}

// sysctls leaves out those of the network, which belong to the sandbox.
func sysctls(all map[string]string) map[string]string {
	out := make(map[string]string, len(all))
	for k, v := range all {
		if !strings.HasPrefix(k, "net.") {
			out[k] = v
		}
	}
	return out
}
