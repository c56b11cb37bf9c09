package store

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wherry-engine/wherry/image"
)

// parsed is one platform's image as its manifest and configuration say.
// It is shared and must not be changed.
type parsed struct {
	desc     ocispec.Descriptor
	manifest ocispec.Manifest
	config   image.Config
	raw      []byte
	// chains are the chain IDs from the first layer up; chain is the last.
	chains []digest.Digest
	chain  digest.Digest
}

func (p *parsed) platform() ocispec.Platform { return p.config.Platform }

// parseCache remembers parsed manifests by digest, and what size they unpack to.
type parseCache struct {
	mu    sync.Mutex
	m     map[digest.Digest]*parsed
	sizes map[digest.Digest]int64
	tops  map[digest.Digest][]*parsed
}

func (c *parseCache) clear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.m, c.sizes, c.tops = nil, nil, nil
}

func (c *parseCache) get(d digest.Digest) *parsed {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.m[d]
}

func (c *parseCache) put(p *parsed) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.m == nil {
		c.m = map[digest.Digest]*parsed{}
	}
	c.m[p.desc.Digest] = p
}

// parse reads one manifest and its configuration from the content store. NotFound, InvalidArgument.
func (s *Store) parse(ctx context.Context, desc ocispec.Descriptor) (*parsed, error) {
	if p := s.parsed.get(desc.Digest); p != nil {
		return p, nil
	}
	cs := s.ContentStore()
	doc, err := readDocument(ctx, cs, desc)
	if err != nil {
		return nil, err
	}
	m, err := decodeManifest(desc, doc)
	if err != nil {
		return nil, err
	}
	raw, err := readDocument(ctx, cs, m.Config)
	if err != nil {
		return nil, err
	}
	p, err := newParsed(desc, m, raw)
	if err != nil {
		return nil, err
	}
	s.parsed.put(p)
	return p, nil
}

// newParsed checks that manifest and configuration belong together. InvalidArgument.
func newParsed(desc ocispec.Descriptor, m ocispec.Manifest, raw []byte) (*parsed, error) {
	p := &parsed{desc: desc, manifest: m, raw: raw}
	var err error
	if p.config, err = decodeConfig(raw); err != nil {
		return nil, fmt.Errorf("configuration %s: %w", m.Config.Digest, err)
	}
	ids := p.config.RootFS.DiffIDs
	if len(ids) != len(m.Layers) {
		return nil, fmt.Errorf("manifest %s has %d layers, its configuration %d: %w", desc.Digest, len(m.Layers), len(ids), errdefs.ErrInvalidArgument)
	}
	for i, id := range ids {
		if err := id.Validate(); err != nil {
			return nil, fmt.Errorf("configuration %s: diff ID %.100q: %w: %w", m.Config.Digest, id, err, errdefs.ErrInvalidArgument)
		}
		p.chains = append(p.chains, identity.ChainID(ids[:i+1:i+1]))
	}
	if len(p.chains) > 0 {
		p.chain = p.chains[len(p.chains)-1]
	}
	return p, nil
}

// decodeConfig reads an image configuration with Docker's members.
func decodeConfig(raw []byte) (image.Config, error) {
	var cfg image.Config
	if err := json.Unmarshal(raw, &cfg.Image); err != nil {
		return cfg, fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
	}
	var docker struct {
		Comment string `json:"comment"`
		Config  struct {
			Healthcheck json.RawMessage
			Shell       []string
			OnBuild     []string
		} `json:"config"`
	}
	if err := json.Unmarshal(raw, &docker); err != nil {
		return cfg, fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
	}
	cfg.DockerConfig = image.DockerConfig{Shell: docker.Config.Shell, OnBuild: docker.Config.OnBuild, Comment: docker.Comment}
	if h := docker.Config.Healthcheck; len(h) > 0 && string(h) != "null" {
		cfg.Healthcheck = h
	}
	return cfg, nil
}

