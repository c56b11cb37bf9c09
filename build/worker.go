package build

import (
	"context"
	"fmt"
	"maps"
	"strconv"
	"strings"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/pkg/labels"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/moby/buildkit/cache"
	cacheconfig "github.com/moby/buildkit/cache/config"
	"github.com/moby/buildkit/cache/metadata"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/executor"
	"github.com/moby/buildkit/exporter"
	"github.com/moby/buildkit/frontend"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/compression"
	"github.com/moby/buildkit/worker/base"
	digest "github.com/opencontainers/go-digest"
	ociidentity "github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// danglingPrefix begins the names of images that a build gave none; BuildKit
// adds "@" and the digest (image/store's DanglingPrefix).
const danglingPrefix = "dangling"

// exporterMoby is what older clients call storing an image in the engine.
const exporterMoby = "moby"

// worker is BuildKit's worker with an image exporter that makes its result
// runnable at once.
type worker struct {
	*base.Worker
	opt Options
	// records is what BuildKit knows of its cache records.
	records *metadata.Store
}

// snapshotKey is where a cache record names its snapshot, if that has another
// name than the record.
const snapshotKey = "cache.snapshot"

// snapshot is the name of a cache record's snapshot.
func (w *worker) snapshot(record string) string {
	var name string
	if item, ok := w.records.Get(record); ok {
		if v := item.Get(snapshotKey); v != nil && v.Unmarshal(&name) == nil && name != "" {
			return name
		}
	}
	return record
}

// Exporter returns the exporter of a name. Storing an image also links its
// snapshots into the engine's chains.
func (w *worker) Exporter(name string, sm *session.Manager) (exporter.Exporter, error) {
	if name == exporterMoby {
		name = client.ExporterImage
	}
	e, err := w.Worker.Exporter(name, sm)
	if err != nil || name != client.ExporterImage {
		return e, err
	}
	return &storing{Exporter: e, w: w}, nil
}

// storing wraps the image exporter.
type storing struct {
	exporter.Exporter
	w *worker
}

func (s *storing) Resolve(ctx context.Context, id int, attrs map[string]string) (exporter.ExporterInstance, error) {
	own := maps.Clone(attrs)
	if own == nil {
		own = map[string]string{}
	}
	// Newer clients send names as the user wrote them. "*" is the name that the
	// build itself gives; what is pushed by digest has no tag.
	if byDigest, _ := strconv.ParseBool(own["push-by-digest"]); own["name"] != "*" && !byDigest {
		name, err := imageNames(strings.Split(own["name"], ","))
		if err != nil {
			return nil, err
		}
		own["name"] = name
	}
	if own["name"] == "" {
		own["dangling-name-prefix"] = danglingPrefix
	}
	delete(own, "unpack") // linking is better: nothing is extracted twice
	inst, err := s.Exporter.Resolve(ctx, id, own)
	if err != nil {
		return nil, err
	}
	return &storingInstance{ExporterInstance: inst, w: s.w}, nil
}

type storingInstance struct {
	exporter.ExporterInstance
	w *worker
}

// Export stores the image and links the snapshots of its platforms as chains.
func (i *storingInstance) Export(ctx context.Context, src *exporter.Source, info exporter.ExportBuildInfo) (map[string]string, exporter.FinalizeFunc, exporter.DescriptorReference, error) {
	resp, finalize, ref, err := i.ExporterInstance.Export(ctx, src, info)
	if err != nil {
		return resp, finalize, ref, err
	}
	if err := i.link(ctx, src, ref.Descriptor(), info.SessionID); err != nil {
		return nil, nil, nil, fmt.Errorf("link the built image: %w", err)
	}
	if i.w.opt.Built != nil {
		names := strings.Split(resp["image.name"], ",")
		i.w.opt.Built(ctx, names, images.Image{Target: ref.Descriptor()})
	}
	return resp, finalize, ref, nil
}

// link gives the snapshot of every result the name of its chain ID.
func (i *storingInstance) link(ctx context.Context, src *exporter.Source, target ocispec.Descriptor, sessionID string) error {
	refs := []cache.ImmutableRef{src.Ref}
	for _, r := range src.Refs {
		refs = append(refs, r)
	}
	for _, r := range refs {
		if r == nil {
			continue
		}
		chain, err := chainOf(ctx, r, session.NewGroup(sessionID))
		if err != nil {
			return err
		}
		if err := i.w.opt.Store.Link(ctx, target, chain, i.w.snapshot(r.ID())); err != nil {
			return err
		}
	}
	return nil
}

// chainOf makes sure that ref is a committed snapshot and returns the chain ID
// of its layers, "" if it has none.
func chainOf(ctx context.Context, ref cache.ImmutableRef, g session.Group) (digest.Digest, error) {
	remotes, err := ref.GetRemotes(ctx, false, cacheconfig.RefConfig{Compression: compression.New(compression.Default)}, false, g)
	if err != nil || len(remotes) == 0 {
		return "", err
	}
	var ids []digest.Digest
	for _, d := range remotes[0].Descriptors {
		id := digest.Digest(d.Annotations[labels.LabelUncompressed])
		if id == "" {
			return "", nil
		}
		ids = append(ids, id)
	}
	if len(ids) == 0 {
		return "", nil
	}
	if err := ref.Extract(ctx, g); err != nil {
		return "", err
	}
	return ociidentity.ChainID(ids), ref.Finalize(ctx)
}

// namedImages gives BuildKit the engine's image records: in the engine's
// namespace, and named by its rules (an image that loses its last name stays
// as a dangling one).
type namedImages struct {
	images.Store
	store Store
}

func (n namedImages) ctx(ctx context.Context) context.Context {
	return namespaces.WithNamespace(ctx, n.store.Namespace())
}

func (n namedImages) Get(ctx context.Context, name string) (images.Image, error) {
	return n.Store.Get(n.ctx(ctx), name)
}

func (n namedImages) List(ctx context.Context, filters ...string) ([]images.Image, error) {
	return n.Store.List(n.ctx(ctx), filters...)
}

// Create and Update both name the image: BuildKit calls one or the other,
// depending on whether the name exists.
func (n namedImages) Create(ctx context.Context, img images.Image) (images.Image, error) {
	if err := n.store.Name(ctx, img.Name, img.Target); err != nil {
		return images.Image{}, err
	}
	return n.Get(ctx, img.Name)
}

func (n namedImages) Update(ctx context.Context, img images.Image, _ ...string) (images.Image, error) {
	if _, err := n.Get(ctx, img.Name); err != nil {
		return images.Image{}, err
	}
	return n.Create(ctx, img)
}

func (n namedImages) Delete(ctx context.Context, name string, opts ...images.DeleteOpt) error {
	return n.Store.Delete(n.ctx(ctx), name, opts...)
}

// preferLocal makes FROM use an image that is here, unless the client asked
// to pull: what Docker's own builder does.
type preferLocal struct{ frontend.Frontend }

func (p preferLocal) Solve(ctx context.Context, llb frontend.FrontendLLBBridge, exec executor.Executor, opt map[string]string, inputs map[string]*pb.Definition, sid string, sm *session.Manager) (*frontend.Result, error) {
	if opt["image-resolve-mode"] == "" {
		own := map[string]string{}
		maps.Copy(own, opt)
		own["image-resolve-mode"] = pb.AttrImageResolveModePreferLocal
		opt = own
	}
	return p.Frontend.Solve(ctx, llb, exec, opt, inputs, sid, sm)
}
