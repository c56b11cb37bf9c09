package store

import (
	"context"
	"fmt"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
)

// labelDiffID and labelRef are how containerd's tools recognise unpacked layers.
const (
	labelRef  = "containerd.io/snapshot.ref"
	configRef = "containerd.io/gc.ref.snapshot."
)

// arrival tells when a layer's blob is in the content store; nil means that all are.
type arrival func(ctx context.Context, layer int) error

// unpack makes and pins the chain of an image. Layers are unpacked side by
// side as they arrive and put on top of each other in order. ctx must hold a lease.
func (s *Store) unpack(ctx context.Context, p *parsed, arrived arrival, out sink) error {
	if err := s.unpackLayers(ctx, p, arrived, out); err != nil {
		return err
	}
	if err := s.pinChain(ctx, p.chain, p.desc.Digest); err != nil {
		return err
	}
	return s.label(ctx, p.manifest.Config.Digest, s.chainLabel(p))
}

// chainLabel makes a configuration keep the chain that belongs to it.
func (s *Store) chainLabel(p *parsed) map[string]string {
	if p.chain == "" {
		return nil
	}
	return map[string]string{configRef + s.driver.name: p.chain.String()}
}

func (s *Store) unpackLayers(ctx context.Context, p *parsed, arrived arrival, out sink) error {
	g, ctx := errgroup.WithContext(ctx)
	committed := make([]chan struct{}, len(p.chains))
	for i := range committed {
		committed[i] = make(chan struct{})
	}
	for i := range p.chains {
		g.Go(func() error {
			l := s.newLayer(p, i, out)
			parent := func() error { return nil }
			if i > 0 {
				parent = func() error { return waitFor(ctx, committed[i-1]) }
			}
			wait := func() error { return nil }
			if arrived != nil {
				wait = func() error { return arrived(ctx, i) }
			}
			if err := l.unpack(ctx, wait, parent); err != nil {
				return err
			}
			close(committed[i])
			return nil
		})
	}
	return g.Wait()
}

func waitFor(ctx context.Context, c <-chan struct{}) error {
	select {
	case <-c:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// layer is one layer being unpacked.
type layer struct {
	s      *Store
	desc   ocispec.Descriptor
	diffID digest.Digest
	chain  digest.Digest
	parent string
	top    bool
	of     digest.Digest // manifest
	out    sink
}

func (s *Store) newLayer(p *parsed, i int, out sink) *layer {
	l := &layer{s: s, desc: p.manifest.Layers[i], diffID: p.config.RootFS.DiffIDs[i], chain: p.chains[i], top: i == len(p.chains)-1, of: p.desc.Digest, out: out}
	if i > 0 {
		l.parent = p.chains[i-1].String()
	}
	return l
}

// unpack waits for the blob, unpacks it, waits for the parent and commits.
func (l *layer) unpack(ctx context.Context, arrived, parent func() error) error {
	if l.exists(ctx) {
		// The blob may still be under way; a pull is complete with it.
		if err := arrived(); err != nil {
			return err
		}
		return parent()
	}
	if err := arrived(); err != nil {
		return err
	}
	if !isLayer(l.desc) {
		return fmt.Errorf("layer %s: media type %.100q cannot be unpacked: %w", l.desc.Digest, l.desc.MediaType, errdefs.ErrInvalidArgument)
	}
	if !l.s.driver.stacked {
		if err := parent(); err != nil {
			return err
		}
	}
	unlock := l.s.keys.lock("chain:" + l.chain.String())
	defer unlock()
	if l.exists(ctx) {
		return parent()
	}
	return l.extract(ctx, parent)
}

func (l *layer) exists(ctx context.Context) bool {
	info, err := l.s.snap.Stat(ctx, l.chain.String())
	return err == nil && info.Kind == snapshots.KindCommitted
}

// extract unpacks into a new snapshot and commits it.
func (l *layer) extract(ctx context.Context, parent func() error) error {
	key := "extract-" + randomID() + " " + l.chain.String()
	under := ""
	if !l.s.driver.stacked {
		under = l.parent
	}
	mounts, err := l.s.snap.Prepare(ctx, key, under)
	if err != nil {
		return fmt.Errorf("make a snapshot for layer %s: %w", l.desc.Digest, err)
	}
	err = l.fill(ctx, mounts, parent)
	if err == nil {
		err = l.commit(ctx, key)
	}
	if err != nil {
		if rmErr := l.s.snap.Remove(context.WithoutCancel(ctx), key); rmErr != nil && !errdefs.IsNotFound(rmErr) {
			l.s.log.Warn("remove an unfinished layer", "layer", l.desc.Digest, "err", rmErr)
		}
		l.s.gc.poke()
		return err
	}
	l.out.status(short(l.desc.Digest), "Pull complete")
	return nil
}

// fill writes the layer's files and gives directories that only lower layers
// describe their attributes.
func (l *layer) fill(ctx context.Context, mounts []mount.Mount, parent func() error) error {
	dir, err := mountDir(mounts)
	if err != nil {
		return err
	}
	if err := l.s.unpacks.Acquire(ctx, 1); err != nil {
		return err
	}
	implied, err := l.s.applyLayer(ctx, l.desc, dir, l.diffID, l.s.driver.stacked, l.out)
	l.s.unpacks.Release(1)
	if err != nil {
		return err
	}
	if err := parent(); err != nil {
		return err
	}
	if !l.s.driver.stacked || l.parent == "" || len(implied) == 0 {
		return nil
	}
	lower, err := l.s.layerDirs(ctx, digest.Digest(l.parent))
	if err != nil {
		return err
	}
	return inheritAttributes(dir, lower, implied)
}

func (l *layer) commit(ctx context.Context, key string) error {
	labels := map[string]string{labelRef: l.chain.String()}
	if l.top {
		for k, v := range pinLabels(l.of) {
			labels[k] = v
		}
	}
	opts := []snapshots.Opt{snapshots.WithLabels(labels)}
	if l.s.driver.stacked && l.parent != "" {
		opts = append(opts, snapshots.WithParent(l.parent))
	}
	err := l.s.snap.Commit(ctx, l.chain.String(), key, opts...)
	if errdefs.IsAlreadyExists(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("commit layer %s: %w", l.desc.Digest, err)
	}
	return nil
}

// mountDir finds the writable directory of a prepared snapshot without mounting it.
func mountDir(mounts []mount.Mount) (string, error) {
	if len(mounts) == 1 && (mounts[0].Type == "bind" || mounts[0].Type == "rbind") {
		return mounts[0].Source, nil
	}
	return "", fmt.Errorf("storage driver asks for a mount to unpack: %w", errdefs.ErrNotImplemented)
}
