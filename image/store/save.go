package store

import (
	"context"
	"fmt"
	"io"

	"github.com/containerd/containerd/v2/core/images/archive"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	apievents "github.com/moby/moby/api/types/events"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wherry-engine/wherry/ociref"
)

// Save writes images as an archive that both `docker load` and tools for OCI
// layouts read. A reference is a name, an ID, or a repository (all its tags).
// With platforms only those are written. NotFound.
func (s *Store) Save(ctx context.Context, refs []string, plats []ocispec.Platform, w io.Writer) error {
	ctx = s.context(ctx)
	opts := []archive.ExportOpt{archive.WithSkipMissing(s.ContentStore())}
	if len(refs) == 0 {
		return fmt.Errorf("no image was given: %w", errdefs.ErrInvalidArgument)
	}
	var saved []item
	for _, ref := range refs {
		list, err := s.selection(ctx, ref)
		if err != nil {
			return err
		}
		saved = append(saved, list...)
		for _, it := range list {
			more, err := s.exports(ctx, it, ref, plats)
			if err != nil {
				return err
			}
			opts = append(opts, more...)
		}
	}
	opts = append(opts, archive.WithPlatform(matcher(plats, s.platform)))
	if len(plats) == 0 {
		opts = append(opts, archive.WithAllPlatforms())
	}
	if err := archive.Export(ctx, s.ContentStore(), w, opts...); err != nil {
		return fmt.Errorf("save: %w", err)
	}
	for _, it := range saved {
		s.emitID(ctx, apievents.ActionSave, it.target.Digest, familiar(it.name), it.target)
	}
	return nil
}

// item is one image to save with the name it is saved under ("" for none).
type item struct {
	target ocispec.Descriptor
	name   string
}

// selection finds what a reference of Save means.
func (s *Store) selection(ctx context.Context, ref string) ([]item, error) {
	g, err := s.find(ctx, ref)
	if errdefs.IsNotFound(err) || err == nil && g.recordOf(ref) != nil {
		if list, listErr := s.repository(ctx, ref); listErr != nil || len(list) > 0 {
			return list, listErr
		}
	}
	if err != nil {
		return nil, err
	}
	rec := g.recordOf(ref)
	if rec == nil {
		return []item{{target: g.target}}, nil
	}
	if r, err := ociref.Parse(rec.Name); err != nil || r.Tag == "" {
		return []item{{target: g.target}}, nil //nolint:nilerr // a digest reference is not written as a name
	}
	return []item{{g.target, rec.Name}}, nil
}

// repository lists all tags of a repository, if ref is one without a tag.
func (s *Store) repository(ctx context.Context, ref string) ([]item, error) {
	want, err := ociref.Parse(ref)
	if err != nil || !want.NameOnly() {
		return nil, nil //nolint:nilerr // not a repository
	}
	all, err := s.images.List(ctx)
	if err != nil {
		return nil, err
	}
	var list []item
	for _, img := range all {
		if r, err := ociref.Parse(img.Name); err == nil && r.Tag != "" && r.Name() == want.Name() {
			list = append(list, item{img.Target, img.Name})
		}
	}
	return list, nil
}

// exports turns one image into options of the exporter, after checking that
// the wanted platforms are here in full.
func (s *Store) exports(ctx context.Context, it item, ref string, plats []ocispec.Platform) ([]archive.ExportOpt, error) {
	var names []string
	if it.name != "" {
		names = []string{it.name}
	}
	target := it.target
	for _, p := range plats {
		found, err := s.choose(ctx, target, ref, &p)
		if err != nil {
			return nil, err
		}
		if !s.describeManifest(ctx, found.desc).Available {
			return nil, fmt.Errorf("save %s: content of %s is not here: %w", ref, platformText(p), errdefs.ErrNotFound)
		}
	}
	return []archive.ExportOpt{archive.WithManifest(target, names...)}, nil
}

func matcher(plats []ocispec.Platform, def ocispec.Platform) platforms.MatchComparer {
	if len(plats) == 0 {
		return platforms.Only(def)
	}
	return platforms.Ordered(plats...)
}
