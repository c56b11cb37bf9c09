package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/metadata"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/gc"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/plugins/content/local"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"go.etcd.io/bbolt"
	"golang.org/x/sync/semaphore"

	"github.com/wherry-engine/wherry/events"
	"github.com/wherry-engine/wherry/image"
	"github.com/wherry-engine/wherry/registry/client"
)

// Namespace of containerd's metadata that holds everything of the store.
const Namespace = "wherry"

// Docker's defaults.
const (
	defaultDownloads = 3
	defaultUploads   = 5
	defaultAttempts  = 5

	lockTimeout = 10 * time.Second
)

// Options of a Store. Root is required.
type Options struct {
	// Root is the data root: content/, snapshots/ and metadata.db are made in it.
	Root string
	// SnapshotterName is the storage driver: "" or overlay2, overlayfs;
	// native or vfs. InvalidArgument for others.
	SnapshotterName string
	// Registry talks to registries; nil makes one with default options.
	Registry *client.Client
	// MaxConcurrentDownloads and MaxConcurrentUploads of layers, over all
	// transfers (default 3 and 5); MaxDownloadAttempts for each (default 5).
	MaxConcurrentDownloads int
	MaxConcurrentUploads   int
	MaxDownloadAttempts    int
	// Builtin images, by familiar name, are loaded from an archive when they
	// are asked for and not there, instead of from a registry.
	Builtin map[string]func() (io.ReadCloser, error)
	// Platform is the default for choosing from an index; nil is the host's.
	Platform *ocispec.Platform
	// Events is told what happens to images; nil tells nobody.
	Events events.Publisher
	Logger *slog.Logger
}

// Store holds images. It implements image.Resolver, image.Transfer and
// image.Tagger, and is safe for concurrent use.
type Store struct {
	opts     Options
	log      *slog.Logger
	registry *client.Client
	platform ocispec.Platform

	bolt   *bbolt.DB
	meta   *metadata.DB
	images *records
	leases leases.Manager
	snap   snapshots.Snapshotter
	driver driver

	downloads, uploads atomic.Pointer[limit]
	attempts           atomic.Int64
	unpacks            *semaphore.Weighted

	keys   keyed
	parsed parseCache
	chains chains
	gc     collector
	sync   syncer

	close sync.Once
}

var (
	_ image.Resolver = (*Store)(nil)
	_ image.Transfer = (*Store)(nil)
	_ image.Tagger   = (*Store)(nil)

	_ image.Inspector = (*Store)(nil)
)

// Open opens or makes a store. What a killed daemon left half-done is removed
// in the background, except partial downloads, which are resumed. Layers that
// a power cut may have damaged are unpacked again before it returns.
func Open(opts Options) (*Store, error) {
	s := &Store{opts: withDefaults(opts)}
	s.log, s.registry = s.opts.Logger, s.opts.Registry
	s.platform = *s.opts.Platform
	if s.registry == nil {
		c, err := client.New(client.Options{Logger: s.log})
		if err != nil {
			return nil, err
		}
		s.registry = c
	}
	if err := s.open(); err != nil {
		return nil, fmt.Errorf("open image store: %w", err)
	}
	s.SetLimits(s.opts.MaxConcurrentDownloads, s.opts.MaxConcurrentUploads, s.opts.MaxDownloadAttempts)
	s.unpacks = semaphore.NewWeighted(int64(max(2, runtime.GOMAXPROCS(0))))
	ctx := s.context(context.Background()) //nolint:contextcheck // the store outlives its opener
	if err := errors.Join(s.restore(ctx), s.tidy(ctx)); err != nil {
		return nil, errors.Join(fmt.Errorf("open image store: %w", err), s.bolt.Close())
	}
	s.gc.start(s)
	s.sync.start(s)
	return s, nil
}

// limit bounds how many layers are transferred at a time.
type limit struct {
	*semaphore.Weighted
	n int
}

