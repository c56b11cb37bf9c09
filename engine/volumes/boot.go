package volumes

import (
	"context"
	"errors"
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/mount"

	"github.com/wherry-engine/wherry/container"
)

// Hold makes known, after a start of the daemon, which volumes a container
// needs, and that one that runs has them mounted: otherwise a prune would take
// them away.
func (v *Volumes) Hold(ctx context.Context, spec *container.Spec, up bool) error {
	var errs []error
	for _, m := range spec.Mounts {
		if m.Type != mount.TypeVolume || m.Name == "" {
			continue
		}
		err := v.Store.Reference(ctx, m.Name, string(spec.ID))
		if err == nil && up {
			_, err = v.Store.Mount(ctx, m.Name, string(spec.ID))
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("hold volume %s: %w", m.Name, err))
		}
	}
	return errors.Join(errs...)
}

// Collect gives back what belongs to containers that are no more, and what
// creations made that were interrupted.
func (v *Volumes) Collect(ctx context.Context, exists func(container.ID) bool) error {
	errs := []error{v.undoCreations(ctx, exists)}
	vols, err := v.Store.List(ctx)
	if err != nil {
		return errors.Join(append(errs, err)...)
	}
	for _, vol := range vols {
		orphan := false
		for _, id := range v.Store.Users(vol.Name) {
			if !exists(container.ID(id)) {
				orphan = true
				errs = append(errs, v.Store.Unmount(ctx, vol.Name, id), v.Store.Release(ctx, vol.Name, id))
			}
		}
		_, anonymous := vol.Labels[anonymousLabel]
		if orphan && anonymous && len(v.Store.Users(vol.Name)) == 0 {
			errs = append(errs, v.Store.Delete(ctx, vol.Name, false))
		}
	}
	return errors.Join(errs...)
}

// undoCreations deletes the volumes of creations that were interrupted.
func (v *Volumes) undoCreations(ctx context.Context, exists func(container.ID) bool) error {
	intents, err := v.Records.Intents()
	errs := []error{err}
	for id, names := range intents {
		if !exists(id) {
			for _, name := range names {
				err := errors.Join(v.Store.Release(ctx, name, string(id)), v.Store.Delete(ctx, name, false))
				if err != nil && !errdefs.IsNotFound(err) {
					errs = append(errs, err)
				}
			}
		}
		errs = append(errs, v.Records.Settle(id))
	}
	return errors.Join(errs...)
}
