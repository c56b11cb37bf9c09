package store

import (
	"archive/tar"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wherry-engine/wherry/ociref"
)

// export gathers what goes into an archive: an OCI layout that also has the
// manifest.json of Docker's older versions.
type export struct {
	s     *Store
	plats []ocispec.Platform

	blobs   map[digest.Digest]ocispec.Descriptor
	entries []ocispec.Descriptor
	docker  []*dockerImage
	byID    map[digest.Digest]*dockerImage
}

// dockerImage is an entry of manifest.json.
type dockerImage struct {
	Config   string
	RepoTags []string
	Layers   []string
}

func blobPath(d digest.Digest) string {
	return ocispec.ImageBlobsDir + "/" + d.Algorithm().String() + "/" + d.Encoded()
}

// add adds one image under its name.
func (e *export) add(ctx context.Context, it item, ref string) error {
	complete, err := e.complete(ctx, it.target)
	if err != nil {
		return err
	}
	chosen, err := e.choose(ctx, it.target, ref, complete)
	if err != nil {
		return err
	}
	for _, p := range complete {
		if err := e.manifest(ctx, p); err != nil {
			return err
		}
	}
	if err := e.indexes(ctx, it.target, 0); err != nil {
		return err
	}
	entry := bare(it.target)
	img := e.dockerEntry(chosen)
	if r, err := ociref.Parse(it.name); err == nil && it.name != "" {
		entry.Annotations = map[string]string{images.AnnotationImageName: r.String(), ocispec.AnnotationRefName: r.Tag}
		img.RepoTags = append(img.RepoTags, r.Familiar())
	}
	e.entries = append(e.entries, entry)
	return nil
}

// complete lists the manifests of a target that are wanted and here in full.
func (e *export) complete(ctx context.Context, target ocispec.Descriptor) ([]*parsed, error) {
	descs, err := e.s.manifests(ctx, target)
	if err != nil {
		return nil, err
	}
	var list []*parsed
	for _, d := range descs {
		if !e.wanted(d) || !e.s.describeManifest(ctx, d).Available {
			continue
		}
		p, err := e.s.parse(ctx, d)
		if err != nil {
			return nil, err
		}
		list = append(list, p)
	}
	return list, nil
}

func (e *export) wanted(d ocispec.Descriptor) bool {
	return len(e.plats) == 0 || d.Platform == nil || slices.ContainsFunc(e.plats, func(p ocispec.Platform) bool { return rank(p, *d.Platform) >= 0 })
}

// choose picks the manifest that older versions of Docker load. Every wanted
// platform must be there.
func (e *export) choose(ctx context.Context, target ocispec.Descriptor, ref string, complete []*parsed) (*parsed, error) {
	imgs := slices.DeleteFunc(slices.Clone(complete), func(p *parsed) bool { return isAttestation(p.desc) })
	for _, want := range e.plats {
		if best(imgs, want) != nil {
			continue
		}
		if _, err := e.s.choose(ctx, target, ref, &want); err != nil {
			return nil, err
		}
		return nil, fmt.Errorf("content of %s for %s is not here: %w", ref, platformText(want), errdefs.ErrNotFound)
	}
	want := e.s.platform
	if len(e.plats) > 0 {
		want = e.plats[0]
	}
	if p := best(imgs, want); p != nil {
		return p, nil
	}
	if len(imgs) > 0 {
		return imgs[0], nil
	}
	return nil, fmt.Errorf("content of %s is not here in full: %w", ref, errdefs.ErrNotFound)
}

// manifest adds a manifest with all it refers to.
func (e *export) manifest(ctx context.Context, p *parsed) error {
	for _, d := range append([]ocispec.Descriptor{p.desc, p.manifest.Config}, p.manifest.Layers...) {
		if err := e.blob(ctx, d); err != nil {
			return err
		}
	}
	return nil
}

func (e *export) blob(ctx context.Context, d ocispec.Descriptor) error {
	if _, ok := e.blobs[d.Digest]; ok {
		return nil
	}
	ok, err := e.s.holdBlob(ctx, d)
	if err != nil || !ok {
		return fmt.Errorf("content %s: %w", d.Digest, orNotFound(err))
	}
	if e.blobs == nil {
		e.blobs = map[digest.Digest]ocispec.Descriptor{}
	}
	e.blobs[d.Digest] = d
	return nil
}

// indexes adds a target's indexes themselves.
func (e *export) indexes(ctx context.Context, d ocispec.Descriptor, depth int) error {
	if !images.IsIndexType(d.MediaType) || depth == maxDepth {
		return nil
	}
	doc, err := readDocument(ctx, e.s.ContentStore(), d)
	if errdefs.IsNotFound(err) && depth > 0 {
		return nil
	}
	if err != nil {
		return err
	}
	x, err := decodeIndex(d, doc)
	if err != nil {
		return err
	}
	for _, c := range x.Manifests {
		if err := e.indexes(ctx, c, depth+1); err != nil {
			return err
		}
	}
	return e.blob(ctx, d)
}

// dockerEntry returns the entry of an image in manifest.json, made once.
func (e *export) dockerEntry(p *parsed) *dockerImage {
	if img := e.byID[p.desc.Digest]; img != nil {
		return img
	}
	img := &dockerImage{Config: blobPath(p.manifest.Config.Digest), Layers: []string{}}
	for _, l := range p.manifest.Layers {
		img.Layers = append(img.Layers, blobPath(l.Digest))
	}
	if e.byID == nil {
		e.byID = map[digest.Digest]*dockerImage{}
	}
	e.byID[p.desc.Digest] = img
	e.docker = append(e.docker, img)
	return img
}

// write writes the archive; the same images give the same bytes.
func (e *export) write(ctx context.Context, w io.Writer) error {
	tw := tar.NewWriter(w)
	if err := e.dirs(tw); err != nil {
		return err
	}
	for _, d := range slices.Sorted(maps.Keys(e.blobs)) {
		if err := e.writeBlob(ctx, tw, e.blobs[d]); err != nil {
			return err
		}
	}
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: e.entries}
	for _, f := range []struct {
		name string
		doc  any
	}{
		{ocispec.ImageIndexFile, index}, {"manifest.json", e.docker},
		{ocispec.ImageLayoutFile, ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion}},
	} {
		p, err := json.Marshal(f.doc)
		if err != nil {
			return err
		}
		if err := writeFile(tw, f.name, p); err != nil {
			return err
		}
	}
	return tw.Close()
}

func (e *export) dirs(tw *tar.Writer) error {
	names := []string{ocispec.ImageBlobsDir + "/"}
	for d := range e.blobs {
		if n := names[0] + d.Algorithm().String() + "/"; !slices.Contains(names, n) {
			names = append(names, n)
		}
	}
	slices.Sort(names)
	for _, n := range names {
		if err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: n, Mode: 0o755}); err != nil {
			return err
		}
	}
	return nil
}

func writeFile(tw *tar.Writer, name string, p []byte) error {
	if err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(p))}); err != nil {
		return err
	}
	_, err := tw.Write(p)
	return err
}

func (e *export) writeBlob(ctx context.Context, tw *tar.Writer, d ocispec.Descriptor) error {
	ra, err := e.s.ContentStore().ReaderAt(ctx, d)
	if err != nil {
		return err
	}
	defer ra.Close()
	if err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: blobPath(d.Digest), Mode: 0o444, Size: ra.Size()}); err != nil {
		return err
	}
	n, err := io.Copy(tw, content.NewReader(ra))
	if err == nil && n != ra.Size() {
		err = io.ErrUnexpectedEOF
	}
	return err
}
