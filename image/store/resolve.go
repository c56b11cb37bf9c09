package store

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wherry-engine/wherry/image"
	"github.com/wherry-engine/wherry/ociref"
)

func noSuchImage(ref string) error {
	return fmt.Errorf("No such image: %s: %w", ref, errdefs.ErrNotFound) //nolint:revive,staticcheck // Docker's text
}

// Resolve finds an image by reference, ID or unambiguous prefix of one, and
// chooses the platform. An image built into the engine is loaded if it is not
// here yet. NotFound.
func (s *Store) Resolve(ctx context.Context, ref string, platform *ocispec.Platform) (image.Image, error) {
	ctx = s.context(ctx)
	g, err := s.find(ctx, ref)
	if errdefs.IsNotFound(err) && s.builtin(ref) != nil {
		if err := s.loadBuiltin(ctx, ref); err != nil {
			return image.Image{}, err
		}
		g, err = s.find(ctx, ref)
	}
	if errdefs.IsNotFound(err) {
		if img, ok := s.kept(ctx, ref, platform); ok {
			return img, nil
		}
	}
	if err != nil {
		return image.Image{}, err
	}
	p, err := s.choose(ctx, g.target, ref, platform)
	if err != nil {
		return image.Image{}, err
	}
	return s.toImage(ctx, g, p), nil
}

// kept finds, by its full ID alone, an image that was removed while a
// container uses it.
func (s *Store) kept(ctx context.Context, ref string, platform *ocispec.Platform) (image.Image, bool) {
	d, ok := asDigest(ref)
	if !ok {
		return image.Image{}, false
	}
	info, err := s.ContentStore().Info(ctx, d)
	if err != nil {
		return image.Image{}, false
	}
	target := ocispec.Descriptor{Digest: d, Size: info.Size}
	doc, err := readDocument(ctx, s.ContentStore(), target)
	if err != nil {
		return image.Image{}, false
	}
	target.MediaType = detectMediaType(doc)
	if !images.IsManifestType(target.MediaType) && !images.IsIndexType(target.MediaType) {
		return image.Image{}, false
	}
	p, err := s.choose(ctx, target, ref, platform)
	if err != nil || !s.chains.used(p.chain) {
		return image.Image{}, false
	}
	return s.toImage(ctx, &group{target: target}, p), true
}

// ResolveManifest finds one platform's image by the digest of its manifest,
// also when its image was removed but a container still uses it. NotFound.
func (s *Store) ResolveManifest(ctx context.Context, d digest.Digest) (image.Image, error) {
	ctx = s.context(ctx)
	p, err := s.parseByDigest(ctx, d)
	if err != nil {
		return image.Image{}, noSuchImage(d.String())
	}
	return s.toImage(ctx, &group{target: p.desc}, p), nil
}

// parseByDigest parses a manifest whose media type is not known.
func (s *Store) parseByDigest(ctx context.Context, d digest.Digest) (*parsed, error) {
	if p := s.parsed.get(d); p != nil {
		return p, nil
	}
	info, err := s.ContentStore().Info(ctx, d)
	if err != nil {
		return nil, err
	}
	desc := ocispec.Descriptor{Digest: d, Size: info.Size}
	doc, err := readDocument(ctx, s.ContentStore(), desc)
	if err != nil {
		return nil, err
	}
	if desc.MediaType = detectMediaType(doc); !images.IsManifestType(desc.MediaType) {
		return nil, fmt.Errorf("%s is not an image manifest: %w", d, errdefs.ErrNotFound)
	}
	return s.parse(ctx, desc)
}

// find looks an image up by name, then by ID. NotFound, InvalidArgument.
func (s *Store) find(ctx context.Context, ref string) (*group, error) {
	if d, ok := asDigest(ref); ok {
		return s.findDigest(ctx, ref, d)
	}
	r, err := ociref.ParseTagged(ref)
	if err != nil {
		if ociref.IsIDPrefix(strings.TrimPrefix(ref, "sha256:")) {
			return s.findPrefix(ctx, ref)
		}
		return nil, err
	}
	if r.Digest != "" && r.Tag != "" {
		r.Tag = ""
	}
	x, err := s.images.index(ctx)
	if err != nil {
		return nil, err
	}
	if rec, ok := x.byName[r.String()]; ok {
		return &group{target: rec.Target, records: slices.Clone(x.byTarget[rec.Target.Digest])}, nil
	}
	if r.Digest != "" {
		return s.findRepoDigest(ctx, ref, r)
	}
	if ociref.IsIDPrefix(ref) {
		return s.findPrefix(ctx, ref)
	}
	return nil, noSuchImage(ref)
}

func asDigest(ref string) (digest.Digest, bool) {
	if ociref.IsID(ref) {
		return digest.Digest("sha256:" + ref), true
	}
	d := ociref.Digest(ref)
	return digest.Digest(d), d.Validate() == nil
}

