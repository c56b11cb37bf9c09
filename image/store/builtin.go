package store

import (
	"context"
	"fmt"
	"io"

	"github.com/wherry-engine/wherry/ociref"
)

// builtin returns the opener of an image that is part of the engine; nil if ref is none.
func (s *Store) builtin(ref string) func() (io.ReadCloser, error) {
	r, err := ociref.ParseTagged(ref)
	if err != nil {
		return nil
	}
	for name, open := range s.opts.Builtin {
		if b, err := ociref.ParseTagged(name); err == nil && b == r {
			return open
		}
	}
	return nil
}

// loadBuiltin loads a built-in image and names it.
func (s *Store) loadBuiltin(ctx context.Context, ref string) error {
	unlock := s.keys.lock("builtin:" + ref)
	defer unlock()
	if _, err := s.find(ctx, ref); err == nil {
		return nil
	}
	rc, err := s.builtin(ref)()
	if err != nil {
		return fmt.Errorf("open built-in image %s: %w", ref, err)
	}
	defer rc.Close()
	r, err := ociref.ParseTagged(ref)
	if err != nil {
		return err
	}
	return s.loadAs(ctx, rc, r.String())
}

func (s *Store) pullBuiltin(ctx context.Context, ref ociref.Reference, text string, out sink) error {
	ref = ref.WithDefaultTag()
	out.status(tagOf(ref), "Pulling from "+ref.Path)
	_, missing := s.find(ctx, text)
	if err := s.loadBuiltin(ctx, text); err != nil {
		return err
	}
	g, err := s.find(ctx, text)
	if err != nil {
		return err
	}
	out.status("", "Digest: "+g.target.Digest.String())
	if missing != nil {
		out.status("", "Status: Downloaded newer image for "+ref.Familiar())
	} else {
		out.status("", "Status: Image is up to date for "+ref.Familiar())
	}
	return nil
}
