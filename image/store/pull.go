package store

import (
	"context"
	"fmt"
	"net/http"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/errdefs"
	apievents "github.com/moby/moby/api/types/events"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/wherry-engine/wherry/image"
	"github.com/wherry-engine/wherry/ociref"
	"github.com/wherry-engine/wherry/registry/client"
)

// sourceLabel remembers on a blob which repositories of a registry have it,
// for mounting across repositories on push.
const sourceLabel = "containerd.io/distribution.source."

// Pull brings an image (or with All each tag of a repository) from a registry
// and unpacks it. Errors are in Docker's words: NotFound, Unauthenticated,
// InvalidArgument.
func (s *Store) Pull(ctx context.Context, req image.PullRequest, p image.Progress) error {
	ref, err := ociref.Parse(req.Ref)
	if err != nil {
		return err
	}
	ctx, out := s.context(ctx), sink{p}
	if s.builtin(req.Ref) != nil {
		return s.pullBuiltin(ctx, ref, req.Ref, out)
	}
	if !req.All {
		return s.pullOne(ctx, ref.WithDefaultTag(), req, out)
	}
	if !ref.NameOnly() {
		return fmt.Errorf("tag can't be used with --all-tags/-a: %w", errdefs.ErrInvalidArgument)
	}
	tags, err := s.registry.Tags(ctx, ref, req.Auth)
	if err != nil {
		return err
	}
	for _, t := range tags {
		tagged, err := ref.WithTag(t)
		if err != nil {
			return err
		}
		if err := s.pullOne(ctx, tagged, req, out); err != nil {
			return err
		}
	}
	return nil
}

// pull is one pull under way.
type pull struct {
	s       *Store
	req     image.PullRequest
	ref     ociref.Reference
	out     sink
	fetcher remotes.Fetcher
	docs    []document
}

// document is a manifest, index or configuration that a pull stores when the
// layers are on their way: bringing something small to the disk takes as long
// as something large.
type document struct {
	desc ocispec.Descriptor
	data []byte
	refs map[string]string // labels that keep what it refers to
}

func (s *Store) pullOne(ctx context.Context, ref ociref.Reference, req image.PullRequest, out sink) error {
	if ref.Digest != "" {
		ref.Tag = ""
	}
	return s.making(ctx, func(ctx context.Context) error { return s.pullLeased(ctx, ref, req, out) })
}

func (s *Store) pullLeased(ctx context.Context, ref ociref.Reference, req image.PullRequest, out sink) error {
	p := &pull{s: s, req: req, ref: ref, out: out}
	target, err := p.resolve(ctx)
	if err != nil {
		return err
	}
	out.status(tagOf(ref), "Pulling from "+ref.Path)
	old, err := s.images.Get(ctx, ref.String())
	before := err == nil && old.Target.Digest == target.Digest
	had := s.present(ctx, target)
	if err := p.bring(ctx, target); err != nil {
		return err
	}
	s.parsed.forget(target.Digest)
	if err := s.pinTarget(ctx, target); err != nil {
		return err
	}
	fresh := len(s.present(ctx, target)) != len(had)
	if err := s.setName(ctx, ref.String(), target, nil); err != nil {
		return err
	}
	s.emit(ctx, apievents.ActionPull, ref.Familiar(), ref.FamiliarName(), target)
	out.status("", "Digest: "+target.Digest.String())
	if before && !fresh {
		out.status("", "Status: Image is up to date for "+ref.Familiar())
	} else {
		out.status("", "Status: Downloaded newer image for "+ref.Familiar())
	}
	return nil
}

func tagOf(ref ociref.Reference) string {
	if ref.Digest != "" {
		return ref.Digest.String()
	}
	return ref.Tag
}

func (p *pull) explain(err error) error {
	return client.PullError(p.ref, p.req.Auth != nil, err)
}

