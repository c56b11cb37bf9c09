package main

import (
	"context"
	"fmt"
	"strings"

	apievents "github.com/moby/moby/api/types/events"

	"github.com/wherry-engine/wherry/daemon/config"
)

// reload reads the configuration again and applies what may change while the
// daemon runs. A file with a mistake changes nothing.
func (e *engine) reload(context.Context) error {
	fresh, err := config.Load(e.args)
	if err != nil {
		return err
	}
	old := e.cfg.Load()
	next, changed, fixed := config.Merge(old, fresh)
	if len(fixed) > 0 {
		e.log.Warn("changes that need a restart were not applied", "options", strings.Join(fixed, ", "))
	}
	if err := e.registry.Reload(e.registryOptions(next)); err != nil {
		return fmt.Errorf("registries: %w", err)
	}
	d, err := e.containerDefaults(next)
	if err != nil {
		return err
	}
	e.containers.SetDefaults(d)
	e.images.SetLimits(next.Registry.ConcurrentDownloads, next.Registry.ConcurrentUploads, next.Registry.DownloadAttempts)
	e.cfg.Store(next)
	e.level.Set(logLevel(next))
	e.log.Info("configuration reloaded", "changed", strings.Join(changed, ", "))
	attrs := config.Reloadable(next)
	attrs["name"] = e.info.Host().Name
	e.bus.Publish(apievents.DaemonEventType, apievents.ActionReload, e.id, attrs)
	return nil
}
