package store

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/auxprogress"
	apievents "github.com/moby/moby/api/types/events"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/wherry-engine/wherry/image"
	"github.com/wherry-engine/wherry/ociref"
	"github.com/wherry-engine/wherry/registry/client"
)

// Push sends an image (or with All each tag of a repository) to its registry.
// Manifests are sent as they are here. Errors are in Docker's words: NotFound,
// PermissionDenied, Unauthenticated.
func (s *Store) Push(ctx context.Context, req image.PushRequest, p image.Progress) error {
	ref, err := ociref.Parse(req.Ref)
	if err != nil {
		return err
	}
	if ref.Digest != "" {
		return fmt.Errorf("cannot push a digest reference: %w", errdefs.ErrInvalidArgument)
	}
	ctx = s.context(ctx)
	refs := []ociref.Reference{ref.WithDefaultTag()}
	if req.All {
		if refs, err = s.tagsOf(ctx, ref); err != nil {
			return err
		}
	}
	for i, r := range refs {
		if err := s.pushOne(ctx, r, req, sink{p}, i == 0); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) tagsOf(ctx context.Context, ref ociref.Reference) ([]ociref.Reference, error) {
	list, err := s.repository(ctx, ref.Repository().String())
	if err != nil {
		return nil, err
	}
	var refs []ociref.Reference
	for _, it := range list {
		if r, err := ociref.Parse(it.name); err == nil {
			refs = append(refs, r)
		}
	}
	if len(refs) == 0 {
		return nil, fmt.Errorf("An image does not exist locally with the tag: %s: %w", ref.FamiliarName(), errdefs.ErrNotFound) //nolint:revive,staticcheck // Docker's text
	}
	return refs, nil
}

// push is one push under way.
type push struct {
	s      *Store
	ref    ociref.Reference
	auth   bool
	out    sink
	pusher remotes.Pusher
	track  docker.StatusTracker
}

func (s *Store) pushOne(ctx context.Context, ref ociref.Reference, req image.PushRequest, out sink, first bool) error {
	rec, err := s.images.Get(ctx, ref.String())
	if errdefs.IsNotFound(err) {
		return fmt.Errorf("An image does not exist locally with the tag: %s: %w", ref.FamiliarName(), errdefs.ErrNotFound) //nolint:revive,staticcheck // Docker's text
	}
	if err != nil {
		return err
	}
	target, err := s.pushTarget(ctx, rec.Target, ref, req)
	if err != nil {
		return err
	}
	ctx, done, err := s.lease(ctx) // what is sent must not be collected
	if err != nil {
		return err
	}
	defer done()
	if _, err := s.holdBlob(ctx, rec.Target); err != nil {
		return err
	}
	if first {
		out.status("", "The push refers to repository ["+ref.Name()+"]")
	}
	tracker := docker.NewInMemoryTracker()
	r := s.registry.Resolver(req.Auth, nil, tracker)
	p := &push{s: s, ref: ref, auth: req.Auth != nil, out: out, track: tracker}
	if p.pusher, err = r.Pusher(ctx, ref.String()+"@"+target.Digest.String()); err != nil {
		return p.explain(err)
	}
	if err := p.tree(ctx, target); err != nil {
		return err
	}
	s.emit(ctx, apievents.ActionPush, ref.Familiar(), ref.FamiliarName(), rec.Target)
	out.status("", fmt.Sprintf("%s: digest: %s size: %d", ref.Tag, target.Digest, target.Size))
	if images.IsIndexType(rec.Target.MediaType) && target.Digest != rec.Target.Digest {
		out.aux(auxprogress.ManifestPushedInsteadOfIndex{
			ManifestPushedInsteadOfIndex: true, OriginalIndex: rec.Target, SelectedManifest: target,
		})
	}
	out.aux(auxResult{Tag: ref.Tag, Digest: target.Digest.String(), Size: target.Size})
	return nil
}

// auxResult is what Docker sends for machines after a push.
type auxResult struct {
	Tag    string
	Digest string
	Size   int64
}

func (p *push) explain(err error) error { return client.PushError(p.ref, p.auth, err) }

// pushTarget decides what to send: the index if all of it is here, else the
// one manifest that is; with a platform, its manifest.
func (s *Store) pushTarget(ctx context.Context, target ocispec.Descriptor, ref ociref.Reference, req image.PushRequest) (ocispec.Descriptor, error) {
	if req.Platform != nil {
		p, err := s.choose(ctx, target, ref.Familiar(), req.Platform)
		if err != nil {
			return target, err
		}
		return bare(p.desc), s.allHere(ctx, p.desc)
	}
	if !images.IsIndexType(target.MediaType) {
		return target, s.allHere(ctx, target)
	}
	descs, err := s.manifests(ctx, target)
	if err != nil {
		return target, err
	}
	var have []ocispec.Descriptor
	for _, d := range descs {
		if s.describeManifest(ctx, d).Available {
			have = append(have, d)
		}
	}
	if len(have) == len(descs) {
		return target, nil
	}
	p, err := s.choose(ctx, target, ref.Familiar(), nil)
	if err != nil {
		return target, err
	}
	return bare(p.desc), s.allHere(ctx, p.desc)
}

// bare removes what an index says about a manifest.
func bare(d ocispec.Descriptor) ocispec.Descriptor {
	d.Platform, d.Annotations, d.URLs = nil, nil, nil
	return d
}

func (s *Store) allHere(ctx context.Context, d ocispec.Descriptor) error {
	p, err := s.parse(ctx, d)
	if err != nil {
		return err
	}
	for _, l := range p.manifest.Layers {
		if _, ok := s.blobSize(ctx, l); !ok {
			return fmt.Errorf("missing content: layer %s is not here, pull the image again: %w", l.Digest, errdefs.ErrNotFound)
		}
	}
	return nil
}

// tree sends what a manifest or index refers to, and then itself.
func (p *push) tree(ctx context.Context, d ocispec.Descriptor) error {
	doc, err := readDocument(ctx, p.s.ContentStore(), d)
	if err != nil {
		return fmt.Errorf("push: %w", err)
	}
	if images.IsIndexType(d.MediaType) {
		x, err := decodeIndex(d, doc)
		if err != nil {
			return err
		}
		for _, c := range x.Manifests {
			if err := p.tree(ctx, bare(c)); err != nil {
				return err
			}
		}
		return p.explain(p.send(ctx, d))
	}
	m, err := decodeManifest(d, doc)
	if err != nil {
		return err
	}
	if err := p.blobs(ctx, m); err != nil {
		return err
	}
	return p.explain(p.send(ctx, d))
}

// blobs sends layers and configuration side by side.
func (p *push) blobs(ctx context.Context, m ocispec.Manifest) error {
	for _, l := range m.Layers {
		p.out.status(short(l.Digest), "Preparing")
	}
	for i, l := range m.Layers {
		if i >= p.s.uploads.Load().n {
			p.out.status(short(l.Digest), "Waiting")
		}
	}
	g, ctx := errgroup.WithContext(ctx)
	sent := map[string]bool{}
	for i, d := range append([]ocispec.Descriptor{m.Config}, m.Layers...) {
		if sent[d.Digest.String()] {
			continue
		}
		sent[d.Digest.String()] = true
		out := p.out
		if i == 0 {
			out = sink{}
		}
		g.Go(func() error {
			room := p.s.uploads.Load()
			if err := room.Acquire(ctx, 1); err != nil {
				return err
			}
			defer room.Release(1)
			return p.explain(p.blob(ctx, d, out))
		})
	}
	return g.Wait()
}

// blob sends one blob, or learns that the registry has it.
func (p *push) blob(ctx context.Context, d ocispec.Descriptor, out sink) error {
	info, err := p.s.ContentStore().Info(ctx, d.Digest)
	if err != nil {
		return fmt.Errorf("push %s: %w", d.Digest, err)
	}
	d.Annotations = map[string]string{}
	if repos := info.Labels[sourceLabel+p.ref.Domain]; repos != "" {
		// The library looks under the host without its port.
		d.Annotations[sourceLabel+hostOnly(p.ref.Domain)] = repos
	}
	w, err := p.pusher.Push(ctx, d)
	if errdefs.IsAlreadyExists(err) {
		p.known(ctx, d, out)
		return p.s.noteSource(ctx, d.Digest, p.ref)
	}
	if err != nil {
		return err
	}
	defer w.Close()
	if err := p.copy(ctx, d, w, out); err != nil {
		return err
	}
	out.status(short(d.Digest), "Pushed")
	return p.s.noteSource(ctx, d.Digest, p.ref)
}

func hostOnly(domain string) string {
	u, err := url.Parse("//" + domain)
	if err != nil {
		return domain
	}
	return u.Hostname()
}

// known says why nothing needed to be sent.
func (p *push) known(ctx context.Context, d ocispec.Descriptor, out sink) {
	st, err := p.track.GetStatus(remotes.MakeRefKey(ctx, d))
	if err == nil && st.MountedFrom != "" {
		from := strings.TrimPrefix(st.MountedFrom, p.ref.Domain+"/")
		out.status(short(d.Digest), "Mounted from "+from)
		return
	}
	out.status(short(d.Digest), "Layer already exists")
}

func (p *push) copy(ctx context.Context, d ocispec.Descriptor, w content.Writer, out sink) error {
	ra, err := p.s.ContentStore().ReaderAt(ctx, d)
	if err != nil {
		return err
	}
	defer ra.Close()
	m := &meter{sink: out, id: short(d.Digest), action: "Pushing", total: d.Size}
	rd := &rewinding{ReadSeeker: io.NewSectionReader(ra, 0, ra.Size()), m: m}
	return content.Copy(ctx, w, rd, d.Size, d.Digest)
}

// rewinding reports how far a blob is sent, also when it must be sent again.
type rewinding struct {
	io.ReadSeeker
	m *meter
	n int64
}

func (r *rewinding) Read(b []byte) (int, error) {
	n, err := r.ReadSeeker.Read(b)
	r.n += int64(n)
	r.m.at(r.n)
	return n, err
}

func (r *rewinding) Seek(offset int64, whence int) (int64, error) {
	n, err := r.ReadSeeker.Seek(offset, whence)
	r.n = n
	return n, err
}

// send puts a manifest or index; only the root of a push gets the tag.
func (p *push) send(ctx context.Context, d ocispec.Descriptor) error {
	d = bare(d)
	w, err := p.pusher.Push(ctx, d)
	if errdefs.IsAlreadyExists(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer w.Close()
	return p.copy(ctx, d, w, sink{})
}
