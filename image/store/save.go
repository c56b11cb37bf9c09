package store

import (
	"context"
	"fmt"
	"io"

	"github.com/containerd/errdefs"
	apievents "github.com/moby/moby/api/types/events"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wherry-engine/wherry/ociref"
)

// Save writes images as an archive that both `docker load` and tools for OCI
// layouts read. A reference is a name, an ID, or a repository (all its tags).
// With platforms only those are written; without, all that are here in full. NotFound.
func (s *Store) Save(ctx context.Context, refs []string, plats []ocispec.Platform, w io.Writer) error {
	ctx = s.context(ctx)
	if len(refs) == 0 {
		return fmt.Errorf("no image was given: %w", errdefs.ErrInvalidArgument)
	}
	ctx, done, err := s.lease(ctx) // what is written must not be collected
	if err != nil {
		return err
	}
	defer done()
	e := &export{s: s, plats: plats}
	var saved []item
	for _, ref := range refs {
		list, err := s.selection(ctx, ref)
		if err != nil {
			return err
		}
		saved = append(saved, list...)
		for _, it := range list {
			if err := e.add(ctx, it, ref); err != nil {
				return fmt.Errorf("save: %w", err)
			}
		}
	}
	if err := e.write(ctx, w); err != nil {
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
