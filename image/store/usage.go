package store

import (
	"context"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wherry-engine/wherry/image"
)

// diskTotal adds up blobs and committed layers, the build cache's too.
func (s *Store) diskTotal(ctx context.Context) (int64, error) {
	var total int64
	err := s.ContentStore().Walk(ctx, func(i content.Info) error {
		total += i.Size
		return nil
	})
	if err != nil {
		return 0, err
	}
	var keys []string
	err = s.snap.Walk(ctx, func(_ context.Context, i snapshots.Info) error {
		if i.Kind == snapshots.KindCommitted {
			keys = append(keys, i.Name)
		}
		return nil
	})
	if err != nil && !errdefs.IsNotFound(err) {
		return 0, err
	}
	for _, k := range keys {
		if u, err := s.snap.Usage(ctx, k); err == nil {
			total += u.Size
		}
	}
	return total, nil
}

// needed adds up the blobs and layers that images need, and the layers that
// writable layers stand on. What the build cache alone keeps is not in it.
func (s *Store) needed(ctx context.Context) (*tally, error) {
	all, err := s.groups(ctx)
	if err != nil {
		return nil, err
	}
	t := &tally{s: s, blobs: map[digest.Digest]bool{}, snapshots: map[string]bool{}}
	for _, g := range all {
		if err := images.Walk(ctx, images.HandlerFunc(t.blob), g.target); err != nil {
			return nil, err
		}
		for _, p := range s.present(ctx, g.target) {
			t.chain(ctx, p.chain)
		}
	}
	for _, chain := range s.chains.inUse() {
		t.chain(ctx, chain)
	}
	return t, nil
}

// NeededSnapshots are the names of the unpacked layers that images need, or that
// writable layers stand on.
func (s *Store) NeededSnapshots(ctx context.Context) (map[string]bool, error) {
	t, err := s.needed(s.context(ctx))
	if err != nil {
		return nil, err
	}
	return t.snapshots, nil
}

// tally adds up blobs and layers, each once.
type tally struct {
	s         *Store
	blobs     map[digest.Digest]bool
	snapshots map[string]bool
	bytes     int64
}

// blob adds a blob that is here, and returns those it names. One that cannot be
// read as what it claims to be names none.
func (t *tally) blob(ctx context.Context, d ocispec.Descriptor) ([]ocispec.Descriptor, error) {
	n, ok := t.s.blobSize(ctx, d)
	if !ok || t.blobs[d.Digest] {
		return nil, images.ErrSkipDesc
	}
	t.blobs[d.Digest] = true
	t.bytes += n
	children, err := images.Children(ctx, t.s.ContentStore(), d)
	if err != nil {
		return nil, images.ErrSkipDesc
	}
	return children, nil
}

// chain adds a layer and those below it, as far as they are unpacked.
func (t *tally) chain(ctx context.Context, chain digest.Digest) {
	for key := chain.String(); key != "" && !t.snapshots[key]; {
		info, err := t.s.snap.Stat(ctx, key)
		if err != nil {
			return
		}
		t.snapshots[key] = true
		if u, err := t.s.snap.Usage(ctx, key); err == nil {
			t.bytes += u.Size
		}
		key = info.Parent
	}
}

// DiskUsage returns what the images take together and what each shares.
func (s *Store) DiskUsage(ctx context.Context) (image.Usage, error) {
	ctx = s.context(ctx)
	t, err := s.needed(ctx)
	if err != nil {
		return image.Usage{}, err
	}
	u := image.Usage{Total: t.bytes}
	u.Shared, err = s.shared(ctx)
	return u, err
}

// shared computes for each image the bytes of layers that others have too.
func (s *Store) shared(ctx context.Context) (map[digest.Digest]int64, error) {
	all, err := s.groups(ctx)
	if err != nil {
		return nil, err
	}
	users := map[digest.Digest]int{}
	chosen := map[digest.Digest]*parsed{}
	for _, g := range all {
		p, err := s.choose(ctx, g.target, "", nil)
		if err != nil {
			continue
		}
		chosen[g.target.Digest] = p
		for _, c := range p.chains {
			users[c]++
		}
	}
	out := map[digest.Digest]int64{}
	for id, p := range chosen {
		out[id] = 0
		for _, c := range p.chains {
			if users[c] < 2 {
				continue
			}
			if u, err := s.snap.Usage(ctx, c.String()); err == nil {
				out[id] += u.Size
			}
		}
	}
	return out, nil
}

