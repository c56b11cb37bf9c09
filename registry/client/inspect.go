package client

import (
	"context"
	"encoding/json"
	"fmt"
	"io"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/registry"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wherry-engine/wherry/ociref"
)

// Inspect asks a registry what a reference names and for which platforms it
// is. NotFound, Unauthenticated.
func (c *Client) Inspect(ctx context.Context, ref ociref.Reference, a *registry.AuthConfig) (registry.DistributionInspect, error) {
	ref = ref.WithDefaultTag()
	var out registry.DistributionInspect
	r := c.Resolver(a, nil, nil)
	name, desc, err := r.Resolve(ctx, ref.String())
	if err != nil {
		return out, PullError(ref, a != nil, err)
	}
	f, err := r.Fetcher(ctx, name)
	if err != nil {
		return out, PullError(ref, a != nil, err)
	}
	out.Descriptor = desc
	out.Platforms, err = platformsOf(ctx, f, desc)
	return out, PullError(ref, a != nil, err)
}

func platformsOf(ctx context.Context, f remotes.Fetcher, desc ocispec.Descriptor) ([]ocispec.Platform, error) {
	list := []ocispec.Platform{}
	if images.IsIndexType(desc.MediaType) {
		var x ocispec.Index
		if err := fetchJSON(ctx, f, desc, &x); err != nil {
			return nil, err
		}
		for _, m := range x.Manifests {
			if m.Platform != nil {
				list = append(list, *m.Platform)
			}
		}
		return list, nil
	}
	var m ocispec.Manifest
	if err := fetchJSON(ctx, f, desc, &m); err != nil {
		return nil, err
	}
	if !images.IsConfigType(m.Config.MediaType) {
		return list, nil
	}
	var p ocispec.Platform
	if err := fetchJSON(ctx, f, m.Config, &p); err != nil {
		return nil, err
	}
	return append(list, p), nil
}

// fetchJSON reads a small document and checks its digest.
func fetchJSON(ctx context.Context, f remotes.Fetcher, desc ocispec.Descriptor, v any) error {
	if err := desc.Digest.Validate(); err != nil {
		return fmt.Errorf("digest %.100q: %w: %w", desc.Digest, err, errdefs.ErrInvalidArgument)
	}
	rc, err := f.Fetch(ctx, desc)
	if err != nil {
		return err
	}
	defer rc.Close()
	p, err := io.ReadAll(io.LimitReader(rc, answerBudget+1))
	if err != nil {
		return fmt.Errorf("read %s: %w", desc.Digest, err)
	}
	if len(p) > answerBudget {
		return fmt.Errorf("%s is larger than %d bytes: %w", desc.Digest, answerBudget, errdefs.ErrInvalidArgument)
	}
	if got := desc.Digest.Algorithm().FromBytes(p); got != desc.Digest {
		return fmt.Errorf("verification failed for digest %s: got %s: %w", desc.Digest, got, errdefs.ErrInvalidArgument)
	}
	if err := json.Unmarshal(p, v); err != nil {
		return fmt.Errorf("read %s: %w: %w", desc.Digest, err, errdefs.ErrInvalidArgument)
	}
	return nil
}
