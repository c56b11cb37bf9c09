package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/containerd/errdefs"
	apicontainer "github.com/moby/moby/api/types/container"
	"github.com/opencontainers/go-digest"

	"github.com/wherry-engine/wherry/api/images"
	"github.com/wherry-engine/wherry/container"
	"github.com/wherry-engine/wherry/daemon/apparmor"
	"github.com/wherry-engine/wherry/daemon/config"
	"github.com/wherry-engine/wherry/daemon/helpers"
	"github.com/wherry-engine/wherry/daemon/subid"
	"github.com/wherry-engine/wherry/daemon/sysinfo"
	"github.com/wherry-engine/wherry/engine/defaults"
	"github.com/wherry-engine/wherry/engine/lifecycle"
	"github.com/wherry-engine/wherry/logs"
	logdriver "github.com/wherry-engine/wherry/logs/driver"
	"github.com/wherry-engine/wherry/task"
	"github.com/wherry-engine/wherry/task/remote"
	"github.com/wherry-engine/wherry/task/scope"
)

// shutdownLimit is how long a shutdown waits for the helpers to end.
const shutdownLimit = 10 * time.Second

// upgradeTries bounds how often helpers are asked to become another build that
// were gone before they answered.
const upgradeTries = 3

func (e *engine) wireTasks(context.Context) error {
	cfg := e.cfg.Load()
	opts := remote.Options{
		Runtime: runtimeProgram(), ExecRoot: cfg.ExecRoot, DataRoot: cfg.DataRoot, Logger: e.log,
		Scope: scope.Mover("wherry-helpers"),
	}
	e.tasks = helpers.New(func(ctx context.Context) (helpers.Client, error) {
		for try := 1; ; try++ {
			c, err := remote.Ensure(ctx, opts)
			if err != nil {
				return nil, err
			}
			if c, err = c.Upgrade(ctx, opts); err == nil {
				return c, nil
			}
			if try == upgradeTries || !errdefs.IsUnavailable(err) {
				return nil, err
			}
		}
	})
	e.onClose(func(context.Context) error { return e.tasks.Close() })
	e.onClose(func(ctx context.Context) error { return e.endHelpers(ctx, opts) })
	return nil
}

// endHelpers ends the helpers when no container needs them; otherwise they go on.
func (e *engine) endHelpers(ctx context.Context, opts remote.Options) error {
	ctx, cancel := context.WithTimeout(ctx, shutdownLimit)
	defer cancel()
	err := e.tasks.Shutdown(ctx)
	if errdefs.IsFailedPrecondition(err) && e.containers != nil {
		err = e.shutdownAgain(ctx, opts) // perhaps nobody needs the task that it has
	}
	for try := 0; errdefs.IsUnavailable(err) && try < 3 && e.containers != nil; try++ {
		// The supervisor died just now and another takes its place.
		err = e.shutdownAgain(ctx, opts)
	}
	switch {
	case errdefs.IsFailedPrecondition(err):
		e.log.Info("containers go on without the daemon")
		return nil
	case errdefs.IsUnavailable(err):
		return nil // they were never reached
	case err != nil:
		return fmt.Errorf("end helpers: %w", err)
	}
	e.idle = true
	return nil
}

// shutdownAgain ends helpers over a connection of its own. A task without a
// container, whose removal was under way when the daemon was told to end, is no
// reason for them to stay.
func (e *engine) shutdownAgain(ctx context.Context, opts remote.Options) error {
	c, err := remote.Ensure(ctx, opts)
	if err != nil {
		return err
	}
	defer c.Close()
	inv, err := c.Hello(ctx)
	if err != nil {
		return err
	}
	e.containers.DeleteStrays(ctx, c, inv)
	return c.Shutdown(ctx)
}

// wireIDs comes first: without the users asked for there is nothing to set up.
func (e *engine) wireIDs(context.Context) (err error) {
	if remap := e.cfg.Load().Containers.UsernsRemap; remap != "" {
		e.ids, err = (subid.Files{}).Resolve(remap)
	}
	return err
}

