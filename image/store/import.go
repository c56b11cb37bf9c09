package store

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/klauspost/compress/gzip"
	apievents "github.com/moby/moby/api/types/events"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wherry-engine/wherry/image"
	"github.com/wherry-engine/wherry/ociref"
)

// Import makes an image of one layer from a tar stream, plain or compressed.
// cfg's RootFS and History are extended by the layer. InvalidArgument.
func (s *Store) Import(ctx context.Context, r io.Reader, ref string, cfg image.Config, p image.Progress) (digest.Digest, error) {
	name, err := newName(ref)
	if err != nil {
		return "", err
	}
	z, _, err := decompress(r)
	if err != nil {
		return "", fmt.Errorf("import: %w", err)
	}
	defer z.Close()
	comment := cfg.Comment
	if comment == "" {
		comment = "Imported from -"
	}
	b := builder{s: s, cfg: cfg, name: name, step: ocispec.History{Comment: comment}}
	b.cfg.RootFS, b.cfg.History = ocispec.RootFS{}, nil
	id, err := b.build(ctx, func(w io.Writer) error {
		_, err := io.Copy(w, z)
		return err
	})
	if err != nil {
		return "", fmt.Errorf("import: %w", err)
	}
	s.emit(s.context(ctx), apievents.ActionImport, id.String(), id.String(), ocispec.Descriptor{})
	sink{p}.status("", id.String())
	return id, nil
}

// Commit stores a new image: the parent's layers and one more, which diff
// writes as an uncompressed tar. ref may be empty. It returns the image ID.
// cfg.History should not hold the new step: it is added with cfg's author,
// comment and creation time, unless cfg has more steps than the parent.
func (s *Store) Commit(ctx context.Context, parent *image.Image, cfg image.Config, ref string, diff func(io.Writer) error) (digest.Digest, error) {
	name, err := newName(ref)
	if err != nil {
		return "", err
	}
	b := builder{s: s, cfg: cfg, name: name, step: ocispec.History{Author: cfg.Author, Comment: cfg.Comment}}
	given := cfg.History
	b.cfg.RootFS, b.cfg.History = ocispec.RootFS{}, nil
	if parent != nil {
		pp, err := s.parse(s.context(ctx), parent.Manifest)
		if err != nil {
			return "", fmt.Errorf("commit: parent image: %w", err)
		}
		b.layers = pp.manifest.Layers
		b.cfg.RootFS.DiffIDs = append(b.cfg.RootFS.DiffIDs, pp.config.RootFS.DiffIDs...)
		b.cfg.History = append(b.cfg.History, pp.config.History...)
		b.parent = parent.ID
	}
	if len(given) == len(b.cfg.History)+1 {
		b.step = given[len(given)-1]
	}
	id, err := b.build(ctx, diff)
	if err != nil {
		return "", fmt.Errorf("commit: %w", err)
	}
	s.emit(s.context(ctx), apievents.ActionCreate, id.String(), familiar(name), ocispec.Descriptor{})
	return id, nil
}

// newName checks the name of an image to be made; "" stays without.
func newName(ref string) (string, error) {
	if ref == "" {
		return "", nil
	}
	r, err := ociref.ParseTagged(ref)
	if err != nil {
		return "", err
	}
	if r.Digest != "" {
		return "", fmt.Errorf("cannot import digest reference: %w", errdefs.ErrInvalidArgument)
	}
	return r.String(), nil
}

// builder makes an image from layers that are here and one that is written now.
type builder struct {
	s      *Store
	cfg    image.Config
	layers []ocispec.Descriptor
	step   ocispec.History
	name   string
	parent digest.Digest
}

func (b *builder) build(ctx context.Context, write func(io.Writer) error) (id digest.Digest, err error) {
	err = b.s.making(b.s.context(ctx), func(ctx context.Context) error {
		id, err = b.make(ctx, write)
		return err
	})
	return id, err
}

func (b *builder) make(ctx context.Context, write func(io.Writer) error) (digest.Digest, error) {
	s := b.s
	for _, l := range b.layers {
		if ok, err := s.holdBlob(ctx, l); err != nil || !ok {
			return "", fmt.Errorf("layer %s of the parent image is not here: %w", l.Digest, orNotFound(err))
		}
	}
	desc, diffID, err := s.writeLayer(ctx, write)
	if err != nil {
		return "", err
	}
	b.complete(diffID)
	target, err := b.document(ctx, desc)
	if err != nil {
		return "", err
	}
	p, err := s.parse(ctx, target)
	if err != nil {
		return "", err
	}
	if err := s.unpack(ctx, p, nil, sink{}); err != nil {
		return "", err
	}
	return target.Digest, b.record(ctx, target)
}

func orNotFound(err error) error {
	if err == nil {
		return errdefs.ErrNotFound
	}
	return err
}

