package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"slices"
	"strconv"
	"sync/atomic"

	"github.com/wherry-engine/wherry/api"
	apibuild "github.com/wherry-engine/wherry/api/build"
	"github.com/wherry-engine/wherry/api/containers"
	"github.com/wherry-engine/wherry/api/distribution"
	"github.com/wherry-engine/wherry/api/images"
	"github.com/wherry-engine/wherry/api/networks"
	"github.com/wherry-engine/wherry/api/route"
	"github.com/wherry-engine/wherry/api/system"
	"github.com/wherry-engine/wherry/api/volumes"
	"github.com/wherry-engine/wherry/build"
	"github.com/wherry-engine/wherry/container"
	"github.com/wherry-engine/wherry/daemon/config"
	"github.com/wherry-engine/wherry/daemon/helpers"
	"github.com/wherry-engine/wherry/daemon/sysinfo"
	"github.com/wherry-engine/wherry/engine/lifecycle"
	"github.com/wherry-engine/wherry/events/bus"
	"github.com/wherry-engine/wherry/hello"
	"github.com/wherry-engine/wherry/image/store"
	"github.com/wherry-engine/wherry/internal/state"
	"github.com/wherry-engine/wherry/internal/version"
	"github.com/wherry-engine/wherry/network"
	"github.com/wherry-engine/wherry/registry/client"
	"github.com/wherry-engine/wherry/snapshot"
	"github.com/wherry-engine/wherry/snapshot/native"
	"github.com/wherry-engine/wherry/snapshot/overlay"
	"github.com/wherry-engine/wherry/task"
	"github.com/wherry-engine/wherry/volume/local"

	apisystem "github.com/moby/moby/api/types/system"
	apivolume "github.com/moby/moby/api/types/volume"
)

// engine is everything that wire made, and what reloading and closing need of it.
type engine struct {
	id    string
	args  []string
	cfg   atomic.Pointer[config.Config]
	level *slog.LevelVar
	log   *slog.Logger

	server   *api.Server
	state    *state.Store
	bus      *bus.Bus
	registry *client.Client
	images   *store.Store
	layers   snapshot.Driver
	volumes  *local.Store
	info     *sysinfo.Source
	// ids are what users of containers are on the host, for as long as the daemon runs.
	ids container.IDMap

	tasks      *helpers.Connection
	networks   network.Networks
	sandboxes  network.Sandboxes
	containers *lifecycle.Engine
	builder    *build.Builder
	// idle is set at shutdown once no container and no helper is left.
	idle bool

	// closers undo what was opened, last first.
	closers []func(context.Context) error
}

// wire constructs every implementation and connects them. It is the only place
// that knows them all.
func wire(ctx context.Context, args []string, cfg *config.Config, level *slog.LevelVar, log *slog.Logger) (_ *engine, err error) {
	e := &engine{args: args, level: level, log: log, bus: bus.New()}
	e.cfg.Store(cfg)
	defer func() {
		if err != nil {
			err = errors.Join(err, e.close(context.WithoutCancel(ctx)))
		}
	}()
	for _, step := range []func(context.Context) error{
		e.wireIDs, e.wireState, e.wireImages, e.wireVolumes, e.wireNetworks, e.wireTasks, e.wireContainers, e.wireBuilder,
	} {
		if err := step(ctx); err != nil {
			return nil, err
		}
	}
	if v := e.minAPIVersion(); route.CompareVersions(v, api.MinVersion) < 0 || route.CompareVersions(v, api.CurrentVersion) > 0 {
		return nil, fmt.Errorf("min-api-version: %q is not between %s and %s", v, api.MinVersion, api.CurrentVersion)
	}
	e.wireInfo()
	e.wireAPI()
	return e, nil
}

func (e *engine) onClose(f func(context.Context) error) { e.closers = append(e.closers, f) }

// close undoes wire, last first. Containers go on.
func (e *engine) close(ctx context.Context) error {
	var errs []error
	for _, f := range slices.Backward(e.closers) {
		errs = append(errs, f(ctx))
	}
	e.closers = nil
	return errors.Join(errs...)
}

func (e *engine) wireState(context.Context) error {
	e.onClose(e.leaveNothing)
	s, err := state.Open(state.Options{Dir: e.cfg.Load().DataRoot, Logger: e.log})
	if err != nil {
		return err
	}
	e.state = s
	e.onClose(func(context.Context) error { return s.Close() })
	e.id, err = engineID(s)
	return err
}

func (e *engine) wireImages(ctx context.Context) error {
	cfg := e.cfg.Load()
	var err error
	if e.registry, err = client.New(e.registryOptions(cfg)); err != nil {
		return fmt.Errorf("registry client: %w", err)
	}
	e.images, err = store.Open(store.Options{
		Root: cfg.DataRoot, SnapshotterName: cfg.StorageDriver, Registry: e.registry, Logger: e.log,
		MaxConcurrentDownloads: cfg.Registry.ConcurrentDownloads,
		MaxConcurrentUploads:   cfg.Registry.ConcurrentUploads,
		MaxDownloadAttempts:    cfg.Registry.DownloadAttempts,
		Builtin:                builtinImages(),
		Events:                 e.bus,
	})
	if err != nil {
		return fmt.Errorf("open image store: %w", err)
	}
	e.onClose(func(context.Context) error { return e.images.Close() })
	if err := e.wireLayers(ctx); err != nil {
		return fmt.Errorf("open layers: %w", err)
	}
	return nil
}

