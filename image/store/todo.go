package store

import (
	"context"
	"io"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/wherry-engine/wherry/image"
)

func (s *Store) Push(ctx context.Context, req image.PushRequest, p image.Progress) error {
	return errdefs.ErrNotImplemented
}
func (s *Store) Save(ctx context.Context, refs []string, platforms []ocispec.Platform, w io.Writer) error {
	return errdefs.ErrNotImplemented
}
func (s *Store) Import(ctx context.Context, r io.Reader, ref string, cfg image.Config, p image.Progress) (digest.Digest, error) {
	return "", errdefs.ErrNotImplemented
}
func (s *Store) Commit(ctx context.Context, parent *image.Image, cfg image.Config, ref string, diff func(io.Writer) error) (digest.Digest, error) {
	return "", errdefs.ErrNotImplemented
}
func (s *Store) Tag(ctx context.Context, ref, newRef string) error { return errdefs.ErrNotImplemented }
func (s *Store) Delete(ctx context.Context, ref string, opts image.DeleteOptions) ([]image.Deleted, error) {
	return nil, errdefs.ErrNotImplemented
}
func (s *Store) Prune(ctx context.Context, opts image.PruneOptions) ([]image.Deleted, int64, error) {
	return nil, 0, errdefs.ErrNotImplemented
}
