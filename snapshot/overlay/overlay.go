package overlay

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

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/wherry-engine/wherry/container"
	"github.com/wherry-engine/wherry/snapshot"
	"github.com/wherry-engine/wherry/snapshot/tree"
	"github.com/wherry-engine/wherry/task"
)

const (
	upperName = "upper"
	workName  = "work"
	chainName = "chain"

	// trashDir collects what is being deleted, emptyDir is the lower directory
	// of images without layers; both are in the root beside the layers.
	trashDir = ".trash"
	emptyDir = ".empty"
)

// Options of a Driver. Root and Chains are required.
type Options struct {
	// Root is the directory of the writable layers (DATA-ROOT/layers).
	Root   string
	Chains snapshot.Chains
	// MountOptions are added to every mount, such as "metacopy=off".
	MountOptions []string
	Logger       *slog.Logger
}

// Driver implements snapshot.Driver.
type Driver struct {
	opts Options
	log  *slog.Logger

	mu    sync.Mutex
	users map[container.ID]digest.Digest // chains that layers hold
	bases map[digest.Digest]string

	baseMu sync.Mutex // held while a base is made

	trash trash
}

var _ snapshot.Driver = (*Driver)(nil)

// New opens a directory of layers, deletes what earlier removals left, and
// takes hold of the chains that layers use.
func New(opts Options) (*Driver, error) {
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	if strings.ContainsAny(opts.Root, ":,\\") {
		return nil, fmt.Errorf("data root %q has a character that overlayfs cannot take: %w", opts.Root, errdefs.ErrInvalidArgument)
	}
	d := &Driver{opts: opts, log: opts.Logger, users: map[container.ID]digest.Digest{}, bases: map[digest.Digest]string{}}
	for _, dir := range []string{opts.Root, filepath.Join(opts.Root, trashDir), filepath.Join(opts.Root, emptyDir), filepath.Join(opts.Root, baseDir)} {
		if err := os.MkdirAll(dir, 0o710); err != nil {
			return nil, fmt.Errorf("open layers: %w", err)
		}
	}
	if err := os.Chmod(filepath.Join(opts.Root, emptyDir), 0o755); err != nil { //nolint:gosec // it becomes the root of containers
		return nil, fmt.Errorf("open layers: %w", err)
	}
	if err := d.adopt(); err != nil {
		return nil, fmt.Errorf("open layers: %w", err)
	}
	if err := d.dropBases(); err != nil {
		return nil, fmt.Errorf("open layers: %w", err)
	}
	d.trash.start(filepath.Join(opts.Root, trashDir), d.log)
	return d, nil
}

// Close waits until what was removed is deleted, or the context ends.
func (d *Driver) Close(ctx context.Context) error { return d.trash.stop(ctx) }

// adopt reads which chains are in use. A layer without its chain link was
// being made when the engine died: nobody knows of it, and it is removed.
func (d *Driver) adopt() error {
	ids, err := d.scan()
	if err != nil {
		return err
	}
	chains := make([]digest.Digest, 0, len(ids))
	for _, id := range ids {
		chain, err := d.chainOf(id)
		if errors.Is(err, fs.ErrNotExist) {
			if err := d.discard(id); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		d.users[id] = chain
		chains = append(chains, chain)
	}
	d.opts.Chains.Adopt(context.Background(), chains) //nolint:contextcheck // opening has no caller to cancel it
	return nil
}

func (d *Driver) dir(id container.ID) string { return filepath.Join(d.opts.Root, string(id)) }

// checkID keeps an identifier from being a path.
func checkID(id container.ID) error {
	if id == "" || len(id) > 128 || strings.HasPrefix(string(id), ".") || strings.ContainsAny(string(id), "/\x00:,\\") {
		return fmt.Errorf("layer name %.140q: %w", id, errdefs.ErrInvalidArgument)
	}
	return nil
}

// Name implements snapshot.Driver.
func (d *Driver) Name() string { return "overlayfs" }

// Create implements snapshot.Driver. The layer exists for others only when
// its chain link does, which is made last.
func (d *Driver) Create(ctx context.Context, id container.ID, chain digest.Digest) error {
	if err := checkID(id); err != nil {
		return err
	}
	lower, err := d.opts.Chains.Acquire(ctx, chain)
	if err != nil {
		return err
	}
	if chain != "" && len(lower) == 0 {
		err = fmt.Errorf("the storage driver of the images has no layer directories for overlayfs: %w", errdefs.ErrFailedPrecondition)
	}
	base := ""
	if err == nil {
		base, err = d.base(chain, lower)
	}
	if err == nil {
		err = d.make(id, chain, base)
	}
	if err != nil {
		d.opts.Chains.Release(chain)
		if errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("layer %s: %w", id.Short(), errdefs.ErrAlreadyExists)
		}
		return fmt.Errorf("make layer %s: %w", id.Short(), err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.users[id] = chain
	return nil
}

func (d *Driver) make(id container.ID, chain digest.Digest, base string) (err error) {
	dir := d.dir(id)
	if err := os.Mkdir(dir, 0o710); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(dir))
		}
	}()
	upper := filepath.Join(dir, upperName)
	if err := os.Mkdir(upper, 0o755); err != nil { //nolint:gosec // it becomes the root of a container
		return err
	}
	if err := os.Mkdir(filepath.Join(dir, workName), 0o700); err != nil {
		return err
	}
	if err := tree.CopyAttributes(base, upper); err != nil {
		return err
	}
	target := string(chain)
	if target == "" {
		target = noChain
	}
	return os.Symlink(target, filepath.Join(dir, chainName))
}

