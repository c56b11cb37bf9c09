// Package native holds writable layers as full copies of their chain, made by
// containerd's native snapshotter. It needs nothing of the file system and
// promises no speed: it is for machines where overlayfs cannot be used.
package native

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/wherry-engine/wherry/container"
	"github.com/wherry-engine/wherry/snapshot"
	"github.com/wherry-engine/wherry/snapshot/tree"
	"github.com/wherry-engine/wherry/task"
)

const (
	layerKey = "layer-" // snapshots of layers; the container's ID follows
	viewKey  = "view-"  // read-only copies of chains; the chain follows
	noChain  = "none"

	rootLabel = "containerd.io/gc.root"
	refLabel  = "containerd.io/gc.ref.snapshot."
)

// Options of a Driver. All but Logger are required.
type Options struct {
	// Root holds one link for each layer, whose target is its chain (DATA-ROOT/layers).
	Root   string
	Chains snapshot.Chains
	// Snapshots is the image store's snapshotter of the name and in the namespace given.
	Snapshots       snapshots.Snapshotter
	SnapshotterName string
	Namespace       string
	Logger          *slog.Logger
}

// Driver implements snapshot.Driver.
type Driver struct {
	opts Options
	log  *slog.Logger

	mu    sync.Mutex
	users map[container.ID]digest.Digest

	views sync.Mutex // held while a view is made
}

var _ snapshot.Driver = (*Driver)(nil)

// New opens a directory of layers and removes what a killed engine left.
func New(ctx context.Context, opts Options) (*Driver, error) {
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	d := &Driver{opts: opts, log: opts.Logger, users: map[container.ID]digest.Digest{}}
	if err := os.MkdirAll(opts.Root, 0o700); err != nil {
		return nil, fmt.Errorf("open layers: %w", err)
	}
	if err := d.adopt(d.context(ctx)); err != nil {
		return nil, fmt.Errorf("open layers: %w", err)
	}
	return d, nil
}

func (d *Driver) context(ctx context.Context) context.Context {
	return namespaces.WithNamespace(ctx, d.opts.Namespace)
}

// adopt reads which layers exist. A snapshot without a link was being made or
// removed when the engine died.
func (d *Driver) adopt(ctx context.Context) error {
	entries, err := os.ReadDir(d.opts.Root)
	if err != nil {
		return err
	}
	var chains []digest.Digest
	for _, e := range entries {
		target, err := os.Readlink(filepath.Join(d.opts.Root, e.Name()))
		if err != nil {
			continue
		}
		chain := digest.Digest(strings.TrimPrefix(target, noChain))
		d.users[container.ID(e.Name())] = chain
		chains = append(chains, chain)
	}
	d.opts.Chains.Adopt(ctx, chains)
	var strays []string
	err = d.opts.Snapshots.Walk(ctx, func(_ context.Context, i snapshots.Info) error {
		if id, ok := strings.CutPrefix(i.Name, layerKey); ok {
			if _, known := d.users[container.ID(id)]; !known {
				strays = append(strays, i.Name)
			}
		}
		return nil
	})
	if err != nil && !errdefs.IsNotFound(err) {
		return err
	}
	for _, s := range strays {
		if err := d.drop(ctx, s); err != nil {
			return err
		}
	}
	return nil
}

func (d *Driver) drop(ctx context.Context, key string) error {
	if err := d.opts.Snapshots.Remove(ctx, key); err != nil && !errdefs.IsNotFound(err) {
		return err
	}
	if c, ok := d.opts.Snapshots.(snapshots.Cleaner); ok {
		if err := c.Cleanup(ctx); err != nil && !errdefs.IsNotImplemented(err) {
			return err
		}
	}
	return nil
}

// Name implements snapshot.Driver.
func (d *Driver) Name() string { return d.opts.SnapshotterName }

// Close implements the daemon's shutdown; nothing is pending.
func (*Driver) Close(context.Context) error { return nil }

func checkID(id container.ID) error {
	if id == "" || len(id) > 128 || strings.HasPrefix(string(id), ".") || strings.ContainsAny(string(id), "/\x00") {
		return fmt.Errorf("layer name %.140q: %w", id, errdefs.ErrInvalidArgument)
	}
	return nil
}

