package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"

	"github.com/wherry-engine/wherry/internal/rmtree"
)

// deepRemoval deletes the directories of removed snapshots itself. The overlay
// snapshotter below would open a descriptor for each level of them, and what a
// build step made can have more levels than there are descriptors.
type deepRemoval struct {
	snapshots.Snapshotter

	mu      sync.Mutex
	removed []string
}

var _ snapshots.Cleaner = (*deepRemoval)(nil)

// Remove only notes the directory, as the snapshotter below does; Cleanup deletes it.
func (d *deepRemoval) Remove(ctx context.Context, key string) error {
	info, err := d.Stat(ctx, key)
	if err != nil {
		return err
	}
	if err := d.Snapshotter.Remove(ctx, key); err != nil {
		return err
	}
	if upper := info.Labels[upperLabel]; upper != "" {
		d.add(filepath.Dir(upper))
	}
	return nil
}

// strayPrefix begins the names of directories that are nobody's any more.
const strayPrefix = "removed-"

// addStrays notes what an earlier process removed and did not delete, or made and
// did not enter: its number is given out again, so it gets another name. Nothing uses
// the snapshots yet.
func (d *deepRemoval) addStrays(ctx context.Context, dir string) error {
	known := map[string]bool{}
	err := d.Walk(ctx, func(_ context.Context, info snapshots.Info) error {
		known[filepath.Dir(info.Labels[upperLabel])] = true
		return nil
	})
	if err != nil && !errdefs.IsNotFound(err) {
		return err
	}
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		name := filepath.Join(dir, e.Name())
		if known[name] {
			continue
		}
		if _, nerr := strconv.ParseUint(e.Name(), 10, 64); nerr == nil {
			stray := filepath.Join(dir, fmt.Sprintf("%s%s-%d", strayPrefix, e.Name(), time.Now().UnixNano()))
			if rerr := os.Rename(name, stray); rerr != nil {
				return rerr
			}
			name = stray
		}
		d.add(name)
	}
	return err
}

func (d *deepRemoval) add(dirs ...string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.removed = append(d.removed, dirs...)
}

// Cleanup deletes what was removed. The snapshotter below then looks for the
// rest: what was never finished, and is not deep.
func (d *deepRemoval) Cleanup(ctx context.Context) error {
	d.mu.Lock()
	dirs := d.removed
	d.removed = nil
	d.mu.Unlock()
	var errs []error
	for _, dir := range dirs {
		if err := rmtree.Remove(dir); err != nil {
			errs = append(errs, err)
			d.add(dir)
		}
	}
	if c, ok := d.Snapshotter.(snapshots.Cleaner); ok {
		errs = append(errs, c.Cleanup(ctx))
	}
	return errors.Join(errs...)
}
