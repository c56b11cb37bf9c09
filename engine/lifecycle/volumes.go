package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"

	"github.com/containerd/errdefs"
	apievents "github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/mount"
	apivolume "github.com/moby/moby/api/types/volume"

	"github.com/wherry-engine/wherry/container"
	"github.com/wherry-engine/wherry/engine/naming"
	"github.com/wherry-engine/wherry/engine/rootfs"
)

// anonymousLabel marks volumes without a name given by a user, for prune.
const anonymousLabel = "com.docker.volume.anonymous"

// makeVolumes creates and references the volumes of a new container and fills
// those that were never written from its image.
func (e *Engine) makeVolumes(ctx context.Context, spec *container.Spec, done *undo) error {
	for i := range spec.Mounts {
		if m := &spec.Mounts[i]; m.Type == mount.TypeVolume && m.Name == "" {
			m.Name, m.Anonymous = string(naming.NewID()), true
		}
	}
	forget, err := e.records.Intend(spec)
	if err != nil {
		return fmt.Errorf("save what is to be created: %w", err)
	}
	done.add(func(context.Context) error { return forget() })
	for i := range spec.Mounts {
		m := &spec.Mounts[i]
		if m.Type != mount.TypeVolume {
			continue
		}
		if err := e.makeVolume(ctx, spec.ID, m, done); err != nil {
			return err
		}
	}
	return e.populate(ctx, spec)
}

func (e *Engine) makeVolume(ctx context.Context, id container.ID, m *container.Mount, done *undo) error {
	req := apivolume.CreateRequest{Name: m.Name, Driver: m.Driver, Labels: map[string]string{}}
	if m.Anonymous {
		req.Labels[anonymousLabel] = ""
	}
	if m.Request != nil && m.Request.VolumeOptions != nil {
		maps.Copy(req.Labels, m.Request.VolumeOptions.Labels)
		if dc := m.Request.VolumeOptions.DriverConfig; dc != nil {
			req.DriverOpts = dc.Options
		}
	}
	_, err := e.o.Volumes.Get(ctx, req.Name)
	isNew := errdefs.IsNotFound(err)
	vol, err := e.o.Volumes.Create(ctx, req)
	if err != nil {
		return err
	}
	if isNew {
		done.add(func(ctx context.Context) error { return e.o.Volumes.Delete(ctx, vol.Name, true) })
	}
	if err := e.o.Volumes.Reference(ctx, vol.Name, string(id)); err != nil {
		return err
	}
	done.add(func(ctx context.Context) error { return e.o.Volumes.Release(ctx, vol.Name, string(id)) })
	m.Name, m.Driver, m.Source = vol.Name, vol.Driver, vol.Mountpoint
	return nil
}

// populate copies what the image has at the destinations of unwritten volumes.
func (e *Engine) populate(ctx context.Context, spec *container.Spec) error {
	var todo []container.Mount
	for _, m := range spec.Mounts {
		if m.Type != mount.TypeVolume || !m.Copy || m.Subpath != "" {
			continue
		}
		needs, err := e.o.Volumes.NeedsPopulating(ctx, m.Name)
		if err != nil {
			return err
		}
		if needs {
			todo = append(todo, m)
		}
	}
	if len(todo) == 0 {
		return nil
	}
	root, closeRoot, err := e.openRoot(ctx, spec.ID)
	if err != nil {
		return fmt.Errorf("open the image to fill volumes: %w", err)
	}
	defer closeRoot()
	for _, m := range todo {
		if err := e.populateOne(ctx, spec.ID, root, m); err != nil {
			return fmt.Errorf("fill volume %s from %s of the image: %w", m.Name, m.Destination, err)
		}
	}
	return nil
}

func (e *Engine) populateOne(ctx context.Context, id container.ID, root *os.File, m container.Mount) (err error) {
	host, err := e.o.Volumes.Mount(ctx, m.Name, string(id))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.o.Volumes.Unmount(ctx, m.Name, string(id))) }()
	if err := rootfs.CopyTree(root, m.Destination, host); err != nil && !errdefs.IsNotFound(err) {
		return err
	}
	return e.o.Volumes.Populated(ctx, m.Name)
}

