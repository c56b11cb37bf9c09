package store

import (
	"context"
	"fmt"

	"github.com/containerd/errdefs"
	apievents "github.com/moby/moby/api/types/events"

	"github.com/wherry-engine/wherry/ociref"
)

// Tag gives an image a further name. NotFound, InvalidArgument.
func (s *Store) Tag(ctx context.Context, ref, newRef string) error {
	ctx = s.context(ctx)
	r, err := ociref.ParseTagged(newRef)
	if err != nil {
		return err
	}
	if r.Digest != "" {
		return fmt.Errorf("refusing to create a tag with a digest reference: %w", errdefs.ErrInvalidArgument)
	}
	g, err := s.find(ctx, ref)
	if err != nil {
		return err
	}
	if err := s.setName(ctx, r.String(), g.target, nil); err != nil {
		return err
	}
	s.emitID(ctx, apievents.ActionTag, g.target.Digest, r.Familiar(), g.target)
	return nil
}
