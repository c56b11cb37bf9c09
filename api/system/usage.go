package system

import (
	"context"
	"fmt"
	"net/http"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/build"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/system"
	"github.com/moby/moby/api/types/volume"

	"github.com/wherry-engine/wherry/api/route"
)

// Usage finds out what takes space. A nil function means that there is nothing
// of the kind.
type Usage struct {
	// Images lists all images with their shared sizes and container counts, and
	// the bytes of all layers together, each counted once.
	Images func(ctx context.Context) (images []image.Summary, layers int64, err error)
	// Containers lists all containers with their sizes.
	Containers func(ctx context.Context) ([]container.Summary, error)
	// Volumes lists all volumes with their usage data.
	Volumes func(ctx context.Context) ([]volume.Volume, error)
	// BuildCache lists the records of the build cache.
	BuildCache func(ctx context.Context) ([]build.CacheRecord, error)
}

// usage is the answer of GET /system/df in all its shapes.
type usage struct {
	system.DiskUsage
	*legacyUsage
}

// legacyUsage is what versions before 1.53 send.
type legacyUsage struct {
	LayersSize int64
	Images     []image.Summary
	Containers []container.Summary
	Volumes    []volume.Volume
	BuildCache []build.CacheRecord
}

// DataUsage answers GET /system/df.
func (h Handlers) DataUsage(w http.ResponseWriter, r *http.Request) error {
	wants, err := wantedTypes(r)
	if err != nil {
		return err
	}
	verbose := route.Bool(r, "verbose")
	isNew, isOld := route.AtLeast(r, "1.52"), !route.AtLeast(r, "1.53") && !verbose
	var u usage
	legacy := &legacyUsage{}
	if err := h.measure(r.Context(), wants, verbose, &u.DiskUsage, legacy); err != nil {
		return err
	}
	if !isNew {
		return route.JSON(w, http.StatusOK, legacy)
	}
	if isOld {
		u.legacyUsage = legacy
	}
	return route.JSON(w, http.StatusOK, u)
}

func wantedTypes(r *http.Request) (func(system.DiskUsageObject) bool, error) {
	if err := route.Form(r); err != nil {
		return nil, err
	}
	types := r.Form["type"]
	known := []system.DiskUsageObject{system.ContainerObject, system.ImageObject, system.VolumeObject, system.BuildCacheObject}
	for _, t := range types {
		if !slices.Contains(known, system.DiskUsageObject(t)) {
			return nil, fmt.Errorf("unknown object type: %s: %w", t, errdefs.ErrInvalidArgument)
		}
	}
	return func(o system.DiskUsageObject) bool {
		return len(types) == 0 || slices.Contains(types, string(o))
	}, nil
}

func (h Handlers) measure(ctx context.Context, wants func(system.DiskUsageObject) bool, verbose bool, u *system.DiskUsage, l *legacyUsage) error {
	if wants(system.ImageObject) && h.o.Usage.Images != nil {
		images, layers, err := h.o.Usage.Images(ctx)
		if err != nil {
			return err
		}
		l.Images, l.LayersSize = append([]image.Summary{}, images...), layers
		u.ImageUsage = imageUsage(images, layers, verbose)
	}
	if wants(system.ContainerObject) && h.o.Usage.Containers != nil {
		containers, err := h.o.Usage.Containers(ctx)
		if err != nil {
			return err
		}
		l.Containers = append([]container.Summary{}, containers...)
		u.ContainerUsage = containerUsage(containers, verbose)
	}
	if wants(system.VolumeObject) && h.o.Usage.Volumes != nil {
		volumes, err := h.o.Usage.Volumes(ctx)
		if err != nil {
			return err
		}
		l.Volumes = append([]volume.Volume{}, volumes...)
		u.VolumeUsage = volumeUsage(volumes, verbose)
	}
	if wants(system.BuildCacheObject) && h.o.Usage.BuildCache != nil {
		records, err := h.o.Usage.BuildCache(ctx)
		if err != nil {
			return err
		}
		l.BuildCache = append([]build.CacheRecord{}, records...)
		u.BuildCacheUsage = cacheUsage(records, verbose)
	}
	return nil
}

func imageUsage(images []image.Summary, layers int64, verbose bool) *image.DiskUsage {
	u := &image.DiskUsage{TotalCount: int64(len(images)), TotalSize: layers, Reclaimable: layers}
	for _, img := range images {
		if img.Containers > 0 {
			u.ActiveCount++
			u.Reclaimable -= img.Size - max(img.SharedSize, 0)
		}
	}
	u.Reclaimable = max(u.Reclaimable, 0)
	if u.ActiveCount == u.TotalCount {
		u.Reclaimable = 0
	}
	if verbose {
		u.Items = images
	}
	return u
}

func containerUsage(containers []container.Summary, verbose bool) *container.DiskUsage {
	u := &container.DiskUsage{TotalCount: int64(len(containers))}
	for _, c := range containers {
		u.TotalSize += c.SizeRw
		switch c.State {
		case container.StateRunning, container.StatePaused, container.StateRestarting:
			u.ActiveCount++
		default:
			u.Reclaimable += c.SizeRw
		}
	}
	if verbose {
		u.Items = containers
	}
	return u
}

func volumeUsage(volumes []volume.Volume, verbose bool) *volume.DiskUsage {
	u := &volume.DiskUsage{TotalCount: int64(len(volumes))}
	for _, v := range volumes {
		if v.UsageData == nil {
			continue
		}
		size := max(v.UsageData.Size, 0)
		u.TotalSize += size
		if v.UsageData.RefCount > 0 {
			u.ActiveCount++
		} else {
			u.Reclaimable += size
		}
	}
	if verbose {
		u.Items = volumes
	}
	return u
}

func cacheUsage(records []build.CacheRecord, verbose bool) *build.DiskUsage {
	u := &build.DiskUsage{TotalCount: int64(len(records))}
	for _, r := range records {
		if r.InUse {
			u.ActiveCount++
		}
		if r.Shared {
			continue
		}
		u.TotalSize += r.Size
		if !r.InUse {
			u.Reclaimable += r.Size
		}
	}
	if verbose {
		u.Items = records
	}
	return u
}
