package store

import (
	"context"
	"maps"
	"strconv"

	apievents "github.com/moby/moby/api/types/events"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// emit publishes an event about an image: actor is its ID or reference.
func (s *Store) emit(ctx context.Context, action apievents.Action, actor, name string, target ocispec.Descriptor) {
	if s.opts.Events == nil {
		return
	}
	attrs := map[string]string{}
	if target.Digest != "" {
		if p, err := s.choose(ctx, target, "", nil); err == nil {
			maps.Copy(attrs, p.config.Config.Labels)
		}
	}
	if name != "" {
		attrs["name"] = name
	}
	s.opts.Events.Publish(apievents.ImageEventType, action, actor, attrs)
}

// emitID is emit for actions whose actor is the image's ID.
func (s *Store) emitID(ctx context.Context, action apievents.Action, id digest.Digest, name string, target ocispec.Descriptor) {
	if name == "" {
		name = id.String()
	}
	s.emit(ctx, action, id.String(), name, target)
}

func (s *Store) emitPrune(reclaimed int64) {
	if s.opts.Events != nil {
		s.opts.Events.Publish(apievents.ImageEventType, apievents.ActionPrune, "", map[string]string{"reclaimed": strconv.FormatInt(reclaimed, 10)})
	}
}