// useVolumes mounts the volumes of a container that starts and returns the
// sources of its mounts by destination.
func (e *Engine) useVolumes(ctx context.Context, u *unit, done *undo) (map[string]string, error) {
	spec := u.spec.Load()
	sources := make(map[string]string, len(spec.Mounts))
	for _, m := range spec.Mounts {
		switch m.Type {
		case mount.TypeBind:
			if err := bindSource(m); err != nil {
				return nil, err
			}
			sources[m.Destination] = m.Source
		case mount.TypeVolume:
			host, err := e.o.Volumes.Mount(ctx, m.Name, string(u.id))
			if err != nil {
				return nil, fmt.Errorf("error while mounting volume %s: %w", m.Name, err)
			}
			done.add(func(ctx context.Context) error { return e.o.Volumes.Unmount(ctx, m.Name, string(u.id)) })
			if m.Subpath != "" {
				f, err := openSubpath(host, m.Subpath)
				if err != nil {
					return nil, err
				}
				f.Close() // the runtime opens it again: it may lead elsewhere by then
			}
			sources[m.Destination] = host
			e.o.Events.Publish(apievents.VolumeEventType, apievents.ActionMount, m.Name, map[string]string{
				"driver": m.Driver, "container": string(u.id), "destination": m.Destination,
				"read/write": fmt.Sprint(m.RW), "propagation": string(m.Propagation),
			})
		}
	}
	return sources, nil
}

// bindSource makes the missing source of a -v; a --mount wants it there.
func bindSource(m container.Mount) error {
	if _, err := os.Stat(m.Source); err == nil {
		return nil
	} else if !errors.Is(err, os.ErrNotExist) || !m.CreateSource {
		return invalid("invalid mount config for type \"bind\": bind source path does not exist: %s", m.Source)
	}
	if err := os.MkdirAll(m.Source, 0o755); err != nil {
		return fmt.Errorf("error while creating mount source path '%s': %w", m.Source, err)
	}
	return nil
}

// openSubpath opens a part of a volume: nothing in it may lead out.
func openSubpath(host, sub string) (*os.File, error) {
	f, err := rootfs.OpenIn(host, sub)
	if err != nil {
		return nil, invalid("cannot access path %s in the volume: %v", sub, err)
	}
	return f, nil
}

// holdVolumes makes known, after a start of the daemon, which volumes the
// containers need, and that the running ones have theirs mounted: otherwise a
// prune would take them away.
func (e *Engine) holdVolumes(ctx context.Context) {
	for _, u := range e.index.all() {
		for _, m := range u.spec.Load().Mounts {
			if m.Type != mount.TypeVolume || m.Name == "" {
				continue
			}
			err := e.o.Volumes.Reference(ctx, m.Name, string(u.id))
			if err == nil && u.up() {
				_, err = e.o.Volumes.Mount(ctx, m.Name, string(u.id))
			}
			if err != nil {
				e.log.Error("hold a volume", "container", u.id, "volume", m.Name, "err", err)
			}
		}
	}
}

// leaveVolumes undoes useVolumes after the container ended.
func (e *Engine) leaveVolumes(ctx context.Context, u *unit) error {
	var errs []error
	for _, m := range u.spec.Load().Mounts {
		if m.Type != mount.TypeVolume {
			continue
		}
		errs = append(errs, e.o.Volumes.Unmount(ctx, m.Name, string(u.id)))
		e.o.Events.Publish(apievents.VolumeEventType, apievents.ActionUnmount, m.Name, map[string]string{
			"driver": m.Driver, "container": string(u.id),
		})
	}
	return errors.Join(errs...)
}

// dropVolumes releases the volumes of a removed container and deletes its
// anonymous ones if asked to.
func (e *Engine) dropVolumes(ctx context.Context, spec *container.Spec, anonymous bool) error {
	var errs []error
	for _, m := range spec.Mounts {
		if m.Type != mount.TypeVolume || m.Name == "" {
			continue
		}
		errs = append(errs, e.o.Volumes.Release(ctx, m.Name, string(spec.ID)))
		if !anonymous || !m.Anonymous || len(e.o.Volumes.Users(m.Name)) > 0 {
			continue
		}
		if err := e.o.Volumes.Delete(ctx, m.Name, false); err != nil && !errdefs.IsNotFound(err) && !errdefs.IsFailedPrecondition(err) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