// findDigest accepts an image ID, and also the digest of a manifest or
// configuration in an image.
func (s *Store) findDigest(ctx context.Context, ref string, d digest.Digest) (*group, error) {
	records, err := s.namesOf(ctx, d)
	if err != nil {
		return nil, err
	}
	if len(records) > 0 {
		return &group{target: records[0].Target, records: records}, nil
	}
	all, err := s.groups(ctx)
	if err != nil {
		return nil, err
	}
	for _, g := range all {
		for _, p := range s.present(ctx, g.target) {
			if p.desc.Digest == d || p.manifest.Config.Digest == d {
				return g, nil
			}
		}
	}
	return nil, noSuchImage(ref)
}

// findRepoDigest finds NAME@DIGEST when only NAME:TAG is recorded.
func (s *Store) findRepoDigest(ctx context.Context, ref string, r ociref.Reference) (*group, error) {
	records, err := s.namesOf(ctx, digest.Digest(r.Digest))
	if err != nil {
		return nil, err
	}
	for _, rec := range records {
		if have, err := ociref.Parse(rec.Name); err == nil && have.Name() == r.Name() {
			return &group{target: rec.Target, records: records}, nil
		}
	}
	return nil, noSuchImage(ref)
}

func (s *Store) findPrefix(ctx context.Context, ref string) (*group, error) {
	prefix := strings.TrimPrefix(ref, "sha256:")
	all, err := s.groups(ctx)
	if err != nil {
		return nil, err
	}
	var found *group
	for _, g := range all {
		if !strings.HasPrefix(g.target.Digest.Encoded(), prefix) {
			continue
		}
		if found != nil {
			return nil, fmt.Errorf("ambiguous reference: %s matches several images: %w", ref, errdefs.ErrInvalidArgument)
		}
		found = g
	}
	if found == nil {
		return nil, noSuchImage(ref)
	}
	return found, nil
}

// choose picks the best platform of a target among those that are here.
func (s *Store) choose(ctx context.Context, target ocispec.Descriptor, ref string, want *ocispec.Platform) (*parsed, error) {
	list := s.present(ctx, target)
	if len(list) == 0 {
		return nil, fmt.Errorf("No such image: %s: its content is not here: %w", ref, errdefs.ErrNotFound) //nolint:revive,staticcheck // Docker's text
	}
	if want == nil {
		if p := best(list, s.platform); p != nil {
			return p, nil
		}
		return list[0], nil
	}
	if p := best(list, *want); p != nil {
		return p, nil
	}
	return nil, fmt.Errorf("image with reference %s was found but its platform (%s) does not match the specified platform (%s): %w",
		ref, platformText(list[0].platform()), platformText(*want), errdefs.ErrNotFound)
}

func best(list []*parsed, want ocispec.Platform) *parsed {
	var found *parsed
	least := -1
	for _, p := range list {
		if r := rank(want, p.platform()); r >= 0 && (found == nil || r < least) {
			found, least = p, r
		}
	}
	return found
}

func (s *Store) toImage(ctx context.Context, g *group, p *parsed) image.Image {
	img := image.Image{
		ID:           g.target.Digest,
		ConfigDigest: p.manifest.Config.Digest,
		Manifest:     p.desc,
		Target:       g.target,
		Platform:     p.platform(),
		Config:       p.config,
		RawConfig:    p.raw,
		Chain:        p.chain,
	}
	img.RepoTags, img.RepoDigests, img.Dangling, img.LastTagged = g.names()
	if p.config.Created != nil {
		img.Created = *p.config.Created
	}
	img.Size, _ = s.unpackedSize(ctx, p)
	return img
}

// List returns every image once, in its best platform.
func (s *Store) List(ctx context.Context) ([]image.Image, error) {
	ctx = s.context(ctx)
	all, err := s.groups(ctx)
	if err != nil {
		return nil, err
	}
	list := make([]image.Image, 0, len(all))
	for _, g := range all {
		p, err := s.choose(ctx, g.target, g.target.Digest.String(), nil)
		if err != nil {
			s.log.Debug("image without content", "image", g.target.Digest)
			continue
		}
		list = append(list, s.toImage(ctx, g, p))
	}
	return list, nil
}

// Prepare unpacks an image's layers if they are not, and returns its chain. NotFound.
func (s *Store) Prepare(ctx context.Context, img image.Image) (digest.Digest, error) {
	if _, ok := s.chains.known(img.Chain); ok || img.Chain == "" {
		return img.Chain, nil
	}
	ctx = s.context(ctx)
	p, err := s.parse(ctx, img.Manifest)
	if err != nil {
		return "", err
	}
	ctx, done, err := s.lease(ctx)
	if err != nil {
		return "", err
	}
	defer done()
	return p.chain, s.unpack(ctx, p, nil, sink{})
}

func (c *chains) known(chain digest.Digest) ([]string, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	dirs, ok := c.dirs[chain]
	return dirs, ok
}