// SetLimits changes how many layers are transferred at a time and how often a
// download is tried, 0 to the default. What waits for its turn keeps the old
// limits.
func (s *Store) SetLimits(downloads, uploads, attempts int) {
	set := func(l *atomic.Pointer[limit], n, usual int) {
		if n <= 0 {
			n = usual
		}
		if old := l.Load(); old == nil || old.n != n {
			l.Store(&limit{semaphore.NewWeighted(int64(n)), n})
		}
	}
	set(&s.downloads, downloads, defaultDownloads)
	set(&s.uploads, uploads, defaultUploads)
	if attempts <= 0 {
		attempts = defaultAttempts
	}
	s.attempts.Store(int64(attempts))
}

func withDefaults(o Options) Options {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Platform == nil {
		p := hostPlatform()
		o.Platform = &p
	}
	return o
}

func (s *Store) open() error {
	for _, dir := range []string{"content", "snapshots"} {
		if err := os.MkdirAll(filepath.Join(s.opts.Root, dir), 0o700); err != nil {
			return err
		}
	}
	var err error
	if s.sync.boot, err = bootID(); err != nil {
		return err
	}
	if s.driver, err = openDriver(s.opts.SnapshotterName, filepath.Join(s.opts.Root, "snapshots")); err != nil {
		return err
	}
	blobs, err := local.NewStore(filepath.Join(s.opts.Root, "content"))
	if err != nil {
		return err
	}
	s.bolt, err = bbolt.Open(filepath.Join(s.opts.Root, "metadata.db"), 0o600, &bbolt.Options{Timeout: lockTimeout, FreelistType: bbolt.FreelistMapType, NoFreelistSync: true})
	if err != nil {
		return fmt.Errorf("metadata database: %w", err)
	}
	s.meta = metadata.NewDB(s.bolt, blobs, map[string]snapshots.Snapshotter{s.driver.name: s.driver.sn})
	if err := s.meta.Init(context.Background()); err != nil {
		return errors.Join(err, s.bolt.Close())
	}
	s.snap = s.meta.Snapshotter(s.driver.name)
	s.images = &records{Store: metadata.NewImageStore(s.meta), dropped: s.gc.poke}
	s.leases = metadata.NewLeaseManager(s.meta)
	return nil
}

// context adds what containerd's libraries look for in it.
func (*Store) context(ctx context.Context) context.Context {
	return namespaces.WithNamespace(ctx, Namespace)
}

// Close waits for the background work and closes the databases.
func (s *Store) Close() error {
	var err error
	s.close.Do(func() {
		s.gc.stop()
		s.sync.stop()
		err = errors.Join(s.driver.sn.Close(), s.meta.Close())
	})
	return err
}

// ContentStore returns the blobs; use it with Namespace in the context.
func (s *Store) ContentStore() content.Store { return s.meta.ContentStore() }

// Snapshotter returns the unpacked layers.
func (s *Store) Snapshotter() snapshots.Snapshotter { return s.snap }

// SnapshotterName is containerd's name of the storage driver ("overlayfs", "native").
func (s *Store) SnapshotterName() string { return s.driver.name }

// LeaseManager protects what is being made from collection.
func (s *Store) LeaseManager() leases.Manager { return s.leases }

// ImageStore returns the image records. What is written through it is seen by the Store at once.
func (s *Store) ImageStore() images.Store { return s.images }

// MetadataDB returns the database that ties blobs, snapshots and images.
func (s *Store) MetadataDB() *metadata.DB { return s.meta }

// GarbageCollect removes what nothing refers to and waits for it.
func (s *Store) GarbageCollect(ctx context.Context) (gc.Stats, error) {
	return s.collect(s.context(ctx))
}

// RegistryHosts returns the endpoints of registries, without credentials.
func (s *Store) RegistryHosts() docker.RegistryHosts { return s.registry.Hosts(nil) }

// Registry returns the registry client.
func (s *Store) Registry() *client.Client { return s.registry }

// Namespace of containerd's metadata that holds everything above.
func (s *Store) Namespace() string { return Namespace }
