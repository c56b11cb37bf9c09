package store

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/images/archive"
	"github.com/containerd/errdefs"
	apievents "github.com/moby/moby/api/types/events"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wherry-engine/wherry/image"
	"github.com/wherry-engine/wherry/ociref"
)

// loaded is one image found in an archive.
type loaded struct {
	desc ocispec.Descriptor
	name string // canonical; "" if the archive has none
}

// Load brings in the images of a docker-archive or OCI layout, plain or
// compressed. With platforms only those are unpacked, and must be there.
// InvalidArgument for archives that are damaged or none.
func (s *Store) Load(ctx context.Context, r io.Reader, platforms []ocispec.Platform, p image.Progress) error {
	return s.making(s.context(ctx), func(ctx context.Context) error { return s.load(ctx, r, platforms, sink{p}) })
}

func (s *Store) load(ctx context.Context, r io.Reader, platforms []ocispec.Platform, out sink) error {
	list, err := s.readArchive(ctx, r)
	if err != nil {
		return err
	}
	for _, l := range list {
		if err := s.adopt(ctx, l, platforms, out); err != nil {
			return err
		}
		s.emitID(ctx, apievents.ActionLoad, l.desc.Digest, familiar(l.name), l.desc)
		if l.name == "" {
			out.status("", "Loaded image ID: "+l.desc.Digest.String())
			continue
		}
		ref, err := ociref.Parse(l.name)
		if err != nil {
			return err
		}
		out.status("", "Loaded image: "+ref.Familiar())
	}
	return nil
}

// loadAs brings in an archive with one image and gives it a name.
func (s *Store) loadAs(ctx context.Context, r io.Reader, name string) error {
	ctx, done, err := s.lease(ctx)
	if err != nil {
		return err
	}
	defer done()
	list, err := s.readArchive(ctx, r)
	if err != nil {
		return err
	}
	list[0].name = name
	return s.adopt(ctx, list[0], nil, sink{})
}

// readArchive stores an archive's blobs and lists its images. ctx must hold a lease.
func (s *Store) readArchive(ctx context.Context, r io.Reader) ([]loaded, error) {
	unlock := s.keys.lock("archive") // the importer names its ingests by file
	defer unlock()
	z, _, err := decompress(r)
	if err != nil {
		return nil, fmt.Errorf("load: %w", err)
	}
	defer z.Close()
	top, err := archive.ImportIndex(ctx, s.ContentStore(), z)
	if err != nil {
		return nil, fmt.Errorf("load: %w", classify(err))
	}
	doc, err := readDocument(ctx, s.ContentStore(), top)
	if err != nil {
		return nil, fmt.Errorf("load: %w", err)
	}
	x, err := decodeIndex(top, doc)
	if err != nil {
		return nil, fmt.Errorf("load: %w", err)
	}
	var list []loaded
	for _, d := range x.Manifests {
		if isAttestation(d) || !images.IsManifestType(d.MediaType) && !images.IsIndexType(d.MediaType) {
			continue
		}
		name, err := archiveName(d)
		if err != nil {
			return nil, err
		}
		list = append(list, loaded{desc: d, name: name})
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("load: the archive holds no image: %w", errdefs.ErrInvalidArgument)
	}
	return list, nil
}

// archiveName reads the name an archive gives an image; a bare tag is none.
func archiveName(d ocispec.Descriptor) (string, error) {
	name := d.Annotations[images.AnnotationImageName]
	if name == "" {
		name = d.Annotations[ocispec.AnnotationRefName]
		if ref, err := ociref.Parse(name); err != nil || ref.NameOnly() {
			return "", nil //nolint:nilerr // a tag alone names nothing
		}
	}
	ref, err := ociref.ParseTagged(name)
	if err != nil {
		return "", fmt.Errorf("load: name %.100q: %w", name, err)
	}
	return ref.String(), nil
}

// adopt labels, unpacks and records an image whose blobs were just stored.
func (s *Store) adopt(ctx context.Context, l loaded, platforms []ocispec.Platform, out sink) error {
	if err := s.labelTree(ctx, l.desc, 0); err != nil {
		return fmt.Errorf("load: %w", err)
	}
	s.parsed.forget(l.desc.Digest)
	list := s.present(ctx, l.desc)
	if len(list) == 0 {
		_, err := s.firstError(ctx, l.desc)
		return fmt.Errorf("load: image %s is incomplete: %w", l.desc.Digest, errors.Join(errdefs.ErrInvalidArgument, err))
	}
	pick, err := s.pickLoaded(list, platforms)
	if err != nil {
		return err
	}
	for _, p := range pick {
		if err := s.unpack(ctx, p, nil, sink{}); err != nil {
			return fmt.Errorf("load: %w", err)
		}
		for _, d := range p.manifest.Layers {
			out.update(short(d.Digest), "Loading layer", d.Size, d.Size)
		}
	}
	if err := s.pinTarget(ctx, l.desc); err != nil {
		return fmt.Errorf("load: %w", err)
	}
	name := l.name
	if name == "" {
		if named, err := s.namesOf(ctx, l.desc.Digest); err != nil || len(named) > 0 {
			return err
		}
		name = danglingName(l.desc.Digest)
	}
	return s.setName(ctx, name, l.desc, nil)
}

// pickLoaded chooses what to unpack: the wanted platforms, or the default one.
func (s *Store) pickLoaded(list []*parsed, platforms []ocispec.Platform) ([]*parsed, error) {
	if len(platforms) == 0 {
		if p := best(list, s.platform); p != nil {
			return []*parsed{p}, nil
		}
		return list[:1], nil
	}
	var pick []*parsed
	for _, want := range platforms {
		p := best(list, want)
		if p == nil {
			return nil, fmt.Errorf("load: requested platform(s) ([%s]) not found in the archive: %w", platformText(want), errdefs.ErrNotFound)
		}
		pick = append(pick, p)
	}
	return pick, nil
}

// firstError tells why nothing of a target could be parsed.
func (s *Store) firstError(ctx context.Context, target ocispec.Descriptor) (*parsed, error) {
	descs, err := s.manifests(ctx, target)
	if err != nil {
		return nil, err
	}
	for _, d := range descs {
		if p, err := s.parse(ctx, d); err != nil {
			return p, err
		}
	}
	return nil, errdefs.ErrNotFound
}

// labelTree makes the documents below a descriptor keep what they refer to.
func (s *Store) labelTree(ctx context.Context, d ocispec.Descriptor, depth int) error {
	doc, err := readDocument(ctx, s.ContentStore(), d)
	if err != nil {
		return err
	}
	if !images.IsIndexType(d.MediaType) {
		m, err := decodeManifest(d, doc)
		if err != nil {
			return err
		}
		return s.label(ctx, d.Digest, manifestLabels(m))
	}
	if depth == maxDepth {
		return fmt.Errorf("index %s is nested too deeply: %w", d.Digest, errdefs.ErrInvalidArgument)
	}
	x, err := decodeIndex(d, doc)
	if err != nil {
		return err
	}
	if err := s.label(ctx, d.Digest, indexLabels(x)); err != nil {
		return err
	}
	for _, c := range x.Manifests {
		if err := s.labelTree(ctx, c, depth+1); err != nil && !errdefs.IsNotFound(err) {
			return err
		}
	}
	return nil
}
