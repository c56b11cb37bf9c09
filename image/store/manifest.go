package store

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Budgets for what a registry or an archive hands over.
const (
	maxDocument  = 4 << 20 // bytes of a manifest, index or configuration
	maxLayers    = 512     // overlayfs takes 500
	maxManifests = 1024    // entries of an index
	maxDepth     = 3       // indexes in indexes
)

// readDocument reads a small JSON blob. InvalidArgument if it is too large, NotFound.
func readDocument(ctx context.Context, cs content.Provider, desc ocispec.Descriptor) ([]byte, error) {
	ra, err := cs.ReaderAt(ctx, desc)
	if err != nil {
		return nil, err
	}
	defer ra.Close()
	if ra.Size() > maxDocument {
		return nil, fmt.Errorf("%s is %d bytes, more than %d: %w", desc.Digest, ra.Size(), maxDocument, errdefs.ErrInvalidArgument)
	}
	p := make([]byte, ra.Size())
	if _, err := io.ReadFull(content.NewReader(ra), p); err != nil {
		return nil, fmt.Errorf("read %s: %w", desc.Digest, err)
	}
	return p, nil
}

// decodeManifest parses and checks an image manifest. InvalidArgument.
func decodeManifest(desc ocispec.Descriptor, p []byte) (ocispec.Manifest, error) {
	var m ocispec.Manifest
	if err := unambiguous(desc, p, "manifests"); err != nil {
		return m, err
	}
	if err := json.Unmarshal(p, &m); err != nil {
		return m, fmt.Errorf("manifest %s: %w: %w", desc.Digest, err, errdefs.ErrInvalidArgument)
	}
	if m.SchemaVersion != 2 {
		return m, fmt.Errorf("manifest %s: schema version %d is not supported: %w", desc.Digest, m.SchemaVersion, errdefs.ErrInvalidArgument)
	}
	if len(m.Layers) > maxLayers {
		return m, fmt.Errorf("manifest %s: %d layers, more than %d: %w", desc.Digest, len(m.Layers), maxLayers, errdefs.ErrInvalidArgument)
	}
	for _, d := range append([]ocispec.Descriptor{m.Config}, m.Layers...) {
		if err := checkDescriptor(d); err != nil {
			return m, fmt.Errorf("manifest %s: %w", desc.Digest, err)
		}
	}
	return m, nil
}

// decodeIndex parses and checks an index or manifest list. InvalidArgument.
func decodeIndex(desc ocispec.Descriptor, p []byte) (ocispec.Index, error) {
	var x ocispec.Index
	if err := unambiguous(desc, p, "layers", "config"); err != nil {
		return x, err
	}
	if err := json.Unmarshal(p, &x); err != nil {
		return x, fmt.Errorf("index %s: %w: %w", desc.Digest, err, errdefs.ErrInvalidArgument)
	}
	if len(x.Manifests) > maxManifests {
		return x, fmt.Errorf("index %s: %d manifests, more than %d: %w", desc.Digest, len(x.Manifests), maxManifests, errdefs.ErrInvalidArgument)
	}
	for _, d := range x.Manifests {
		if err := checkDescriptor(d); err != nil {
			return x, fmt.Errorf("index %s: %w", desc.Digest, err)
		}
	}
	return x, nil
}

