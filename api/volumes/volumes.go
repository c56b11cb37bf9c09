// Package volumes is the group of endpoints about volumes.
package volumes

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	apievents "github.com/moby/moby/api/types/events"
	apivolume "github.com/moby/moby/api/types/volume"

	"github.com/wherry-engine/wherry/api/route"
	"github.com/wherry-engine/wherry/events"
)

// Backend keeps the volumes; see volume.Store for the classes of its errors.
type Backend interface {
	Create(ctx context.Context, req apivolume.CreateRequest) (apivolume.Volume, error)
	Get(ctx context.Context, name string) (apivolume.Volume, error)
	List(ctx context.Context) ([]apivolume.Volume, error)
	Delete(ctx context.Context, name string, force bool) error
	Users(name string) []string
	Usage(ctx context.Context, name string) (int64, error)
}

// anonymousLabel marks a volume whose name nobody chose.
const anonymousLabel = "com.docker.volume.anonymous"

// Handlers answer the endpoints.
type Handlers struct {
	b      Backend
	events events.Publisher
}

// New returns the group. Both arguments are required.
func New(b Backend, p events.Publisher) Handlers { return Handlers{b, p} }

// List answers GET /volumes.
func (h Handlers) List(w http.ResponseWriter, r *http.Request) error {
	f, err := route.ParseFilters(r, "dangling", "driver", "label", "name")
	if err != nil {
		return err
	}
	dangling, err := f.Bool("dangling", false)
	if err != nil {
		return err
	}
	all, err := h.b.List(r.Context())
	if err != nil {
		return err
	}
	resp := apivolume.ListResponse{Volumes: []apivolume.Volume{}, Warnings: nil}
	for _, v := range all {
		used := len(h.b.Users(v.Name)) > 0
		if f.Has("dangling") && dangling == used ||
			!f.Exact("driver", v.Driver) || !f.Labels("label", v.Labels) ||
			!f.Func("name", func(part string) bool { return strings.Contains(v.Name, part) }) {
			continue
		}
		resp.Volumes = append(resp.Volumes, v)
	}
	return route.JSON(w, http.StatusOK, resp)
}

// Inspect answers GET /volumes/{name}.
func (h Handlers) Inspect(w http.ResponseWriter, r *http.Request) error {
	v, err := h.b.Get(r.Context(), route.Var(r, "name"))
	if err != nil {
		return err
	}
	return route.JSON(w, http.StatusOK, v)
}

// Create answers POST /volumes/create.
func (h Handlers) Create(w http.ResponseWriter, r *http.Request) error {
	var req apivolume.CreateRequest
	if err := route.Decode(r, &req); err != nil {
		return err
	}
	if req.ClusterVolumeSpec != nil {
		return fmt.Errorf("cluster volumes are not supported by this engine yet: %w", errdefs.ErrNotImplemented)
	}
	v, err := h.b.Create(r.Context(), req)
	if err != nil {
		return err
	}
	return route.JSON(w, http.StatusCreated, v)
}

// Update answers PUT /volumes/{name}: only cluster volumes can be updated.
func (h Handlers) Update(_ http.ResponseWriter, r *http.Request) error {
	if _, err := strconv.ParseUint(r.FormValue("version"), 10, 64); err != nil {
		return fmt.Errorf("invalid swarm object version '%s': %v: %w", r.FormValue("version"), errors.Unwrap(err), errdefs.ErrInvalidArgument)
	}
	return fmt.Errorf("volume update of cluster volumes is not supported by this engine yet: %w", errdefs.ErrNotImplemented)
}

// Delete answers DELETE /volumes/{name}.
func (h Handlers) Delete(w http.ResponseWriter, r *http.Request) error {
	if err := h.b.Delete(r.Context(), route.Var(r, "name"), route.Bool(r, "force")); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// Prune answers POST /volumes/prune.
func (h Handlers) Prune(w http.ResponseWriter, r *http.Request) error {
	f, err := route.ParseFilters(r, "label", "label!", "all")
	if err != nil {
		return err
	}
	all, err := f.Bool("all", !route.AtLeast(r, "1.42"))
	if err != nil {
		return err
	}
	volumes, err := h.b.List(r.Context())
	if err != nil {
		return err
	}
	report := apivolume.PruneReport{VolumesDeleted: []string{}}
	for _, v := range volumes {
		_, anonymous := v.Labels[anonymousLabel]
		if !all && !anonymous || !f.Labels("label", v.Labels) || !f.NoLabels("label!", v.Labels) || len(h.b.Users(v.Name)) > 0 {
			continue
		}
		if err := h.pruneOne(r.Context(), v.Name, &report); err != nil {
			return err
		}
	}
	h.events.Publish(apievents.VolumeEventType, apievents.ActionPrune, "", map[string]string{
		"reclaimed": strconv.FormatUint(report.SpaceReclaimed, 10),
	})
	return route.JSON(w, http.StatusOK, report)
}

// pruneOne deletes a volume, unless somebody took it in the meantime.
func (h Handlers) pruneOne(ctx context.Context, name string, report *apivolume.PruneReport) error {
	size, err := h.b.Usage(ctx, name)
	if err == nil {
		err = h.b.Delete(ctx, name, false)
	}
	if errdefs.IsNotFound(err) || errdefs.IsFailedPrecondition(err) {
		return nil
	}
	if err != nil {
		return err
	}
	report.VolumesDeleted = append(report.VolumesDeleted, name)
	report.SpaceReclaimed += uint64(max(size, 0))
	return nil
}

// WithUsage lists all volumes with the space they take, for disk usage.
func WithUsage(ctx context.Context, b Backend) ([]apivolume.Volume, error) {
	all, err := b.List(ctx)
	if err != nil {
		return nil, err
	}
	for i := range all {
		size, err := b.Usage(ctx, all[i].Name)
		if errdefs.IsNotFound(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		all[i].UsageData = &apivolume.UsageData{Size: size, RefCount: int64(len(b.Users(all[i].Name)))}
	}
	return slices.Clip(all), nil
}
