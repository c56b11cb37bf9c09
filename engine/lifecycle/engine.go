// Package lifecycle owns containers: their index, their three values (spec,
// status, handle), and what happens to them, in which order. Each container has
// one owner at a time that changes it; others queue behind. It starts no process
// and mounts nothing: that is the supervisor's. What requests, messages and
// answers say is made by the packages beside it.
package lifecycle

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"

	"github.com/wherry-engine/wherry/container"
	"github.com/wherry-engine/wherry/engine/defaults"
	"github.com/wherry-engine/wherry/engine/exec"
	"github.com/wherry-engine/wherry/engine/records"
	"github.com/wherry-engine/wherry/engine/shm"
	"github.com/wherry-engine/wherry/engine/volumes"
	"github.com/wherry-engine/wherry/events"
	"github.com/wherry-engine/wherry/image"
	"github.com/wherry-engine/wherry/logs"
	"github.com/wherry-engine/wherry/network"
	"github.com/wherry-engine/wherry/snapshot"
	"github.com/wherry-engine/wherry/task"
	"github.com/wherry-engine/wherry/volume"
)

// LogReader opens the log of a container for reading. FailedPrecondition if
// the driver's logs cannot be read.
type LogReader func(driver, path string, options map[string]string) (logs.Reader, error)

// Options for New. All interfaces are required, except Transfer.
type Options struct {
	DataRoot  string // holds containers/<id>/
	ExecRoot  string // holds shm/<id>/; default DataRoot
	State     records.Store
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
	Defaults  defaults.Containers
}

// Engine implements the use cases of containers. Its methods are safe for
// concurrent use. Boot must have returned before any other is called.
type Engine struct {
	o        Options
	log      *slog.Logger
	defaults atomic.Pointer[defaults.Containers]
	index    index
	records  records.Records
	execs    exec.Registry
	shm      shm.Dir
	volumes  volumes.Volumes
	reaper   reaper
	acks     acks
	stop     context.CancelFunc
	run      context.Context //nolint:containedctx // the life of the engine's own goroutines
}

// New loads the containers of a data root. It contacts nobody; see Boot.
func New(o Options) (*Engine, error) {
	e := &Engine{o: o, log: o.Logger, records: records.Records{Store: o.State}}
	if e.log == nil {
		e.log = slog.New(slog.DiscardHandler)
	}
	if e.o.ExecRoot == "" {
		e.o.ExecRoot = o.DataRoot
	}
	e.volumes = volumes.Volumes{Store: o.Volumes, Events: o.Events, Records: e.records, Root: e.openImage}
	e.shm = shm.Dir(filepath.Join(e.o.ExecRoot, "shm"))
	e.SetDefaults(o.Defaults)
	e.stop = func() {} // until Boot
	if err := os.MkdirAll(filepath.Join(o.DataRoot, "containers"), 0o710); err != nil {
		return nil, fmt.Errorf("make the containers directory: %w", err)
	}
	if err := e.load(); err != nil {
		return nil, fmt.Errorf("load containers: %w", err)
	}
	return e, nil
}

// SetDefaults replaces the defaults, for containers created or started from now on.
func (e *Engine) SetDefaults(d defaults.Containers) {
	d.Fill()
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

// dir is the directory of a container's own files.
func (e *Engine) dir(id container.ID) string {
	return filepath.Join(e.o.DataRoot, "containers", string(id))
}
