// Package lifecycle owns containers: their index, their three values (spec,
// status, handle), and every operation on them. Each container has one owner
// at a time that changes it; others queue behind. It starts no process and
// mounts nothing: that is the supervisor's.
package lifecycle

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"

	"github.com/docker/go-units"
	apicontainer "github.com/moby/moby/api/types/container"

	"github.com/wherry-engine/wherry/container"
	"github.com/wherry-engine/wherry/engine/check"
	"github.com/wherry-engine/wherry/engine/exec"
	"github.com/wherry-engine/wherry/engine/shm"
	"github.com/wherry-engine/wherry/events"
	"github.com/wherry-engine/wherry/image"
	"github.com/wherry-engine/wherry/internal/state"
	"github.com/wherry-engine/wherry/logs"
	"github.com/wherry-engine/wherry/network"
	"github.com/wherry-engine/wherry/snapshot"
	"github.com/wherry-engine/wherry/task"
	"github.com/wherry-engine/wherry/volume"
)

// Store is the engine's journaled state; internal/state implements it.
type Store interface {
	Put(bucket, key string, val []byte) error
	Batch(ops ...state.Op) error
	BatchDurable(ops ...state.Op) error
	ForEach(bucket string, fn func(key string, val []byte) error) error
}

// LogReader opens the log of a container for reading. FailedPrecondition if
// the driver's logs cannot be read.
type LogReader func(driver, path string, options map[string]string) (logs.Reader, error)

// Options for New. All interfaces are required, except Transfer.
type Options struct {
	DataRoot  string // holds containers/<id>/
	ExecRoot  string // holds shm/<id>/; default DataRoot
	State     Store
	Tasks     task.Service
	Images    image.Resolver
	Transfer  image.Transfer // for commit
	Layers    snapshot.Driver
	Networks  network.Networks
	Sandboxes network.Sandboxes
	Volumes   volume.Store
	Events    events.Publisher
	LogReader LogReader
	Logger    *slog.Logger
	Defaults  Defaults
}

// Defaults are what the daemon's configuration gives containers that do not
// say otherwise. They may be replaced at run time.
type Defaults struct {
	LogDriver       string // default json-file
	LogOptions      map[string]string
	LogTypes        []string // usable drivers; default json-file, local
	Ulimits         map[string]*units.Ulimit
	CgroupParent    string // default /wherry
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
}

func (d *Defaults) fill() {
	if d.LogDriver == "" {
		d.LogDriver = "json-file"
	}
	if d.LogTypes == nil {
		d.LogTypes = []string{"json-file", "local"}
	}
	if d.CgroupParent == "" {
		d.CgroupParent = "/wherry"
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

// Engine implements the use cases of containers. Its methods are safe for
// concurrent use. Boot must have returned before any other is called.
type Engine struct {
	o        Options
	log      *slog.Logger
	defaults atomic.Pointer[Defaults]
	index    index
	execs    exec.Registry
	shm      shm.Dir
	reaper   reaper
	acks     acks
	stop     context.CancelFunc
	run      context.Context //nolint:containedctx // the life of the engine's own goroutines
}

// New loads the containers of a data root. It contacts nobody; see Boot.
func New(o Options) (*Engine, error) {
	e := &Engine{o: o, log: o.Logger}
	if e.log == nil {
		e.log = slog.New(slog.DiscardHandler)
	}
	if e.o.ExecRoot == "" {
		e.o.ExecRoot = o.DataRoot
	}
	e.shm = shm.Dir(filepath.Join(e.o.ExecRoot, "shm"))
	e.SetDefaults(o.Defaults)
	e.stop = func() {} // until Boot
	if err := os.MkdirAll(filepath.Join(o.DataRoot, "containers"), 0o710); err != nil {
		return nil, fmt.Errorf("make the containers directory: %w", err)
	}
	if err := e.load(); err != nil {
		return nil, fmt.Errorf("load containers: %w", err)
	}
	e.holdVolumes(e.run)
	return e, nil
}

// SetDefaults replaces the defaults, for containers created or started from now on.
func (e *Engine) SetDefaults(d Defaults) {
	d.fill()
	e.defaults.Store(&d)
}

// Close ends the engine's goroutines. Containers go on.
func (e *Engine) Close() error {
	e.stop()
	for _, u := range e.index.all() {
		e.stopProbe(u)
	}
	e.reaper.wait()
	e.shm.Remove()
	return nil
}

func (e *Engine) host() check.Host {
	d := e.defaults.Load()
	return check.Host{CPUs: runtime.NumCPU(), Runtimes: d.Runtimes, LogTypes: d.LogTypes}
}

// dir is the directory of a container's own files.
func (e *Engine) dir(id container.ID) string {
	return filepath.Join(e.o.DataRoot, "containers", string(id))
}
