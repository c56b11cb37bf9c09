package store

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	// pinLabel marks a chain that an image or a writable layer may need. The
	// collector keeps snapshots that carry it.
	pinLabel = "containerd.io/gc.root"
	// pinContent is the prefix of labels that keep the manifests a chain came from.
	pinContent = "containerd.io/gc.ref.content.wherry."
)

// chains knows which chains writable layers use, and the directories of each.
type chains struct {
	mu      sync.Mutex
	dirs    map[digest.Digest][]string
	refs    map[digest.Digest]int
	adopted bool

	// pin is held while a chain is pinned or unpinned in the database.
	pin sync.Mutex
}

// Acquire says that a writable layer uses the chain, which then stays until
// Release, and returns the chain's directories, topmost first (none for
// drivers without). No disk is written. NotFound if the chain is not unpacked.
// The empty chain is that of an image without layers.
func (s *Store) Acquire(ctx context.Context, chain digest.Digest) ([]string, error) {
	if chain == "" {
		return nil, nil
	}
	if dirs, ok := s.chains.acquireCached(chain); ok {
		return dirs, nil
	}
	ctx = s.context(ctx)
	s.chains.pin.Lock()
	defer s.chains.pin.Unlock()
	info, err := s.snap.Stat(ctx, chain.String())
	if err != nil {
		return nil, fmt.Errorf("chain %s: %w", chain, err)
	}
	if _, ok := info.Labels[pinLabel]; !ok {
		if err := s.setPin(ctx, chain, ""); err != nil {
			return nil, err
		}
	}
	dirs, err := s.dirsOf(ctx, chain)
	if err != nil {
		return nil, err
	}
	s.chains.add(chain, dirs, 1)
	return dirs, nil
}

func (s *Store) dirsOf(ctx context.Context, chain digest.Digest) ([]string, error) {
	if !s.driver.stacked {
		return nil, nil
	}
	return s.layerDirs(ctx, chain)
}

func (c *chains) acquireCached(chain digest.Digest) ([]string, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	dirs, ok := c.dirs[chain]
	if ok {
		c.refs[chain]++
	}
	return dirs, ok
}

// used reports whether a writable layer uses a chain.
func (c *chains) used(chain digest.Digest) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.refs[chain] > 0
}

// inUse lists the chains that writable layers use.
func (c *chains) inUse() []digest.Digest {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Collect(maps.Keys(c.refs))
}

func (c *chains) add(chain digest.Digest, dirs []string, refs int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dirs == nil {
		c.dirs, c.refs = map[digest.Digest][]string{}, map[digest.Digest]int{}
	}
	c.dirs[chain] = dirs
	c.refs[chain] += refs
}

// Release ends what Acquire or Adopt began.
func (s *Store) Release(chain digest.Digest) {
	if chain == "" {
		return
	}
	c := &s.chains
	c.mu.Lock()
	c.refs[chain]--
	last := c.refs[chain] <= 0
	if last {
		delete(c.refs, chain)
	}
	c.mu.Unlock()
	if last {
		s.gc.poke()
	}
}

// Adopt tells, once after Open, the chains of the writable layers that exist
// (one entry for each layer). Chains are not collected before.
func (s *Store) Adopt(ctx context.Context, list []digest.Digest) {
	ctx = s.context(ctx)
	for _, chain := range list {
		if chain == "" {
			continue
		}
		dirs, err := s.dirsOf(ctx, chain)
		if err != nil {
			s.log.Warn("the chain of a writable layer is lost", "chain", chain, "err", err)
			continue
		}
		s.chains.add(chain, dirs, 1)
	}
	s.chains.mu.Lock()
	s.chains.adopted = true
	s.chains.mu.Unlock()
	s.gc.poke()
}

// pinChain marks an unpacked chain as needed, with the manifest it came from.
func (s *Store) pinChain(ctx context.Context, chain, manifest digest.Digest) error {
	if chain == "" {
		return nil
	}
	s.chains.pin.Lock()
	defer s.chains.pin.Unlock()
	info, err := s.snap.Stat(ctx, chain.String())
	if err != nil {
		return fmt.Errorf("chain %s: %w", chain, err)
	}
	_, pinned := info.Labels[pinLabel]
	if _, ok := info.Labels[pinContent+short(manifest)]; !pinned || !ok {
		if err := s.setPin(ctx, chain, manifest); err != nil {
			return err
		}
	}
	dirs, err := s.dirsOf(ctx, chain)
	if err != nil {
		return err
	}
	s.chains.add(chain, dirs, 0)
	return nil
}

