package build

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/gc"
	"github.com/moby/buildkit/control"
	"github.com/moby/buildkit/session"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/net/http2"
	"google.golang.org/grpc"

	"github.com/wherry-engine/wherry/network"
	"github.com/wherry-engine/wherry/task"
)

// Store is what a build needs of the engine's image store.
type Store interface {
	ContentStore() content.Store
	Snapshotter() snapshots.Snapshotter
	SnapshotterName() string
	LeaseManager() leases.Manager
	ImageStore() images.Store
	GarbageCollect(ctx context.Context) (gc.Stats, error)
	RegistryHosts() docker.RegistryHosts
	// Namespace of containerd's metadata that holds everything above.
	Namespace() string
	// Boot tells this run of the kernel from others, and Sync brings to the disk
	// what snapshots hold.
	Boot() string
	Sync() error
	// NeededSnapshots are the names of the snapshots that images or writable
	// layers need.
	NeededSnapshots(ctx context.Context) (map[string]bool, error)
	// Link makes a chain of the target's out of a snapshot that holds its files.
	Link(ctx context.Context, target ocispec.Descriptor, chain digest.Digest, snapshot string) error
	// Name points a name at an image's target.
	Name(ctx context.Context, name string, target ocispec.Descriptor) error
}

// Options of a Builder. All but Network and AppArmor are required.
type Options struct {
	// Root is the directory of BuildKit's own databases and scratch files.
	Root  string
	Store Store
	// Tasks runs build steps.
	Tasks func() task.Service
	// Sandboxes gives RUN steps their network; steps use the network named Network ("bridge").
	Sandboxes network.Sandboxes
	Network   string
	// CgroupParent is the parent of the steps' cgroups where a build names none.
	CgroupParent string
	// AppArmor gives the profile of the steps, which is in the kernel then; nil
	// where there is no AppArmor.
	AppArmor func() (string, error)
	// SystemdCgroup has systemd make the cgroups.
	SystemdCgroup bool
	// Built is told each image that a build stored, by the names it got.
	Built  func(ctx context.Context, names []string, img images.Image)
	Logger *slog.Logger
}

// Builder is the embedded BuildKit. The zero value is not usable; see New.
type Builder struct {
	opt     Options
	durable durable

	mu      sync.Mutex
	started *running
	closed  bool
	cancels map[string]context.CancelFunc
	// collect runs when the temporary leases of the last build have expired.
	collect    *time.Timer
	collecting sync.WaitGroup
}

// leaseLife is a little more than BuildKit gives to its temporary leases,
// which it does not always delete.
const leaseLife = 5*time.Minute + 10*time.Second

// running is BuildKit once it was started.
type running struct {
	controller *control.Controller
	sessions   *session.Manager
	server     *grpc.Server
	worker     *worker
	plans      *planned
	close      func() error
}

// New returns a Builder that has not started BuildKit yet. What an earlier
// daemon left mounted under Root is unmounted.
func New(opt Options) (*Builder, error) {
	if opt.Network == "" {
		opt.Network = "bridge"
	}
	if err := os.MkdirAll(opt.Root, 0o700); err != nil {
		return nil, fmt.Errorf("create build directory: %w", err)
	}
	if err := unmountBelow(opt.Root); err != nil {
		opt.Logger.Warn("cleaning build directory", "err", err)
	}
	if err := os.RemoveAll(filepath.Join(opt.Root, scratchDir)); err != nil {
		return nil, fmt.Errorf("clean build directory: %w", err)
	}
	b := &Builder{opt: opt, cancels: map[string]context.CancelFunc{}}
	b.durable.root, b.durable.boot, b.durable.syncFS, b.durable.log = opt.Root, opt.Store.Boot(), opt.Store.Sync, opt.Logger
	if err := b.recoverCache(); err != nil {
		return nil, fmt.Errorf("recover the build cache: %w", err)
	}
	return b, nil
}

