// Package volumes makes, fills, mounts and gives back the volumes of containers
// as these come, start, end and go.
package volumes

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
	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/container"
	"github.com/wherry-engine/wherry/engine/mounts"
	"github.com/wherry-engine/wherry/engine/naming"
	"github.com/wherry-engine/wherry/engine/records"
	"github.com/wherry-engine/wherry/engine/rootfs"
	"github.com/wherry-engine/wherry/engine/undo"
	"github.com/wherry-engine/wherry/events"
	"github.com/wherry-engine/wherry/volume"
)

// anonymousLabel marks volumes without a name given by a user, for prune.
const anonymousLabel = "com.docker.volume.anonymous"

// Volumes are those of all containers.
type Volumes struct {
	Store   volume.Store
	Events  events.Publisher
	Records records.Records
	// Root opens the root file system of a container that was never started.
	Root func(context.Context, *container.Spec) (root rootfs.Root, closeRoot func(), err error)
}

func invalid(format string, args ...any) error {
	return errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf(format, args...))
}

// Make creates and references the volumes of a new container and fills
// those that were never written from its image.
func (v *Volumes) Make(ctx context.Context, spec *container.Spec, done *undo.List) error {
	for i := range spec.Mounts {
		if m := &spec.Mounts[i]; m.Type == mount.TypeVolume && m.Name == "" {
			m.Name, m.Anonymous = string(naming.NewID()), true
		}
	}
	forget, err := v.Records.Intend(spec)
	if err != nil {
		return fmt.Errorf("save what is to be created: %w", err)
	}
	done.Add(func(context.Context) error { return forget() })
	for i := range spec.Mounts {
		m := &spec.Mounts[i]
		if m.Type != mount.TypeVolume {
			continue
		}
		if err := v.makeOne(ctx, spec.ID, m, done); err != nil {
			return err
		}
	}
	return v.populate(ctx, spec)
}

func (v *Volumes) makeOne(ctx context.Context, id container.ID, m *container.Mount, done *undo.List) error {
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
	_, err := v.Store.Get(ctx, req.Name)
	isNew := errdefs.IsNotFound(err)
	vol, err := v.Store.Create(ctx, req)
	if err != nil {
		return err
	}
	if isNew {
		done.Add(func(ctx context.Context) error { return v.Store.Delete(ctx, vol.Name, true) })
	}
	if err := v.Store.Reference(ctx, vol.Name, string(id)); err != nil {
		return err
	}
	done.Add(func(ctx context.Context) error { return v.Store.Release(ctx, vol.Name, string(id)) })
	m.Name, m.Driver, m.Source = vol.Name, vol.Driver, vol.Mountpoint
	return nil
}

// populate copies what the image has at the destinations of unwritten volumes.
func (v *Volumes) populate(ctx context.Context, spec *container.Spec) error {
	var todo []container.Mount
	for _, m := range spec.Mounts {
		if m.Type != mount.TypeVolume || !m.Copy || m.Subpath != "" {
			continue
		}
		needs, err := v.Store.NeedsPopulating(ctx, m.Name)
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
	root, closeRoot, err := v.Root(ctx, spec)
	if err != nil {
		return fmt.Errorf("open the image to fill volumes: %w", err)
	}
	defer closeRoot()
	for _, m := range todo {
		if err := v.populateOne(ctx, spec.ID, root, m); err != nil {
			return fmt.Errorf("fill volume %s from %s of the image: %w", m.Name, m.Destination, err)
		}
	}
	return nil
}

func (v *Volumes) populateOne(ctx context.Context, id container.ID, root rootfs.Root, m container.Mount) (err error) {
	host, err := v.Store.Mount(ctx, m.Name, string(id))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, v.Store.Unmount(ctx, m.Name, string(id))) }()
	if err := rootfs.CopyTree(root, m.Destination, host); err != nil && !errdefs.IsNotFound(err) {
		return err
	}
	return v.Store.Populated(ctx, m.Name)
}