// noChain is the link target for images without layers.
const noChain = "none"

// chainOf reads a layer's chain; fs.ErrNotExist if there is no such layer.
func (d *Driver) chainOf(id container.ID) (digest.Digest, error) {
	target, err := os.Readlink(filepath.Join(d.dir(id), chainName))
	if err != nil {
		return "", err
	}
	if target == noChain {
		return "", nil
	}
	chain := digest.Digest(target)
	if err := chain.Validate(); err != nil {
		return "", fmt.Errorf("layer %s: chain %q: %w", id.Short(), target, err)
	}
	return chain, nil
}

// held returns the chain of a layer. NotFound.
func (d *Driver) held(id container.ID) (digest.Digest, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	chain, ok := d.users[id]
	if !ok {
		return "", fmt.Errorf("layer %s: %w", id.Short(), errdefs.ErrNotFound)
	}
	return chain, nil
}

// lower lists the directories of a chain, topmost first.
func (d *Driver) lower(ctx context.Context, chain digest.Digest) ([]string, error) {
	if chain == "" {
		return []string{filepath.Join(d.opts.Root, emptyDir)}, nil
	}
	dirs, err := d.opts.Chains.Acquire(ctx, chain)
	if err != nil {
		return nil, err
	}
	d.opts.Chains.Release(chain)
	return dirs, nil
}

// under lists the directories below a writable layer, topmost first.
func (d *Driver) under(ctx context.Context, chain digest.Digest) ([]string, error) {
	lower, err := d.lower(ctx, chain)
	if err != nil {
		return nil, err
	}
	base, err := d.base(chain, lower)
	if err != nil {
		return nil, err
	}
	return append([]string{base}, lower...), nil
}

// Root implements snapshot.Driver.
func (d *Driver) Root(ctx context.Context, id container.ID) (task.Root, error) {
	chain, err := d.held(id)
	if err != nil {
		return task.Root{}, err
	}
	lower, err := d.under(ctx, chain)
	if err != nil {
		return task.Root{}, err
	}
	dir := d.dir(id)
	return task.Root{
		Layers:  lower,
		Upper:   filepath.Join(dir, upperName),
		Work:    filepath.Join(dir, workName),
		Options: d.mountOptions(),
	}, nil
}

func (d *Driver) mountOptions() []string {
	if len(d.opts.MountOptions) == 0 {
		return nil
	}
	return append([]string{}, d.opts.MountOptions...)
}

// View implements snapshot.Driver.
func (d *Driver) View(ctx context.Context, chain digest.Digest) (task.Root, error) {
	lower, err := d.lower(ctx, chain)
	if err != nil {
		return task.Root{}, err
	}
	return task.Root{Layers: lower, Options: d.mountOptions(), ReadOnly: true}, nil
}

// Remove implements snapshot.Driver: the layer is gone at once, its files are
// deleted in the background.
func (d *Driver) Remove(_ context.Context, id container.ID) error {
	if err := checkID(id); err != nil {
		return err
	}
	if err := d.discard(id); err != nil {
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

// discard moves a layer out of sight.
func (d *Driver) discard(id container.ID) error {
	err := os.Rename(d.dir(id), filepath.Join(d.opts.Root, trashDir, trashName(id)))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	d.trash.poke()
	return err
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

func (d *Driver) scan() ([]container.ID, error) {
	entries, err := os.ReadDir(d.opts.Root)
	if err != nil {
		return nil, err
	}
	var ids []container.ID
	for _, e := range entries {
		if e.IsDir() && !strings.HasPrefix(e.Name(), ".") {
			ids = append(ids, container.ID(e.Name()))
		}
	}
	return ids, nil
}
