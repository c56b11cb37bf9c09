package build

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime/debug"

	"github.com/containerd/containerd/v2/core/diff/apply"
	"github.com/containerd/containerd/v2/plugins/diff/walking"
	"github.com/containerd/platforms"
	"github.com/moby/buildkit/cache/metadata"
	"github.com/moby/buildkit/cache/remotecache"
	"github.com/moby/buildkit/cache/remotecache/inline"
	"github.com/moby/buildkit/cache/remotecache/local"
	"github.com/moby/buildkit/cache/remotecache/registry"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/control"
	"github.com/moby/buildkit/frontend"
	dockerfile "github.com/moby/buildkit/frontend/dockerfile/builder"
	"github.com/moby/buildkit/frontend/gateway"
	"github.com/moby/buildkit/frontend/gateway/forwarder"
	"github.com/moby/buildkit/session"
	containerdsnapshot "github.com/moby/buildkit/snapshot/containerd"
	"github.com/moby/buildkit/solver"
	"github.com/moby/buildkit/solver/bboltcachestorage"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/leaseutil"
	"github.com/moby/buildkit/util/network"
	"github.com/moby/buildkit/version"
	bkworker "github.com/moby/buildkit/worker"
	"github.com/moby/buildkit/worker/base"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	bolt "go.etcd.io/bbolt"
	"google.golang.org/grpc"
)

// scratchDir is emptied when the daemon starts.
const scratchDir = "scratch"

// maxMessage bounds a gRPC message (bytes), as BuildKit's own daemon does.
const maxMessage = 16 << 20

// start brings BuildKit up over the engine's stores.
func start(ctx context.Context, opt Options) (_ *running, err error) {
	var closers []func() error
	closeAll := func() error {
		var errs []error
		for i := len(closers) - 1; i >= 0; i-- {
			errs = append(errs, closers[i]())
		}
		return errors.Join(errs...)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, closeAll())
		}
	}()

	sayVersion()
	w, err := newWorker(ctx, opt)
	if err != nil {
		return nil, err
	}
	closers = append(closers, w.Close)
	wc := &bkworker.Controller{}
	if err := wc.Add(w); err != nil {
		return nil, err
	}
	sessions, err := session.NewManager()
	if err != nil {
		return nil, err
	}
	gw, err := gateway.NewGatewayFrontend(wc.Infos(), nil)
	if err != nil {
		return nil, err
	}
	cacheStore, err := bboltcachestorage.NewStore(filepath.Join(opt.Root, "cache.db"))
	if err != nil {
		return nil, err
	}
	historyDB, err := bolt.Open(filepath.Join(opt.Root, "history.db"), 0o600, &bolt.Options{FreelistType: bolt.FreelistMapType})
	if err != nil {
		return nil, err
	}
	hosts, plans := opt.Store.RegistryHosts(), &planned{}
	ctl, err := control.NewController(control.Opt{
		SessionManager:   sessions,
		WorkerController: wc,
		Frontends: map[string]frontend.Frontend{
			"dockerfile.v0": preferLocal{forwarder.NewGatewayForwarder(wc.Infos(), plans.frontend(dockerfile.Build))},
			"gateway.v0":    preferLocal{gw},
		},
		CacheManager: solver.NewCacheManager(ctx, "local", cacheStore, bkworker.NewCacheResultStorage(wc)),
		ResolveCacheExporterFuncs: map[string]remotecache.ResolveCacheExporterFunc{
			"inline":   inline.ResolveCacheExporterFunc(),
			"local":    local.ResolveCacheExporterFunc(sessions),
			"registry": registry.ResolveCacheExporterFunc(sessions, hosts),
		},
		ResolveCacheImporterFuncs: map[string]remotecache.ResolveCacheImporterFunc{
			"local":    local.ResolveCacheImporterFunc(sessions),
			"registry": registry.ResolveCacheImporterFunc(sessions, w.ContentStore(), hosts),
		},
		HistoryDB:      historyDB,
		CacheStore:     cacheStore,
		LeaseManager:   w.LeaseManager(),
		ContentStore:   w.ContentStore(),
		GarbageCollect: w.GarbageCollect,
	})
	if err != nil {
		return nil, errors.Join(err, historyDB.Close(), cacheStore.Close())
	}
	closers = []func() error{ctl.Close} // it closes the workers and both databases

	server := grpc.NewServer(grpc.MaxRecvMsgSize(maxMessage), grpc.MaxSendMsgSize(maxMessage))
	ctl.Register(server)
	return &running{controller: ctl, sessions: sessions, server: server, worker: w, plans: plans, close: closeAll}, nil
}

// newWorker makes the one worker: this machine, this engine's stores.
func newWorker(ctx context.Context, opt Options) (*worker, error) {
	st := opt.Store
	scratch := filepath.Join(opt.Root, scratchDir)
	if err := os.MkdirAll(scratch, 0o700); err != nil {
		return nil, err
	}
	md, err := metadata.NewStore(filepath.Join(opt.Root, "metadata_v2.db"))
	if err != nil {
		return nil, err
	}
	cs := containerdsnapshot.NewContentStore(st.ContentStore(), st.Namespace())
	exec := newExecutor(opt, scratch)
	id, err := base.ID(opt.Root)
	if err != nil {
		return nil, errors.Join(err, md.Close())
	}
	bw, err := base.NewWorker(ctx, base.WorkerOpt{
		ID:               id,
		BuildkitVersion:  client.BuildkitVersion{Package: version.Package, Version: version.Version},
		GCPolicy:         gcPolicy(opt.Root),
		Root:             opt.Root,
		Labels:           map[string]string{"org.mobyproject.buildkit.worker.executor": "wherry", "org.mobyproject.buildkit.worker.snapshotter": st.SnapshotterName()},
		Platforms:        []ocispec.Platform{platforms.Normalize(platforms.DefaultSpec())},
		NetworkProviders: map[pb.NetMode]network.Provider{},
		Executor:         exec,
		Snapshotter:      containerdsnapshot.NewSnapshotter(st.SnapshotterName(), st.Snapshotter(), st.Namespace(), nil),
		ContentStore:     cs,
		Applier:          apply.NewFileSystemApplier(cs),
		Differ:           walking.NewWalkingDiff(cs),
		ImageStore:       namedImages{st.ImageStore(), st},
		RegistryHosts:    st.RegistryHosts(),
		LeaseManager:     leaseutil.WithNamespace(st.LeaseManager(), st.Namespace()),
		GarbageCollect:   st.GarbageCollect,
		MetadataStore:    md,
		MountPoolRoot:    filepath.Join(opt.Root, "cachemounts"),
	})
	if err != nil {
		return nil, errors.Join(err, md.Close())
	}
	return &worker{Worker: bw, opt: opt, records: md}, nil
}

// sayVersion makes BuildKit tell clients which release of it is linked in.
func sayVersion() {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return
	}
	for _, m := range info.Deps {
		if m.Path == version.Package {
			version.Version = m.Version //nolint:reassign // meant for a linker flag, which would say it twice
		}
	}
}
