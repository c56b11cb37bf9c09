package images

import (
	"cmp"
	"context"
	"net/http"
	"path"
	"slices"
	"time"

	"github.com/containerd/errdefs"
	apiimage "github.com/moby/moby/api/types/image"
	"github.com/opencontainers/go-digest"

	"github.com/wherry-engine/wherry/api/route"
	"github.com/wherry-engine/wherry/image"
	"github.com/wherry-engine/wherry/ociref"
)

// summary is a list entry with the fields of older versions.
type summary struct {
	apiimage.Summary
	VirtualSize *int64 `json:"VirtualSize,omitempty"`
}

// List answers GET /images/json.
func (h Handlers) List(w http.ResponseWriter, r *http.Request) error {
	f, err := route.ParseFilters(r, "dangling", "label", "label!", "before", "since", "reference", "until")
	if err != nil {
		return err
	}
	if old := r.FormValue("filter"); old != "" && !route.AtLeast(r, "1.41") {
		f["reference"] = append(f["reference"], old)
	}
	list, err := h.o.Images.List(r.Context())
	if err != nil {
		return err
	}
	keep, err := h.filter(r.Context(), f)
	if err != nil {
		return err
	}
	list = selectImages(list, keep)
	slices.SortStableFunc(list, func(a, b image.Image) int { return cmp.Compare(b.Created.Unix(), a.Created.Unix()) })
	return h.writeList(w, r, list)
}

// selectImages keeps the images that pass; keep may change them.
func selectImages(list []image.Image, keep func(*image.Image) bool) []image.Image {
	out := list[:0]
	for _, img := range list {
		if keep(&img) {
			out = append(out, img)
		}
	}
	return out
}

func (h Handlers) writeList(w http.ResponseWriter, r *http.Request, list []image.Image) error {
	var shared map[digest.Digest]int64
	if route.Bool(r, "shared-size") {
		var err error
		if shared, err = h.o.Images.Shared(r.Context()); err != nil {
			return err
		}
	}
	used := h.users(r.Context())
	out := make([]summary, 0, len(list))
	for i := range list {
		s, err := h.summarize(r, &list[i], shared, used)
		if err != nil {
			return err
		}
		out = append(out, s)
	}
	return route.JSON(w, http.StatusOK, out)
}

func (h Handlers) summarize(r *http.Request, img *image.Image, shared map[digest.Digest]int64, used users) (summary, error) {
	s := summary{Summary: basic(img)}
	d, err := h.o.Images.Details(r.Context(), *img)
	if err != nil && !errdefs.IsNotFound(err) {
		return s, err
	}
	s.ParentID = d.ParentID.String()
	if shared != nil {
		s.SharedSize = shared[img.ID]
	}
	if !route.AtLeast(r, "1.44") {
		s.VirtualSize = &img.Size
	}
	if !route.AtLeast(r, "1.43") && len(s.RepoTags) == 0 && len(s.RepoDigests) == 0 {
		s.RepoTags, s.RepoDigests = []string{"<none>:<none>"}, []string{"<none>@<none>"}
	}
	if route.AtLeast(r, "1.48") {
		s.Descriptor = &img.Target
	}
	if route.Bool(r, "manifests") && route.AtLeast(r, "1.47") {
		s.Manifests = manifestSummaries(d.Manifests, used)
		s.Containers = int64(len(used.of(digests(img, d)...)))
	}
	return s, nil
}

func digests(img *image.Image, d image.Details) []digest.Digest {
	ds := []digest.Digest{img.ID, img.ConfigDigest}
	for _, m := range d.Manifests {
		ds = append(ds, m.Desc.Digest)
		if m.Config != "" {
			ds = append(ds, m.Config)
		}
	}
	return ds
}

func basic(img *image.Image) apiimage.Summary {
	s := apiimage.Summary{
		ID: img.ID.String(), Containers: -1, SharedSize: -1, Size: img.Size, Labels: img.Config.Config.Labels,
		RepoTags: orEmpty(img.RepoTags), RepoDigests: orEmpty(img.RepoDigests),
	}
	if !img.Created.IsZero() {
		s.Created = img.Created.Unix()
	}
	return s
}

func orEmpty(s []string) []string {
	if s == nil {
		return []string{}
	}
	return s
}