// unambiguous refuses documents that two readers could take for different
// things: a media type that is not the descriptor's, or members of the other kind.
func unambiguous(desc ocispec.Descriptor, p []byte, foreign ...string) error {
	var doc map[string]json.RawMessage
	if err := json.Unmarshal(p, &doc); err != nil {
		return fmt.Errorf("document %s: %w: %w", desc.Digest, err, errdefs.ErrInvalidArgument)
	}
	for _, k := range append(foreign, "fsLayers") {
		if _, ok := doc[k]; ok {
			return fmt.Errorf("ambiguous document %s: it has %q, which %s has not: %w", desc.Digest, k, desc.MediaType, errdefs.ErrInvalidArgument)
		}
	}
	var mt string
	if raw, ok := doc["mediaType"]; ok {
		if err := json.Unmarshal(raw, &mt); err != nil {
			return fmt.Errorf("document %s: media type: %w: %w", desc.Digest, err, errdefs.ErrInvalidArgument)
		}
	}
	if mt != "" && desc.MediaType != "" && mt != desc.MediaType {
		return fmt.Errorf("document %s: media type is %q, but was announced as %q: %w", desc.Digest, mt, desc.MediaType, errdefs.ErrInvalidArgument)
	}
	return nil
}

func checkDescriptor(d ocispec.Descriptor) error {
	if err := d.Digest.Validate(); err != nil {
		return fmt.Errorf("digest %.100q: %w: %w", d.Digest, err, errdefs.ErrInvalidArgument)
	}
	if d.Size < 0 {
		return fmt.Errorf("size %d of %s: %w", d.Size, d.Digest, errdefs.ErrInvalidArgument)
	}
	return nil
}

// detectMediaType gives a document without an announced type its own.
func detectMediaType(p []byte) string {
	var doc struct {
		MediaType string            `json:"mediaType"`
		Manifests []json.RawMessage `json:"manifests"`
		Layers    []json.RawMessage `json:"layers"`
		Config    json.RawMessage   `json:"config"`
	}
	if json.Unmarshal(p, &doc) != nil {
		return ""
	}
	switch {
	case doc.MediaType != "":
		return doc.MediaType
	case doc.Manifests != nil:
		return ocispec.MediaTypeImageIndex
	case doc.Layers != nil && doc.Config != nil:
		return ocispec.MediaTypeImageManifest
	}
	return ""
}

// isAttestation tells manifests that describe others from images.
func isAttestation(d ocispec.Descriptor) bool {
	return d.Annotations["vnd.docker.reference.type"] == "attestation-manifest" ||
		d.Platform != nil && d.Platform.OS == "unknown" && d.Platform.Architecture == "unknown"
}

// isLayer reports whether a descriptor of a manifest is a layer we can unpack.
func isLayer(d ocispec.Descriptor) bool {
	return images.IsLayerType(d.MediaType) && !slices.Contains([]string{
		images.MediaTypeDockerSchema2LayerForeign, images.MediaTypeDockerSchema2LayerForeignGzip,
	}, d.MediaType)
}

// label marks a blob as referring to others, so that it keeps them. Nothing is
// written if it is marked already.
func (s *Store) label(ctx context.Context, d digest.Digest, refs map[string]string) error {
	fields := make([]string, 0, len(refs))
	labels := make(map[string]string, len(refs))
	for k, v := range refs {
		labels[k] = v
		fields = append(fields, "labels."+k)
	}
	if len(fields) == 0 {
		return nil
	}
	info, err := s.ContentStore().Info(ctx, d)
	if err != nil {
		return err
	}
	missing := len(refs)
	for k, v := range info.Labels {
		if want, ok := refs[k]; ok && want == v {
			missing--
		}
	}
	if missing == 0 {
		return nil
	}
	_, err = s.ContentStore().Update(ctx, content.Info{Digest: d, Labels: labels}, fields...)
	return err
}

func manifestLabels(m ocispec.Manifest) map[string]string {
	refs := map[string]string{"containerd.io/gc.ref.content.config": m.Config.Digest.String()}
	for i, l := range m.Layers {
		refs[fmt.Sprintf("containerd.io/gc.ref.content.l.%d", i)] = l.Digest.String()
	}
	return refs
}

func indexLabels(x ocispec.Index) map[string]string {
	refs := map[string]string{}
	for i, d := range x.Manifests {
		refs[fmt.Sprintf("containerd.io/gc.ref.content.m.%d", i)] = d.Digest.String()
	}
	return refs
}