// resolve asks the registry which descriptor the reference names.
func (p *pull) resolve(ctx context.Context) (ocispec.Descriptor, error) {
	r := p.s.registry.Resolver(p.req.Auth, http.Header(p.req.MetaHeaders), nil)
	name, desc, err := r.Resolve(ctx, p.ref.String())
	if err != nil {
		return desc, p.explain(err)
	}
	if p.fetcher, err = r.Fetcher(ctx, name); err != nil {
		return desc, p.explain(err)
	}
	if desc.Size > maxDocument {
		return desc, fmt.Errorf("manifest of %s is %d bytes, more than %d: %w", p.ref.Familiar(), desc.Size, maxDocument, errdefs.ErrInvalidArgument)
	}
	return desc, nil
}

// bring fetches and unpacks what a target has for the platform.
func (p *pull) bring(ctx context.Context, target ocispec.Descriptor) error {
	doc, err := p.document(ctx, &target)
	if err != nil {
		return err
	}
	desc, depth := target, 0
	for images.IsIndexType(desc.MediaType) {
		if depth++; depth > maxDepth {
			return fmt.Errorf("index %s is nested too deeply: %w", desc.Digest, errdefs.ErrInvalidArgument)
		}
		x, err := decodeIndex(desc, doc)
		if err != nil {
			return err
		}
		p.docs = append(p.docs, document{desc, doc, indexLabels(x)})
		if desc, err = p.fromIndex(x); err != nil {
			return err
		}
		if doc, err = p.document(ctx, &desc); err != nil {
			return err
		}
	}
	return p.image(ctx, desc, doc)
}

// document fetches a manifest or index, and finds its type if nobody said.
func (p *pull) document(ctx context.Context, desc *ocispec.Descriptor) ([]byte, error) {
	doc, err := p.s.fetchDocument(ctx, p.fetcher, *desc)
	if err != nil {
		return nil, p.explain(err)
	}
	if !images.IsIndexType(desc.MediaType) && !images.IsManifestType(desc.MediaType) {
		desc.MediaType = detectMediaType(doc)
	}
	if !images.IsIndexType(desc.MediaType) && !images.IsManifestType(desc.MediaType) {
		return nil, fmt.Errorf("unsupported manifest media type %.100q of %s: %w", desc.MediaType, p.ref.Familiar(), errdefs.ErrInvalidArgument)
	}
	return doc, nil
}

// keep stores the documents.
func (p *pull) keep(ctx context.Context) error {
	for _, d := range p.docs {
		if err := p.s.keepDocument(ctx, d.desc, d.data, d.refs, p.source()); err != nil {
			return err
		}
		if err := p.s.noteSource(ctx, d.desc.Digest, p.ref); err != nil {
			return err
		}
	}
	return nil
}

// fromIndex picks the manifest for the platform.
func (p *pull) fromIndex(x ocispec.Index) (ocispec.Descriptor, error) {
	want := p.s.platform
	if p.req.Platform != nil {
		want = *p.req.Platform
	}
	var found ocispec.Descriptor
	least := -1
	for _, d := range x.Manifests {
		if isAttestation(d) || !images.IsIndexType(d.MediaType) && !images.IsManifestType(d.MediaType) {
			continue
		}
		r := 1 << 20 // no platform given: better than nothing
		if d.Platform != nil {
			r = rank(want, *d.Platform)
		}
		if r >= 0 && (least < 0 || r < least) {
			found, least = d, r
		}
	}
	if least < 0 {
		return found, fmt.Errorf("no matching manifest for %s in the manifest list entries: %w", platformText(want), errdefs.ErrNotFound)
	}
	found.Platform, found.Annotations = nil, nil
	return found, nil
}

// image fetches a manifest's configuration and layers, and unpacks as they arrive.
func (p *pull) image(ctx context.Context, desc ocispec.Descriptor, doc []byte) error {
	s := p.s
	m, err := decodeManifest(desc, doc)
	if err != nil {
		return err
	}
	raw, err := s.fetchDocument(ctx, p.fetcher, m.Config)
	if err != nil {
		return client.BlobError(p.ref, p.req.Auth != nil, err)
	}
	if !isImageConfig(m.Config.MediaType) {
		return p.artifact(ctx, m)
	}
	img, err := newParsed(desc, m, raw)
	if err != nil {
		return err
	}
	if p.req.Platform != nil && rank(*p.req.Platform, img.platform()) < 0 {
		return fmt.Errorf("image with reference %s was found but does not match the specified platform: wanted %s, actual: %s: %w",
			p.ref.Familiar(), platformText(*p.req.Platform), platformText(img.platform()), errdefs.ErrNotFound)
	}
	p.docs = append(p.docs, document{m.Config, raw, s.chainLabel(img)}, document{desc, doc, manifestLabels(m)})
	return p.layers(ctx, img)
}