// Create implements snapshot.Driver: it copies the chain.
func (d *Driver) Create(ctx context.Context, id container.ID, chain digest.Digest) error {
	if err := checkID(id); err != nil {
		return err
	}
	d.mu.Lock()
	_, exists := d.users[id]
	d.mu.Unlock()
	if exists {
		return fmt.Errorf("layer %s: %w", id.Short(), errdefs.ErrAlreadyExists)
	}
	ctx = d.context(ctx)
	if _, err := d.opts.Chains.Acquire(ctx, chain); err != nil {
		return err
	}
	if err := d.make(ctx, id, chain); err != nil {
		d.opts.Chains.Release(chain)
		return errors.Join(fmt.Errorf("make layer %s: %w", id.Short(), err), d.drop(context.WithoutCancel(ctx), layerKey+string(id)))
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.users[id] = chain
	return nil
}

func (d *Driver) make(ctx context.Context, id container.ID, chain digest.Digest) error {
	mounts, err := d.opts.Snapshots.Prepare(ctx, layerKey+string(id), chain.String(), rooted())
	if err != nil {
		return err
	}
	dir, err := directory(mounts)
	if err != nil {
		return err
	}
	if err := tree.FillBase(dir, []string{dir}); err != nil {
		return err
	}
	target := chain.String()
	if target == "" {
		target = noChain
	}
	return os.Symlink(target, filepath.Join(d.opts.Root, string(id)))
}

// rooted keeps a snapshot from the collector.
func rooted() snapshots.Opt {
	return snapshots.WithLabels(map[string]string{rootLabel: time.Now().UTC().Format(time.RFC3339)})
}

func directory(mounts []mount.Mount) (string, error) {
	if len(mounts) == 1 && (mounts[0].Type == "bind" || mounts[0].Type == "rbind") {
		return mounts[0].Source, nil
	}
	return "", fmt.Errorf("the snapshotter asks for a mount: %w", errdefs.ErrNotImplemented)
}

func (d *Driver) held(id container.ID) (digest.Digest, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	chain, ok := d.users[id]
	if !ok {
		return "", fmt.Errorf("layer %s: %w", id.Short(), errdefs.ErrNotFound)
	}
	return chain, nil
}

func (d *Driver) dir(ctx context.Context, key string) (string, error) {
	mounts, err := d.opts.Snapshots.Mounts(d.context(ctx), key)
	if err != nil {
		return "", err
	}
	return directory(mounts)
}

// Root implements snapshot.Driver.
func (d *Driver) Root(ctx context.Context, id container.ID) (task.Root, error) {
	if _, err := d.held(id); err != nil {
		return task.Root{}, err
	}
	dir, err := d.dir(ctx, layerKey+string(id))
	return task.Root{Bind: dir}, err
}

// View implements snapshot.Driver. The chain is copied once; the copy goes with the chain.
func (d *Driver) View(ctx context.Context, chain digest.Digest) (task.Root, error) {
	dir, err := d.view(ctx, chain)
	return task.Root{Bind: dir, ReadOnly: true}, err
}

func (d *Driver) view(ctx context.Context, chain digest.Digest) (string, error) {
	d.views.Lock()
	defer d.views.Unlock()
	ctx = d.context(ctx)
	key := viewKey + chain.String()
	dir, err := d.dir(ctx, key)
	if !errdefs.IsNotFound(err) {
		return dir, err
	}
	// Rooted until the chain refers to it; the empty chain's stays so.
	mounts, err := d.opts.Snapshots.View(ctx, key, chain.String(), rooted())
	if err != nil {
		return "", fmt.Errorf("view of chain %s: %w", chain, err)
	}
	if chain == "" {
		return directory(mounts)
	}
	label := refLabel + d.opts.SnapshotterName
	_, err = d.opts.Snapshots.Update(ctx, snapshots.Info{Name: chain.String(), Labels: map[string]string{label: key}}, "labels."+label)
	if err == nil {
		_, err = d.opts.Snapshots.Update(ctx, snapshots.Info{Name: key, Labels: map[string]string{rootLabel: ""}}, "labels."+rootLabel)
	}
	if err != nil {
		return "", fmt.Errorf("view of chain %s: %w", chain, err)
	}
	return directory(mounts)
}

// Remove implements snapshot.Driver.
func (d *Driver) Remove(ctx context.Context, id container.ID) error {
	if err := checkID(id); err != nil {
		return err
	}
	if err := os.Remove(filepath.Join(d.opts.Root, string(id))); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove layer %s: %w", id.Short(), err)
	}
	if err := d.drop(d.context(ctx), layerKey+string(id)); err != nil {
		return fmt.Errorf("remove layer %s: %w", id.Short(), err)
	}
	d.mu.Lock()
	chain, ok := d.users[id]
	delete(d.users, id)
	d.mu.Unlock()
	if ok {
		d.opts.Chains.Release(chain)
	}
	return nil
}

// List implements snapshot.Driver.
func (d *Driver) List(context.Context) ([]container.ID, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	ids := make([]container.ID, 0, len(d.users))
	for id := range d.users {
		ids = append(ids, id)
	}
	return ids, nil
}

// Status implements snapshot.Driver.
func (d *Driver) Status() [][2]string {
	return [][2]string{{"driver-type", "io.containerd.snapshotter.v1"}}
}