// complete adds the new layer to the configuration.
func (b *builder) complete(diffID digest.Digest) {
	now := time.Now().UTC()
	if b.cfg.Created == nil {
		b.cfg.Created = &now
	}
	if b.step.Created == nil {
		b.step.Created = b.cfg.Created
	}
	if b.cfg.OS == "" {
		b.cfg.OS, b.cfg.Architecture, b.cfg.Variant = b.s.platform.OS, b.s.platform.Architecture, b.s.platform.Variant
	}
	b.cfg.RootFS.Type = "layers"
	b.cfg.RootFS.DiffIDs = append(b.cfg.RootFS.DiffIDs, diffID)
	b.cfg.History = append(b.cfg.History, b.step)
}

// document writes configuration and manifest.
func (b *builder) document(ctx context.Context, layer ocispec.Descriptor) (ocispec.Descriptor, error) {
	raw, err := encodeConfig(b.cfg)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	config, err := b.s.writeDocument(ctx, ocispec.MediaTypeImageConfig, raw)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	m := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: config, Layers: append(append([]ocispec.Descriptor{}, plainDescriptors(b.layers)...), layer),
	}
	doc, err := json.Marshal(m)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	target, err := b.s.writeDocument(ctx, ocispec.MediaTypeImageManifest, doc)
	if err != nil {
		return target, err
	}
	return target, b.s.label(ctx, target.Digest, manifestLabels(m))
}

// plainDescriptors translates schema 2 layer types to OCI's: one manifest does not mix them.
func plainDescriptors(list []ocispec.Descriptor) []ocispec.Descriptor {
	out := make([]ocispec.Descriptor, 0, len(list))
	for _, d := range list {
		switch d.MediaType {
		case "application/vnd.docker.image.rootfs.diff.tar.gzip":
			d.MediaType = ocispec.MediaTypeImageLayerGzip
		case "application/vnd.docker.image.rootfs.diff.tar":
			d.MediaType = ocispec.MediaTypeImageLayer
		case "application/vnd.docker.image.rootfs.diff.tar.zstd":
			d.MediaType = ocispec.MediaTypeImageLayerZstd
		}
		out = append(out, d)
	}
	return out
}

func (b *builder) record(ctx context.Context, target ocispec.Descriptor) error {
	labels := map[string]string{}
	if b.parent != "" {
		labels[parentLabel] = b.parent.String()
	}
	name := b.name
	if name == "" {
		if named, err := b.s.namesOf(ctx, target.Digest); err != nil || len(named) > 0 {
			return err
		}
		name = danglingName(target.Digest)
	}
	return b.s.setName(ctx, name, target, labels)
}

// writeDocument stores a small blob.
func (s *Store) writeDocument(ctx context.Context, mediaType string, p []byte) (ocispec.Descriptor, error) {
	desc := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(p), Size: int64(len(p))}
	w, err := content.OpenWriter(ctx, s.ContentStore(), content.WithRef("write-"+randomID()), content.WithDescriptor(desc))
	if errdefs.IsAlreadyExists(err) {
		_, err = s.holdBlob(ctx, desc)
		return desc, err
	}
	if err != nil {
		return desc, err
	}
	defer w.Close()
	if _, err := w.Write(p); err != nil {
		return desc, err
	}
	err = w.Commit(ctx, desc.Size, desc.Digest)
	if errdefs.IsAlreadyExists(err) {
		_, err = s.holdBlob(ctx, desc)
	}
	return desc, err
}

// writeLayer stores what write produces as a gzip layer, and returns the
// digest of the uncompressed stream.
func (s *Store) writeLayer(ctx context.Context, write func(io.Writer) error) (ocispec.Descriptor, digest.Digest, error) {
	ref := "write-" + randomID()
	w, err := content.OpenWriter(ctx, s.ContentStore(), content.WithRef(ref))
	if err != nil {
		return ocispec.Descriptor{}, "", err
	}
	defer w.Close()
	desc, diffID, err := fillLayer(ctx, w, write)
	if errdefs.IsAlreadyExists(err) {
		_, err = s.holdBlob(ctx, desc)
	}
	if err != nil {
		if abortErr := s.ContentStore().Abort(context.WithoutCancel(ctx), ref); abortErr != nil && !errdefs.IsNotFound(abortErr) {
			s.log.Warn("remove an unfinished layer", "err", abortErr)
		}
	}
	return desc, diffID, err
}

func fillLayer(ctx context.Context, w content.Writer, write func(io.Writer) error) (ocispec.Descriptor, digest.Digest, error) {
	desc := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayerGzip}
	z, err := gzip.NewWriterLevel(w, gzip.BestSpeed)
	if err != nil {
		return desc, "", err
	}
	h := sha256.New()
	if err := write(io.MultiWriter(h, z)); err != nil {
		return desc, "", err
	}
	if err := z.Close(); err != nil {
		return desc, "", err
	}
	st, err := w.Status()
	if err != nil {
		return desc, "", err
	}
	desc.Size, desc.Digest = st.Offset, w.Digest()
	return desc, digest.NewDigest(digest.SHA256, h), w.Commit(ctx, 0, desc.Digest)
}