// encodeConfig is the opposite of decodeConfig.
func encodeConfig(cfg image.Config) ([]byte, error) {
	base, err := json.Marshal(cfg.Image)
	if err != nil {
		return nil, err
	}
	var doc map[string]json.RawMessage
	if err := json.Unmarshal(base, &doc); err != nil {
		return nil, err
	}
	inner := map[string]json.RawMessage{}
	if raw := doc["config"]; raw != nil {
		if err := json.Unmarshal(raw, &inner); err != nil {
			return nil, err
		}
	}
	add := func(m map[string]json.RawMessage, key string, v any, empty bool) {
		if !empty && err == nil {
			m[key], err = json.Marshal(v)
		}
	}
	add(inner, "Healthcheck", json.RawMessage(cfg.Healthcheck), len(cfg.Healthcheck) == 0)
	add(inner, "Shell", cfg.Shell, len(cfg.Shell) == 0)
	add(inner, "OnBuild", cfg.OnBuild, len(cfg.OnBuild) == 0)
	add(doc, "config", inner, false)
	add(doc, "comment", cfg.Comment, cfg.Comment == "")
	if err != nil {
		return nil, err
	}
	return json.Marshal(doc)
}

// manifests lists the image manifests below a target, here or not, in order.
func (s *Store) manifests(ctx context.Context, target ocispec.Descriptor) ([]ocispec.Descriptor, error) {
	var list []ocispec.Descriptor
	err := s.walkManifests(ctx, target, 0, func(d ocispec.Descriptor) { list = append(list, d) })
	return list, err
}

func (s *Store) walkManifests(ctx context.Context, d ocispec.Descriptor, depth int, visit func(ocispec.Descriptor)) error {
	if !images.IsIndexType(d.MediaType) {
		visit(d)
		return nil
	}
	if depth == maxDepth {
		return fmt.Errorf("index %s is nested too deeply: %w", d.Digest, errdefs.ErrInvalidArgument)
	}
	doc, err := readDocument(ctx, s.ContentStore(), d)
	if err != nil {
		return err
	}
	x, err := decodeIndex(d, doc)
	if err != nil {
		return err
	}
	for _, c := range x.Manifests {
		if err := s.walkManifests(ctx, c, depth+1, visit); err != nil && !errdefs.IsNotFound(err) {
			return err
		}
	}
	return nil
}

// present lists the images below a target whose manifest and configuration are here.
func (s *Store) present(ctx context.Context, target ocispec.Descriptor) []*parsed {
	s.parsed.mu.Lock()
	list, ok := s.parsed.tops[target.Digest]
	s.parsed.mu.Unlock()
	if ok {
		return list
	}
	descs, err := s.manifests(ctx, target)
	if err != nil {
		return nil
	}
	for _, d := range descs {
		if isAttestation(d) || !images.IsManifestType(d.MediaType) {
			continue
		}
		if p, err := s.parse(ctx, d); err == nil {
			list = append(list, p)
		}
	}
	if len(list) > 0 {
		s.parsed.mu.Lock()
		defer s.parsed.mu.Unlock()
		if s.parsed.tops == nil {
			s.parsed.tops = map[digest.Digest][]*parsed{}
		}
		s.parsed.tops[target.Digest] = list
	}
	return list
}

// unpackedSize adds up the layers of a chain, in bytes; ok is false if it is not unpacked.
func (s *Store) unpackedSize(ctx context.Context, p *parsed) (size int64, ok bool) {
	s.parsed.mu.Lock()
	size, ok = s.parsed.sizes[p.chain]
	s.parsed.mu.Unlock()
	if ok || len(p.chains) == 0 {
		return size, true
	}
	// Along the parents, not by the chain ID of each layer: the snapshots below
	// the top of an image that was built here have names of the builder's.
	for key := p.chain.String(); key != ""; {
		info, err := s.snap.Stat(ctx, key)
		if err != nil {
			return 0, false
		}
		u, err := s.snap.Usage(ctx, key)
		if err != nil {
			return 0, false
		}
		size += u.Size
		key = info.Parent
	}
	s.parsed.mu.Lock()
	defer s.parsed.mu.Unlock()
	if s.parsed.sizes == nil {
		s.parsed.sizes = map[digest.Digest]int64{}
	}
	s.parsed.sizes[p.chain] = size
	return size, true
}

// forget drops what is known of a target that changed.
func (c *parseCache) forget(target digest.Digest) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.tops, target)
}