func (e *engine) wireContainers(ctx context.Context) error {
	d, err := e.containerDefaults(e.cfg.Load())
	if err != nil {
		return err
	}
	e.containers, err = lifecycle.New(lifecycle.Options{
		DataRoot: e.cfg.Load().DataRoot, ExecRoot: e.cfg.Load().ExecRoot, State: e.state, Tasks: e.tasks,
		Images: e.images, Transfer: e.images, Layers: e.layers,
		Networks: e.networks, Sandboxes: e.sandboxes, Volumes: e.volumes,
		Events: e.bus, Logger: e.log, Defaults: d,
		LogReader: func(driver, path string, options map[string]string) (logs.Reader, error) {
			return logdriver.NewReader(logdriver.Config{Driver: driver, Path: path, Options: options})
		},
	})
	if err != nil {
		return err
	}
	if err := e.containers.Boot(ctx); err != nil {
		return errors.Join(err, e.containers.Close())
	}
	e.volumes.Settle()
	e.follow(ctx)
	e.onClose(e.stopContainers)
	return nil
}

// follow runs the engine's event loop until the daemon closes.
func (e *engine) follow(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := e.containers.Run(ctx); err != nil && !errors.Is(err, context.Canceled) {
			e.log.Error("follow containers", "err", err)
		}
	}()
	e.onClose(func(context.Context) error {
		cancel()
		<-done
		return e.containers.Close()
	})
}

// stopContainers runs at shutdown; containers are stopped only if live-restore
// was switched off by name.
func (e *engine) stopContainers(ctx context.Context) error {
	cfg := e.cfg.Load()
	if cfg.LiveRestore == nil || *cfg.LiveRestore {
		return nil
	}
	if cfg.ShutdownTimeout >= 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(cfg.ShutdownTimeout)*time.Second+shutdownLimit)
		defer cancel()
	}
	return e.containers.Shutdown(ctx)
}

// containerDefaults translates the configuration.
func (e *engine) containerDefaults(cfg *config.Config) (defaults.Containers, error) {
	c := &cfg.Containers
	d := defaults.Containers{
		LogDriver: c.LogDriver, LogOptions: c.LogOpts, Ulimits: c.Ulimits,
		CgroupParent: c.CgroupParent, SystemdCgroup: cfg.SystemdCgroup(),
		CgroupnsMode: apicontainer.CgroupnsMode(c.CgroupNSMode), IpcMode: apicontainer.IpcMode(c.IPCMode),
		ShmSize: c.ShmSize, Init: c.Init, Runtimes: map[string]*task.Runtime{}, DefaultRuntime: cfg.DefaultRun,
		DNS: cfg.Network.DNS, DNSSearch: cfg.Network.DNSSearch, DNSOptions: cfg.Network.DNSOpts,
		HostGateway: c.HostGatewayIPs, NoNewPrivileges: c.NoNewPrivileges, ShutdownTimeout: max(cfg.ShutdownTimeout, 0),
		IDs: e.ids,
	}
	if apparmor.Supported() {
		d.AppArmor, d.LoadAppArmor = apparmor.Default, apparmor.Ensure
	} else if lack := apparmor.Lack(); lack != "" {
		e.log.Warn("the kernel has AppArmor, but containers are not confined by it", "lack", lack)
	}
	for name, r := range cfg.Runtimes {
		d.Runtimes[name] = nil
		if path, args := r.Command(); path != "" {
			d.Runtimes[name] = &task.Runtime{Path: path, Args: args}
		}
	}
	switch c.SeccompProfile {
	case "", "builtin":
	case "unconfined":
		d.Seccomp = "unconfined"
	default:
		profile, err := os.ReadFile(c.SeccompProfile)
		if err != nil {
			return d, fmt.Errorf("opening seccomp profile failed: %w", err)
		}
		d.Seccomp = string(profile)
	}
	return d, nil
}

// imageUsers tells the image endpoints which containers need images.
func (e *engine) imageUsers(ctx context.Context) []images.User {
	all, err := e.containers.List(ctx, container.ListRequest{All: true})
	if err != nil {
		e.log.Error("list the users of images", "err", err)
		return nil
	}
	users := make([]images.User, 0, len(all))
	for _, c := range all {
		u := images.User{ID: c.ID, Image: digest.Digest(c.ImageID), Running: c.State == apicontainer.StateRunning || c.State == apicontainer.StatePaused}
		if c.ImageManifestDescriptor != nil {
			u.Manifest = c.ImageManifestDescriptor.Digest
		}
		users = append(users, u)
	}
	return users
}

func (e *engine) countContainers(context.Context) (sysinfo.Counts, error) {
	running, paused, stopped := e.containers.Counts()
	return sysinfo.Counts{All: running + paused + stopped, Running: running, Paused: paused, Stopped: stopped}, nil
}

// containerSizes lists all containers with their sizes, for disk usage.
func (e *engine) containerSizes(ctx context.Context) ([]apicontainer.Summary, error) {
	return e.containers.List(ctx, container.ListRequest{All: true, Size: true})
}
