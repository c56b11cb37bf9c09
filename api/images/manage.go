package images

import (
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	apiimage "github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/registry"

	"github.com/wherry-engine/wherry/api/route"
	"github.com/wherry-engine/wherry/image"
)

// Tag answers POST /images/{name}/tag.
func (h Handlers) Tag(w http.ResponseWriter, r *http.Request) error {
	if r.FormValue("repo") == "" {
		return invalid("invalid reference format")
	}
	ref, err := repoTag(r)
	if err != nil {
		return err
	}
	if err := h.o.Images.Tag(r.Context(), route.Var(r, "name"), ref); err != nil {
		return err
	}
	w.WriteHeader(http.StatusCreated)
	return nil
}

// Delete answers DELETE /images/{name}.
func (h Handlers) Delete(w http.ResponseWriter, r *http.Request) error {
	name := route.Var(r, "name")
	if strings.TrimSpace(name) == "" {
		return invalid("image name cannot be blank")
	}
	platforms, err := platformsOf(r, "platforms")
	if err != nil {
		return err
	}
	done, err := h.o.Images.Delete(r.Context(), name, image.DeleteOptions{
		Force: route.Bool(r, "force"), NoPrune: route.Bool(r, "noprune"), Platforms: platforms, InUse: h.users(r.Context()).inUse,
	})
	if err != nil {
		return err
	}
	return route.JSON(w, http.StatusOK, deleted(done))
}

func deleted(list []image.Deleted) []apiimage.DeleteResponse {
	out := make([]apiimage.DeleteResponse, 0, len(list))
	for _, d := range list {
		out = append(out, apiimage.DeleteResponse{Untagged: d.Untagged, Deleted: d.Deleted})
	}
	return out
}

// pruneReport is the answer of Prune.
type pruneReport struct {
	ImagesDeleted  []apiimage.DeleteResponse
	SpaceReclaimed int64
}

// Prune answers POST /images/prune.
func (h Handlers) Prune(w http.ResponseWriter, r *http.Request) error {
	f, err := route.ParseFilters(r, "dangling", "label", "label!", "until")
	if err != nil {
		return err
	}
	opts := image.PruneOptions{InUse: h.users(r.Context()).inUse}
	if opts.DanglingOnly, err = f.Bool("dangling", true); err != nil {
		return err
	}
	if opts.Until, err = f.Until(time.Now()); err != nil {
		return err
	}
	if f.Has("label") || f.Has("label!") {
		opts.Labels = func(l map[string]string) bool { return f.Labels("label", l) && f.NoLabels("label!", l) }
	}
	done, freed, err := h.o.Images.Prune(r.Context(), opts)
	if err != nil {
		return err
	}
	report := pruneReport{SpaceReclaimed: freed}
	if len(done) > 0 {
		report.ImagesDeleted = deleted(done)
	}
	return route.JSON(w, http.StatusOK, report)
}

// Search answers GET /images/search.
func (h Handlers) Search(w http.ResponseWriter, r *http.Request) error {
	if h.o.Search == nil {
		return fmt.Errorf("searching registries is not available: %w", errdefs.ErrNotImplemented)
	}
	f, err := route.ParseFilters(r, "is-automated", "is-official", "stars")
	if err != nil {
		return err
	}
	limit, err := route.Int(r, "limit", 0)
	if err != nil {
		return err
	}
	auth, err := authOf(r)
	if err != nil {
		return err
	}
	keep, err := searchFilter(f)
	if err != nil {
		return err
	}
	list, err := h.o.Search.Search(r.Context(), r.FormValue("term"), int(limit), auth)
	if err != nil {
		return err
	}
	out := []registry.SearchResult{}
	for _, s := range list {
		if keep(s) {
			out = append(out, s)
		}
	}
	return route.JSON(w, http.StatusOK, out)
}

func searchFilter(f route.Filters) (func(registry.SearchResult) bool, error) {
	official, err := f.Bool("is-official", false)
	if err != nil {
		return nil, err
	}
	automated, err := f.Bool("is-automated", false)
	if err != nil {
		return nil, err
	}
	stars := 0
	for _, s := range f["stars"] {
		var n int
		if _, err := fmt.Sscanf(s, "%d", &n); err != nil {
			return nil, invalid("invalid filter 'stars=%s'", s)
		}
		stars = max(stars, n)
	}
	return func(s registry.SearchResult) bool {
		return (!f.Has("is-official") || s.IsOfficial == official) && (!f.Has("is-automated") || !automated) && s.StarCount >= stars
	}, nil
}
