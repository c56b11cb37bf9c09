package store

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Link makes a chain of an image that was built here out of the snapshot that
// holds its files, as an empty layer above it: nothing is copied or unpacked, and
// the snapshot stays as long as the chain. It does nothing if no image of the
// target has such a chain. What a power cut may take from it is unpacked from
// the image's blobs, as after a pull.
func (s *Store) Link(ctx context.Context, target ocispec.Descriptor, chain digest.Digest, snapshot string) error {
	ctx = s.context(ctx)
	list := s.present(ctx, target)
	i := slices.IndexFunc(list, func(p *parsed) bool { return p.chain == chain })
	if i < 0 || chain == "" {
		return nil
	}
	p := list[i]
	_, err := s.snap.Stat(ctx, chain.String())
	if errdefs.IsNotFound(err) {
		err = s.link(ctx, p, snapshot)
	}
	if err != nil {
		return err
	}
	return s.label(ctx, p.manifest.Config.Digest, s.chainLabel(p))
}

func (s *Store) link(ctx context.Context, p *parsed, snapshot string) error {
	key := "link-" + randomID()
	if _, err := s.snap.Prepare(ctx, key, snapshot); err != nil {
		return fmt.Errorf("prepare %s over %s: %w", p.chain, snapshot, err)
	}
	label := snapshots.WithLabels(map[string]string{unsyncedLabel: unsynced{boot: s.sync.boot, built: p.desc.Digest}.String()})
	err := s.snap.Commit(ctx, p.chain.String(), key, label)
	if errdefs.IsAlreadyExists(err) {
		return s.snap.Remove(ctx, key)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("commit %s: %w", p.chain, err), s.snap.Remove(ctx, key))
	}
	s.sync.poke()
	return nil
}

// unlink replaces a chain that was made by Link by one that is unpacked from
// blobs. No writable layer is mounted yet.
func (s *Store) unlink(ctx context.Context, chain string, manifest digest.Digest) error {
	if err := s.removeTree(ctx, chain); err != nil {
		return err
	}
	info, err := s.ContentStore().Info(ctx, manifest)
	if err != nil {
		return err
	}
	desc := ocispec.Descriptor{Digest: manifest, Size: info.Size}
	doc, err := readDocument(ctx, s.ContentStore(), desc)
	if err != nil {
		return err
	}
	desc.MediaType = detectMediaType(doc)
	p, err := s.parse(ctx, desc)
	if err != nil {
		return err
	}
	return s.making(ctx, func(ctx context.Context) error { return s.unpack(ctx, p, nil, sink{}) })
}