// pinTarget makes the chain of an index' default image keep the index too, so
// that a container's image can be found by its ID when it was removed.
func (s *Store) pinTarget(ctx context.Context, target ocispec.Descriptor) error {
	if !images.IsIndexType(target.MediaType) {
		return nil
	}
	for _, p := range s.present(ctx, target) {
		info, err := s.snap.Stat(ctx, p.chain.String())
		if err != nil || info.Labels[pinContent+short(target.Digest)] != "" {
			continue // not unpacked, or done
		}
		s.chains.pin.Lock()
		err = s.setPin(ctx, p.chain, target.Digest)
		s.chains.pin.Unlock()
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) setPin(ctx context.Context, chain, manifest digest.Digest) error {
	labels := pinLabels(manifest)
	fields := make([]string, 0, len(labels))
	for k := range labels {
		fields = append(fields, "labels."+k)
	}
	_, err := s.snap.Update(ctx, snapshots.Info{Name: chain.String(), Labels: labels}, fields...)
	if err != nil {
		return fmt.Errorf("pin chain %s: %w", chain, err)
	}
	return nil
}

func pinLabels(manifest digest.Digest) map[string]string {
	labels := map[string]string{pinLabel: time.Now().UTC().Format(time.RFC3339)}
	if manifest != "" {
		labels[pinContent+short(manifest)] = manifest.String()
	}
	return labels
}

// unpinUnneeded removes the pins of chains that no image and no writable layer
// needs. It does nothing before Adopt.
func (s *Store) unpinUnneeded(ctx context.Context) error {
	s.chains.mu.Lock()
	adopted := s.chains.adopted
	s.chains.mu.Unlock()
	if !adopted {
		return nil
	}
	pinned, err := s.pinnedChains(ctx)
	if err != nil || len(pinned) == 0 {
		return err
	}
	needed, err := s.neededChains(ctx)
	if err != nil {
		return err
	}
	for chain, labels := range pinned {
		if err := s.trimPin(ctx, chain, labels, needed); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) pinnedChains(ctx context.Context) (map[digest.Digest]map[string]string, error) {
	pinned := map[digest.Digest]map[string]string{}
	err := s.snap.Walk(ctx, func(_ context.Context, info snapshots.Info) error {
		if _, ok := info.Labels[pinLabel]; ok && info.Kind == snapshots.KindCommitted && digest.Digest(info.Name).Validate() == nil {
			pinned[digest.Digest(info.Name)] = info.Labels
		}
		return nil
	})
	if errdefs.IsNotFound(err) {
		return nil, nil
	}
	return pinned, err
}

// neededChains maps the chains of all images to their manifests.
func (s *Store) neededChains(ctx context.Context) (map[digest.Digest][]digest.Digest, error) {
	list, err := s.images.List(ctx)
	if err != nil {
		return nil, err
	}
	needed := map[digest.Digest][]digest.Digest{}
	seen := map[digest.Digest]bool{}
	for _, img := range list {
		if seen[img.Target.Digest] {
			continue
		}
		seen[img.Target.Digest] = true
		for _, p := range s.present(ctx, img.Target) {
			needed[p.chain] = append(needed[p.chain], p.desc.Digest, img.Target.Digest)
		}
	}
	return needed, nil
}

// trimPin removes what is not needed any more from one chain's labels.
func (s *Store) trimPin(ctx context.Context, chain digest.Digest, labels map[string]string, needed map[digest.Digest][]digest.Digest) error {
	s.chains.pin.Lock()
	defer s.chains.pin.Unlock()
	manifests, byImage := needed[chain]
	s.chains.mu.Lock()
	inUse := s.chains.refs[chain] > 0
	if !inUse && !byImage {
		delete(s.chains.dirs, chain)
	}
	s.chains.mu.Unlock()
	if inUse {
		return nil
	}
	drop := map[string]string{}
	if !byImage {
		drop[pinLabel] = ""
	}
	for k, v := range labels {
		if strings.HasPrefix(k, pinContent) && !slices.Contains(manifests, digest.Digest(v)) {
			drop[k] = ""
		}
	}
	if len(drop) == 0 {
		return nil
	}
	fields := make([]string, 0, len(drop))
	for k := range maps.Keys(drop) {
		fields = append(fields, "labels."+k)
	}
	_, err := s.snap.Update(ctx, snapshots.Info{Name: chain.String(), Labels: drop}, fields...)
	if errdefs.IsNotFound(err) {
		return nil
	}
	return err
}