func isImageConfig(mediaType string) bool {
	return mediaType == "" || images.IsConfigType(mediaType) || mediaType == "application/octet-stream"
}

// artifact refuses what is no image.
func (p *pull) artifact(_ context.Context, m ocispec.Manifest) error {
	return fmt.Errorf("unsupported configuration media type %.100q: %s is not an image: %w", m.Config.MediaType, p.ref.Familiar(), errdefs.ErrInvalidArgument)
}

// layers downloads side by side and unpacks as the blobs arrive.
func (p *pull) layers(ctx context.Context, img *parsed) error {
	here := p.announce(ctx, img)
	g, ctx := errgroup.WithContext(ctx)
	coming := newArrivals(len(here))
	for i := range here {
		g.Go(func() error {
			defer close(coming.here[i])
			defer close(coming.streams[i])
			if here[i] {
				// It may have been collected since we looked.
				if ok, err := p.s.holdBlob(ctx, img.manifest.Layers[i]); ok || err != nil {
					return err
				}
			}
			return p.download(ctx, img.manifest.Layers[i], coming.streams[i])
		})
	}
	g.Go(func() error {
		if err := p.keep(ctx); err != nil {
			return err
		}
		close(coming.documents)
		return nil
	})
	g.Go(func() error { return p.s.unpack(ctx, img, coming, p.out) })
	return g.Wait()
}

// announce tells people what will be fetched, and returns which layers are here.
func (p *pull) announce(ctx context.Context, img *parsed) []bool {
	here := make([]bool, len(img.chains))
	var fetch []digest.Digest
	for i, l := range img.manifest.Layers {
		_, err := p.s.ContentStore().Info(ctx, l.Digest)
		_, snapErr := p.s.snap.Stat(ctx, img.chains[i].String())
		switch here[i] = err == nil; {
		case here[i] && snapErr == nil:
			p.out.status(short(l.Digest), "Already exists")
		default:
			p.out.status(short(l.Digest), "Pulling fs layer")
			fetch = append(fetch, l.Digest)
		}
	}
	for i, d := range fetch {
		if i >= p.s.downloads.Load().n {
			p.out.status(short(d), "Waiting")
		}
	}
	return here
}

// download fetches a layer, and offers it to be unpacked as it comes.
func (p *pull) download(ctx context.Context, desc ocispec.Descriptor, stream chan<- *tee) error {
	room := p.s.downloads.Load()
	if err := room.Acquire(ctx, 1); err != nil {
		return err
	}
	defer room.Release(1)
	t := newTee()
	stream <- t // the channel has room for it
	if err := p.s.fetchBlob(ctx, p.fetcher, desc, p.source(), t, p.out); err != nil {
		return client.BlobError(p.ref, p.req.Auth != nil, err)
	}
	p.out.status(short(desc.Digest), "Download complete")
	return p.s.noteSource(ctx, desc.Digest, p.ref)
}

// source is the label of a blob that comes from here.
func (p *pull) source() map[string]string {
	return map[string]string{sourceLabel + p.ref.Domain: p.ref.Path}
}

// noteSource remembers that a registry's repository has the blob.
func (s *Store) noteSource(ctx context.Context, d digest.Digest, ref ociref.Reference) error {
	key := sourceLabel + ref.Domain
	info, err := s.ContentStore().Info(ctx, d)
	if err != nil {
		return err
	}
	repos := addRepository(info.Labels[key], ref.Path)
	if repos == info.Labels[key] {
		return nil
	}
	return s.label(ctx, d, map[string]string{key: repos})
}