// recoverCache drops the cache if the machine went down before it was on the disk.
func (b *Builder) recoverCache() error {
	boot, err := unsyncedBoot(b.opt.Root)
	if err != nil || boot == "" {
		return err
	}
	if boot != b.opt.Store.Boot() {
		b.opt.Logger.Warn("drop the build cache: the machine went down before it was on the disk")
		if err := dropCache(context.Background(), b.opt); err != nil {
			return err
		}
	}
	b.durable.left()
	return nil
}

var errClosed = errors.New("the builder is shutting down")

// get starts BuildKit if it is not running.
func (b *Builder) get(ctx context.Context) (*running, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil, errClosed
	}
	if b.started != nil {
		return b.started, nil
	}
	r, err := start(context.WithoutCancel(ctx), b.opt)
	if err != nil {
		return nil, fmt.Errorf("start the builder: %w", err)
	}
	b.started = r
	return r, nil
}

// build is get for what writes the build cache, until end is called.
func (b *Builder) build(ctx context.Context) (_ *running, end func(), _ error) {
	r, err := b.get(ctx)
	if err != nil {
		return nil, nil, err
	}
	if err := b.durable.begin(); err != nil {
		return nil, nil, err
	}
	return r, func() {
		b.collectLater()
		b.durable.end()
	}, nil
}

// collectLater collects garbage once the leases of what has run until now
// cannot hold anything any more.
func (b *Builder) collectLater() {
	b.mu.Lock()
	defer b.mu.Unlock()
	run := b.started
	if b.closed || run == nil {
		return
	}
	if b.collect != nil && b.collect.Stop() {
		b.collecting.Done()
	}
	b.collecting.Add(1)
	b.collect = time.AfterFunc(leaseLife, func() {
		defer b.collecting.Done()
		if err := run.worker.GarbageCollect(context.Background()); err != nil {
			b.opt.Logger.Warn("collecting garbage of builds", "err", err)
		}
	})
}

// Close stops BuildKit if it runs.
func (b *Builder) Close() error {
	b.mu.Lock()
	b.closed = true
	if b.collect != nil && b.collect.Stop() {
		b.collecting.Done()
	}
	b.mu.Unlock()
	b.collecting.Wait()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, cancel := range b.cancels {
		cancel()
	}
	defer b.durable.close()
	if b.started == nil {
		return nil
	}
	b.started.server.Stop()
	return b.started.close()
}

// ServeGRPC answers BuildKit's control API (buildx) on an upgraded connection
// until it ends.
func (b *Builder) ServeGRPC(ctx context.Context, conn net.Conn) error {
	r, end, err := b.build(ctx)
	if err != nil {
		return err
	}
	defer end()
	(&http2.Server{}).ServeConn(conn, &http2.ServeConnOpts{Handler: r.server, Context: ctx})
	return nil
}

// ServeSession takes over a request to /session and serves it until it ends.
func (b *Builder) ServeSession(w http.ResponseWriter, req *http.Request) error {
	r, err := b.get(req.Context())
	if err != nil {
		return err
	}
	return r.sessions.HandleHTTPRequest(req.Context(), w, req)
}

// Cancel ends a build by the identifier its client chose; unknown ones are ignored.
func (b *Builder) Cancel(buildID string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if cancel, ok := b.cancels[buildID]; ok {
		cancel()
	}
}

// cancellable registers a running build under the client's identifier.
func (b *Builder) cancellable(ctx context.Context, buildID string) (context.Context, func()) {
	ctx, cancel := context.WithCancel(ctx)
	if buildID == "" {
		return ctx, cancel
	}
	b.mu.Lock()
	b.cancels[buildID] = cancel
	b.mu.Unlock()
	return ctx, func() {
		b.mu.Lock()
		delete(b.cancels, buildID)
		b.mu.Unlock()
		cancel()
	}
}

// everRan reports whether BuildKit ever ran over this root.
func (b *Builder) everRan() bool {
	_, err := os.Stat(filepath.Join(b.opt.Root, "cache.db"))
	return err == nil
}