func manifestSummaries(list []image.Manifest, used users) []apiimage.ManifestSummary {
	out := make([]apiimage.ManifestSummary, 0, len(list))
	for _, m := range list {
		s := apiimage.ManifestSummary{ID: m.Desc.Digest.String(), Descriptor: m.Desc, Available: m.Available, Kind: apiimage.ManifestKindImage}
		s.Size.Content, s.Size.Total = m.Content, m.Content+m.Unpacked
		if m.Attestation {
			s.Kind = apiimage.ManifestKindAttestation
			s.AttestationData = &apiimage.AttestationProperties{For: m.For}
			out = append(out, s)
			continue
		}
		p := &apiimage.ImageProperties{Platform: m.Platform, Containers: []string{}}
		p.Size.Unpacked = m.Unpacked
		ds := []digest.Digest{m.Desc.Digest}
		if m.Config != "" {
			ds = append(ds, m.Config)
		}
		for _, u := range used.of(ds...) {
			p.Containers = append(p.Containers, u.ID)
		}
		s.ImageData = p
		out = append(out, s)
	}
	return out
}

// filter builds the test that list entries must pass; it trims names that a
// reference filter does not select.
func (h Handlers) filter(ctx context.Context, f route.Filters) (func(*image.Image) bool, error) {
	dangling, err := f.Bool("dangling", false)
	if err != nil {
		return nil, err
	}
	until, err := f.Until(time.Now())
	if err != nil {
		return nil, err
	}
	before, since, err := h.bounds(ctx, f)
	if err != nil {
		return nil, err
	}
	for _, p := range f["reference"] {
		if _, err := path.Match(p, ""); err != nil {
			return nil, invalid("invalid filter 'reference=%s'", p)
		}
	}
	return func(img *image.Image) bool {
		labels := img.Config.Config.Labels
		switch {
		case f.Has("dangling") && img.Dangling != dangling:
		case !until.IsZero() && img.Created.After(until):
		case !before.IsZero() && !img.Created.Before(before):
		case !since.IsZero() && !img.Created.After(since):
		case !f.Labels("label", labels) || !f.NoLabels("label!", labels):
		case f.Has("reference") && !matchReference(img, f["reference"]):
		default:
			return true
		}
		return false
	}, nil
}

func (h Handlers) bounds(ctx context.Context, f route.Filters) (before, since time.Time, err error) {
	for _, b := range []struct {
		name string
		at   *time.Time
	}{{"before", &before}, {"since", &since}} {
		for _, ref := range f[b.name] {
			img, err := h.o.Images.Resolve(ctx, ref, nil)
			if err != nil {
				return before, since, err
			}
			*b.at = img.Created
		}
	}
	return before, since, nil
}

// matchReference keeps the names that a pattern selects and reports whether any is left.
func matchReference(img *image.Image, patterns []string) bool {
	keep := func(names []string) []string {
		return slices.DeleteFunc(slices.Clone(names), func(n string) bool {
			return !slices.ContainsFunc(patterns, func(p string) bool { return matchName(p, n) })
		})
	}
	img.RepoTags, img.RepoDigests = keep(img.RepoTags), keep(img.RepoDigests)
	return len(img.RepoTags)+len(img.RepoDigests) > 0
}

// matchName compares a glob with the forms of a name: familiar with and
// without tag, and canonical.
func matchName(pattern, name string) bool {
	ref, err := ociref.Parse(name)
	if err != nil {
		return false
	}
	for _, form := range []string{ref.Familiar(), ref.FamiliarName(), ref.String(), ref.Name()} {
		if ok, err := path.Match(pattern, form); ok && err == nil {
			return true
		}
	}
	return false
}

// Usage lists all images with shared sizes and container counts, and the bytes
// they take together.
func (h Handlers) Usage(ctx context.Context) ([]apiimage.Summary, int64, error) {
	list, err := h.o.Images.List(ctx)
	if err != nil {
		return nil, 0, err
	}
	u, err := h.o.Images.DiskUsage(ctx)
	if err != nil {
		return nil, 0, err
	}
	used := h.users(ctx)
	out := make([]apiimage.Summary, 0, len(list))
	for i := range list {
		s := basic(&list[i])
		d, err := h.o.Images.Details(ctx, list[i])
		if err != nil && !errdefs.IsNotFound(err) {
			return nil, 0, err
		}
		s.ParentID, s.SharedSize = d.ParentID.String(), u.Shared[list[i].ID]
		s.Containers = int64(len(used.of(digests(&list[i], d)...)))
		out = append(out, s)
	}
	return out, u.Total, nil
}
