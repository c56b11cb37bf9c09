// Package defaults has what the daemon's configuration gives containers that do
// not say otherwise, and completes their requests with it.
package defaults

import (
	"maps"
	"net/netip"
	"runtime"

	"github.com/docker/go-units"
	apicontainer "github.com/moby/moby/api/types/container"

	"github.com/wherry-engine/wherry/container"
	"github.com/wherry-engine/wherry/engine/check"
	"github.com/wherry-engine/wherry/task"
)

// Containers are the defaults of containers. Ones that Fill has completed are
// not changed any more.
type Containers struct {
	LogDriver       string // default json-file
	LogOptions      map[string]string
	LogTypes        []string // usable drivers; default json-file, local
	Ulimits         map[string]*units.Ulimit
	CgroupParent    string // default /wherry, or system.slice with SystemdCgroup
	SystemdCgroup   bool
	CgroupnsMode    apicontainer.CgroupnsMode // default: private on v2, host on v1
	IpcMode         apicontainer.IpcMode      // default private
	ShmSize         int64                     // bytes; default 64 MiB
	Init            bool
	Runtimes        map[string]*task.Runtime // by name; the built-in one, nil, is always there
	DefaultRuntime  string
	DNS             []netip.Addr
	DNSSearch       []string
	DNSOptions      []string
	HostGateway     []netip.Addr // for host-gateway; default: the sandbox's answer
	NoNewPrivileges bool
	Seccomp         string // "", "unconfined" or a profile as JSON
	// AppArmor is the profile of containers that name none; empty where there
	// is no AppArmor. LoadAppArmor is called before it is used.
	AppArmor        string
	LoadAppArmor    func() error
	ShutdownTimeout int // seconds; default 15
	// IDs are those of containers with a user namespace of their own; zero: no
	// container has one.
	IDs container.IDMap
}

// IDsOf says what the users of a container are on the host: zero for one in the
// host's user namespace.
func (d *Containers) IDsOf(h *apicontainer.HostConfig) container.IDMap {
	if h.UsernsMode.IsHost() {
		return container.IDMap{}
	}
	return d.IDs
}

// Fill sets what the configuration leaves open, too.
func (d *Containers) Fill() {
	if d.LogDriver == "" {
		d.LogDriver = "json-file"
	}
	if d.LogTypes == nil {
		d.LogTypes = []string{"json-file", "local"}
	}
	if d.CgroupParent == "" {
		d.CgroupParent = task.DefaultCgroupParent(d.SystemdCgroup)
	}
	if d.IpcMode == "" {
		d.IpcMode = apicontainer.IPCModePrivate
	}
	if d.ShmSize == 0 {
		d.ShmSize = 64 << 20
	}
	if d.DefaultRuntime == "" {
		d.DefaultRuntime = "wherry"
	}
	if d.ShutdownTimeout == 0 {
		d.ShutdownTimeout = 15
	}
	all := map[string]*task.Runtime{"wherry": nil, "runc": nil, "io.containerd.runc.v2": nil}
	maps.Copy(all, d.Runtimes)
	d.Runtimes = all
}

// Host is what a request is checked against.
func (d *Containers) Host() check.Host {
	return check.Host{
		CPUs: runtime.NumCPU(), Runtimes: d.Runtimes, LogTypes: d.LogTypes, SystemdCgroup: d.SystemdCgroup, UserNS: !d.IDs.IsZero(),
	}
}