// Shared maps image IDs to the bytes of layers that other images have too.
func (s *Store) Shared(ctx context.Context) (map[digest.Digest]int64, error) {
	return s.shared(s.context(ctx))
}

// Details adds what only some callers want to know.
func (s *Store) Details(ctx context.Context, img image.Image) (image.Details, error) {
	ctx = s.context(ctx)
	d := image.Details{Driver: s.driver.name}
	records, err := s.namesOf(ctx, img.ID)
	if err != nil {
		return d, err
	}
	for _, r := range records {
		if p := r.Labels[parentLabel]; p != "" {
			d.ParentID = digest.Digest(p)
		}
	}
	if s.driver.stacked && img.Chain != "" {
		if dirs, err := s.layerDirs(ctx, img.Chain); err == nil {
			d.Dirs = dirs
		}
	}
	descs, err := s.manifests(ctx, img.Target)
	if err != nil {
		return d, err
	}
	for _, m := range descs {
		d.Manifests = append(d.Manifests, s.describeManifest(ctx, m))
	}
	return d, nil
}

func (s *Store) describeManifest(ctx context.Context, desc ocispec.Descriptor) image.Manifest {
	m := image.Manifest{Desc: desc, Attestation: isAttestation(desc)}
	if desc.Platform != nil {
		m.Platform = *desc.Platform
	}
	if m.Attestation {
		m.For = digest.Digest(desc.Annotations["vnd.docker.reference.digest"])
	}
	p, err := s.parse(ctx, desc)
	if err != nil {
		m.Content, _ = s.blobSize(ctx, desc)
		return m
	}
	m.Available = true
	if !m.Attestation {
		m.Platform, m.Config = p.platform(), p.manifest.Config.Digest
	}
	for _, b := range append([]ocispec.Descriptor{desc, p.manifest.Config}, p.manifest.Layers...) {
		n, ok := s.blobSize(ctx, b)
		m.Content += n
		m.Available = m.Available && ok
	}
	if !m.Attestation {
		m.Unpacked, _ = s.unpackedSize(ctx, p)
	}
	return m
}

func (s *Store) blobSize(ctx context.Context, d ocispec.Descriptor) (int64, bool) {
	i, err := s.ContentStore().Info(ctx, d.Digest)
	return i.Size, err == nil
}

// History returns the steps that made an image, newest first.
func (s *Store) History(ctx context.Context, img image.Image) ([]image.Step, error) {
	ctx = s.context(ctx)
	p, err := s.parse(ctx, img.Manifest)
	if err != nil {
		return nil, err
	}
	list := make([]image.Step, 0, len(p.config.History))
	layer := 0
	for _, h := range p.config.History {
		e := image.Step{History: h}
		if !h.EmptyLayer && layer < len(p.chains) {
			if u, err := s.snap.Usage(ctx, p.chains[layer].String()); err == nil {
				e.Size = u.Size
			}
			layer++
		}
		list = append(list, e)
	}
	for i, j := 0, len(list)-1; i < j; i, j = i+1, j-1 {
		list[i], list[j] = list[j], list[i]
	}
	return list, nil
}

// Platforms lists the images of all platforms that are here.
func (s *Store) Platforms(ctx context.Context, img image.Image) ([]image.Image, error) {
	ctx = s.context(ctx)
	records, err := s.namesOf(ctx, img.ID)
	if err != nil {
		return nil, err
	}
	g := &group{target: img.Target, records: records}
	var list []image.Image
	for _, p := range s.present(ctx, img.Target) {
		list = append(list, s.toImage(ctx, g, p))
	}
	return list, nil
}
