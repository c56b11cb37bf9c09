package store

import (
	"context"
	"fmt"
	"sync"

	"github.com/containerd/containerd/v2/core/leases"
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

// arrivals tells what comes of each layer: perhaps a stream of its bytes, and
// when its blob is in the content store; and when the manifest and the
// configuration are there. nil means that all are there.
type arrivals struct {
	streams   []chan *tee
	here      []chan struct{}
	documents chan struct{}
}

func newArrivals(n int) *arrivals {
	a := &arrivals{documents: make(chan struct{})}
	for range n {
		a.streams = append(a.streams, make(chan *tee, 1))
		a.here = append(a.here, make(chan struct{}))
	}
	return a
}

// stream waits for a layer's download to begin; nil if there will be none.
func (a *arrivals) stream(ctx context.Context, i int) (*tee, error) {
	if a == nil {
		return nil, nil //nolint:nilnil // no stream is no error
	}
	select {
	case t := <-a.streams[i]:
		return t, context.Cause(ctx)
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// wait waits for a layer's blob.
func (a *arrivals) wait(ctx context.Context, i int) error {
	if a == nil {
		return nil
	}
	if err := waitFor(ctx, a.here[i]); err != nil {
		return err
	}
	return context.Cause(ctx)
}

// all waits for every blob when none needs to be unpacked.
func (a *arrivals) all(ctx context.Context) error {
	if a == nil {
		return nil
	}
	g, ctx := errgroup.WithContext(ctx)
	for i := range a.here {
		g.Go(func() error {
			t, err := a.stream(ctx, i)
			if t != nil {
				t.leave()
			}
			if err != nil {
				return err
			}
			return a.wait(ctx, i)
		})
	}
	return g.Wait()
}

// unpack makes and pins the chain of an image. Layers are unpacked side by
// side as they arrive and put on top of each other in order. ctx must hold a lease.
func (s *Store) unpack(ctx context.Context, p *parsed, coming *arrivals, out sink) error {
	defer s.sync.poke()
	if err := s.unpackLayers(ctx, p, coming, out); err != nil {
		return err
	}
	if coming != nil {
		if err := waitFor(ctx, coming.documents); err != nil {
			return err
		}
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

func (s *Store) unpackLayers(ctx context.Context, p *parsed, coming *arrivals, out sink) error {
	if p.chain == "" {
		return nil
	}
	if s.holdChain(ctx, p.chain) { // one look and one entry in the lease for all
		return coming.all(ctx)
	}
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
			l.coming, l.index = coming, i
			if err := l.unpack(ctx, parent); err != nil {
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
	coming *arrivals
	index  int
	out    sink
}

func (s *Store) newLayer(p *parsed, i int, out sink) *layer {
	l := &layer{s: s, desc: p.manifest.Layers[i], diffID: p.config.RootFS.DiffIDs[i], chain: p.chains[i], top: i == len(p.chains)-1, of: p.desc.Digest, out: out}
	if i > 0 {
		l.parent = p.chains[i-1].String()
	}
	return l
}

// unpack unpacks the layer as it comes, or else when its blob is there; it
// waits for the parent and commits.
func (l *layer) unpack(ctx context.Context, parent func() error) error {
	t, err := l.coming.stream(ctx, l.index)
	if err != nil {
		return err
	}
	arrived := func() error { return l.coming.wait(ctx, l.index) }
	if t != nil {
		done := l.unpackStream(ctx, t, arrived, parent)
		t.leave()
		if done {
			return nil
		}
	}
	// The blob may still be under way even if the layer is unpacked; a pull is
	// complete with it.
	if err := arrived(); err != nil {
		return err
	}
	if l.exists(ctx) {
		return parent()
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
	if err := l.s.unpacks.Acquire(ctx, 1); err != nil {
		return err
	}
	release := sync.OnceFunc(func() { l.s.unpacks.Release(1) })
	defer release()
	return l.extract(ctx, func(dir string) ([]string, error) {
		defer release()
		return l.s.applyLayer(ctx, l.desc, dir, l.diffID, l.s.driver.stacked, l.out)
	}, parent)
}

// unpackStream unpacks while the blob is downloaded, and commits when the blob
// was verified. If it cannot, now or at all, the blob is unpacked afterwards;
// so it waits for nobody: who unpacks this layer in another pull may wait for
// our download.
func (l *layer) unpackStream(ctx context.Context, t *tee, arrived, parent func() error) bool {
	if !l.s.driver.stacked || !isLayer(l.desc) || !l.s.unpacks.TryAcquire(1) {
		return false
	}
	release := sync.OnceFunc(func() { l.s.unpacks.Release(1) })
	defer release()
	unlock := l.s.keys.tryLock("chain:" + l.chain.String())
	if unlock == nil {
		return false
	}
	defer unlock()
	if l.exists(ctx) {
		return false
	}
	err := l.extract(ctx, func(dir string) ([]string, error) {
		defer release()
		implied, err := l.s.applyStream(ctx, t, l.desc, dir, l.diffID)
		t.leave()
		if err != nil {
			return nil, err
		}
		return implied, arrived()
	}, parent)
	if err != nil {
		l.s.log.Debug("unpack a layer while it comes", "layer", l.desc.Digest, "err", err)
	}
	return err == nil
}

func (l *layer) exists(ctx context.Context) bool {
	return l.s.holdChain(ctx, l.chain)
}

// holdChain reports whether a chain is unpacked, and adds it to the lease of
// ctx, so that it stays so.
func (s *Store) holdChain(ctx context.Context, chain digest.Digest) bool {
	is := func() bool {
		info, err := s.snap.Stat(ctx, chain.String())
		return err == nil && info.Kind == snapshots.KindCommitted
	}
	if !is() {
		return false
	}
	id, ok := leases.FromContext(ctx)
	if !ok {
		return true
	}
	err := s.leases.AddResource(ctx, leases.Lease{ID: id}, leases.Resource{ID: chain.String(), Type: "snapshots/" + s.driver.name})
	if err != nil {
		s.log.Warn("hold a chain", "chain", chain, "err", err)
		return false
	}
	return is() // it may have been collected meanwhile
}

// extract unpacks into a new snapshot and commits it.
func (l *layer) extract(ctx context.Context, apply func(dir string) (implied []string, err error), parent func() error) error {
	key := "extract-" + randomID() + " " + l.chain.String()
	under := ""
	if !l.s.driver.stacked {
		under = l.parent
	}
	mounts, err := l.s.snap.Prepare(ctx, key, under)
	if err != nil {
		return fmt.Errorf("make a snapshot for layer %s: %w", l.desc.Digest, err)
	}
	err = l.fill(ctx, mounts, apply, parent)
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
func (l *layer) fill(ctx context.Context, mounts []mount.Mount, apply func(string) ([]string, error), parent func() error) error {
	dir, err := mountDir(mounts)
	if err != nil {
		return err
	}
	implied, err := apply(dir)
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
	if l.s.driver.stacked {
		labels[unsyncedLabel] = unsynced{boot: l.s.sync.boot, blob: l.desc.Digest, diffID: l.diffID}.String()
	} else if err := l.s.syncFS(); err != nil { // such a layer holds those below, and cannot be restored alone
		return err
	}
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