// builtinImages are carried inside the engine and need no registry.
func builtinImages() map[string]func() (io.ReadCloser, error) {
	return map[string]func() (io.ReadCloser, error){"hello": hello.Archive}
}

// wireLayers opens the writable layers in the manner of the image store's driver.
func (e *engine) wireLayers(ctx context.Context) (err error) {
	root := filepath.Join(e.cfg.Load().DataRoot, "layers")
	if e.images.SnapshotterName() == "native" {
		e.layers, err = native.New(ctx, native.Options{
			Root: root, Chains: e.images, Snapshots: e.images.Snapshotter(),
			SnapshotterName: e.images.SnapshotterName(), Namespace: e.images.Namespace(), Logger: e.log,
		})
		return err
	}
	layers, err := overlay.New(overlay.Options{Root: root, Chains: e.images, Logger: e.log})
	if err != nil {
		return err
	}
	e.layers = layers
	e.onClose(layers.Close) // waits for what is being deleted
	return nil
}

func (e *engine) registryOptions(cfg *config.Config) client.Options {
	return client.Options{
		Mirrors: cfg.Registry.Mirrors, Insecure: cfg.Registry.Insecure,
		UserAgent: "wherry/" + version.Version, Logger: e.log,
	}
}

func (e *engine) wireVolumes(context.Context) error {
	var err error
	e.volumes, err = local.Open(local.Options{
		Dir: filepath.Join(e.cfg.Load().DataRoot, "volumes"), State: e.state, Events: e.bus, Logger: e.log,
	})
	return err
}

func (e *engine) wireInfo() {
	e.info = sysinfo.New(sysinfo.Options{
		ID: e.id, Version: version.Version, Commit: version.Commit, BuildTime: version.BuildTime,
		APIVersion: api.CurrentVersion, MinAPIVersion: e.minAPIVersion(),
		Config: e.cfg.Load, RuntimePath: runtimeProgram(),
		SystemdCgroup: e.cfg.Load().SystemdCgroup(),
		Containers:    e.countContainers,
		Storage:       func() (string, [][2]string) { return e.layers.Name(), e.layers.Status() },
		Listeners:     e.bus.Listeners,
		Images: func(ctx context.Context) (int, error) {
			all, err := e.images.List(ctx)
			return len(all), err
		},
		Networks: []string{"bridge", "host", "null"},
		Firewall: e.firewall,
	})
}

// firewall tells which families have rules of ours.
func (e *engine) firewall() *apisystem.FirewallInfo {
	n := &e.cfg.Load().Network
	return &apisystem.FirewallInfo{Driver: "nftables", Info: [][2]string{
		{"IPv4 rules", strconv.FormatBool(n.IPTables)},
		{"IPv6 rules", strconv.FormatBool(n.IP6Tables)},
		{"Foreign drops", n.ForeignRules},
	}}
}

func (e *engine) minAPIVersion() string {
	if v := e.cfg.Load().MinAPIVersion; v != "" {
		return v
	}
	return api.MinVersion
}

func (e *engine) debugging() bool { return e.cfg.Load().Debug }

func (e *engine) wireBuilder(context.Context) error {
	var err error
	e.builder, err = e.newBuilder(func() task.Service { return e.tasks }, e.sandboxes, e.cgroupParent())
	return err
}

func (e *engine) wireAPI() {
	imageGroup := images.New(images.Options{Images: e.images, Search: e.registry, Users: e.imageUsers, Logger: e.log})
	groups := api.Groups{
		Containers:   containers.New(e.containers),
		Images:       imageGroup,
		Distribution: distribution.New(e.registry),
		Networks:     networks.New(e.networks, e.containers).WithEvents(e.bus),
		Build:        apibuild.New(buildBackend{e.builder, e.bus}),
		System: system.New(system.Options{
			Informer: e.info, Events: e.bus, Auth: e.registry, Debug: e.debugging, Logger: e.log,
			BuilderVersion: "2",
			Usage: system.Usage{
				Images:     imageGroup.Usage,
				Containers: e.containerSizes,
				BuildCache: e.builder.DiskUsage,
				Volumes:    func(ctx context.Context) ([]apivolume.Volume, error) { return volumes.WithUsage(ctx, e.volumes) },
			},
		}),
		Volumes: volumes.New(e.volumes, e.bus),
	}
	e.server = api.New(api.Options{
		Routes: api.Routes(groups), Logger: e.log, ServerVersion: version.Version,
		Experimental: e.cfg.Load().Experimental, MinVersion: e.minAPIVersion(),
	})
}