// Use mounts the volumes of a container that starts and returns the
// sources of its mounts by destination.
func (v *Volumes) Use(ctx context.Context, spec *container.Spec, done *undo.List) (map[string]mounts.Source, error) {
	sources := make(map[string]mounts.Source, len(spec.Mounts))
	for _, m := range spec.Mounts {
		switch m.Type {
		case mount.TypeBind:
			if err := bindSource(m); err != nil {
				return nil, err
			}
			sources[m.Destination] = mounts.Source{Path: m.Source}
		case mount.TypeVolume:
			host, err := v.Store.Mount(ctx, m.Name, string(spec.ID))
			if err != nil {
				return nil, fmt.Errorf("error while mounting volume %s: %w", m.Name, err)
			}
			done.Add(func(ctx context.Context) error { return v.Store.Unmount(ctx, m.Name, string(spec.ID)) })
			if m.Subpath != "" {
				f, err := openSubpath(host, m.Subpath)
				if err != nil {
					return nil, err
				}
				f.Close() // the runtime opens it again: it may lead elsewhere by then
			}
			ours, err := v.ours(ctx, m.Name)
			if err != nil {
				return nil, err
			}
			sources[m.Destination] = mounts.Source{Path: host, Ours: ours}
			v.Events.Publish(apievents.VolumeEventType, apievents.ActionMount, m.Name, map[string]string{
				"driver": m.Driver, "container": string(spec.ID), "destination": m.Destination,
				"read/write": fmt.Sprint(m.RW), "propagation": string(m.Propagation),
			})
		}
	}
	return sources, nil
}

// ours tells whether a volume is a directory of the engine's, and not a file system
// that its options name.
func (v *Volumes) ours(ctx context.Context, name string) (bool, error) {
	vol, err := v.Store.Get(ctx, name)
	if err != nil {
		return false, err
	}
	return len(vol.Options) == 0, nil
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

// Leave undoes Use after the container ended.
func (v *Volumes) Leave(ctx context.Context, spec *container.Spec) error {
	var errs []error
	for _, m := range spec.Mounts {
		if m.Type != mount.TypeVolume {
			continue
		}
		errs = append(errs, v.Store.Unmount(ctx, m.Name, string(spec.ID)))
		v.Events.Publish(apievents.VolumeEventType, apievents.ActionUnmount, m.Name, map[string]string{
			"driver": m.Driver, "container": string(spec.ID),
		})
	}
	return errors.Join(errs...)
}

// Drop releases the volumes of a removed container and deletes its
// anonymous ones if asked to.
func (v *Volumes) Drop(ctx context.Context, spec *container.Spec, anonymous bool) error {
	var errs []error
	for _, m := range spec.Mounts {
		if m.Type != mount.TypeVolume || m.Name == "" {
			continue
		}
		errs = append(errs, v.Store.Release(ctx, m.Name, string(spec.ID)))
		if !anonymous || !m.Anonymous || len(v.Store.Users(m.Name)) > 0 {
			continue
		}
		if err := v.Store.Delete(ctx, m.Name, false); err != nil && !errdefs.IsNotFound(err) && !errdefs.IsFailedPrecondition(err) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Open opens the volume or the bind of a container, which need not run; nil if
// the source of a bind is gone.
func (v *Volumes) Open(ctx context.Context, id container.ID, m container.Mount, done *undo.List) (*os.File, error) {
	if m.Type == mount.TypeVolume {
		user := string(id) + "-cp"
		host, err := v.Store.Mount(ctx, m.Name, user)
		if err != nil {
			return nil, err
		}
		done.Add(func(ctx context.Context) error { return v.Store.Unmount(ctx, m.Name, user) })
		if m.Subpath != "" {
			return openSubpath(host, m.Subpath)
		}
		return os.OpenFile(host, unix.O_PATH|unix.O_CLOEXEC, 0)
	}
	f, err := os.OpenFile(m.Source, unix.O_PATH|unix.O_CLOEXEC, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	return f, err
}
