package build

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/pkg/namespaces"
)

// What build steps write is not synced, while BuildKit's databases, which call
// the steps done, are. So a file names the boot as long as something may not be
// on the disk. Found with the name of another boot, it says that the kernel went
// down meanwhile; then the whole cache is dropped, because nobody knows which
// records are as they should be. The images that were built stand on their own
// (see image/store's Link).
const unsyncedFile = "unsynced"

// syncDelay keeps the sync out of the way of the end of a build, and of the
// build that follows it.
const syncDelay = time.Second

// durable keeps the file of the boot.
type durable struct {
	root, boot string
	syncFS     func() error
	log        *slog.Logger

	mu sync.Mutex
	// running builds, and how many have begun.
	running, begun int
	marked         bool
	later          *time.Timer
	syncing        sync.WaitGroup
}

// unsyncedBoot is the boot in which something may not have come to the disk, "" if all has.
func unsyncedBoot(root string) (string, error) {
	boot, err := os.ReadFile(filepath.Join(root, unsyncedFile))
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	return string(boot), err
}

// begin says that a build writes from now on.
func (d *durable) begin() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.marked {
		if err := d.mark(); err != nil {
			return fmt.Errorf("note that the build cache is being written: %w", err)
		}
		d.marked = true
	}
	d.running++
	d.begun++
	if d.later != nil && d.later.Stop() {
		d.syncing.Done()
	}
	return nil
}

func (d *durable) mark() error {
	f, err := os.OpenFile(filepath.Join(d.root, unsyncedFile), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(d.boot)
	err = errors.Join(err, f.Sync(), f.Close())
	dir, openErr := os.Open(d.root)
	if openErr != nil {
		return errors.Join(err, openErr)
	}
	return errors.Join(err, dir.Sync(), dir.Close())
}

// end says that a build has ended. When none has begun for a while, all is synced.
func (d *durable) end() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.running--
	if d.running == 0 {
		d.syncLater()
	}
}

// left says that an earlier daemon has left the file.
func (d *durable) left() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.marked = true
	d.syncLater()
}

func (d *durable) syncLater() {
	d.syncing.Add(1)
	d.later = time.AfterFunc(syncDelay, func() {
		defer d.syncing.Done()
		d.sync()
	})
}

// sync brings all to the disk, and removes the file unless a build has begun.
func (d *durable) sync() {
	d.mu.Lock()
	begun, idle := d.begun, d.running == 0 && d.marked
	d.mu.Unlock()
	if !idle {
		return
	}
	err := d.syncFS()
	d.mu.Lock()
	defer d.mu.Unlock()
	if err == nil && d.running == 0 && d.begun == begun {
		err = os.Remove(filepath.Join(d.root, unsyncedFile))
		d.marked = err != nil
	}
	if err != nil {
		d.log.Warn("sync the build cache", "err", err)
	}
}

// close syncs at once what waits for it. No build runs any more.
func (d *durable) close() {
	d.mu.Lock()
	if d.later != nil && d.later.Stop() {
		d.syncing.Done()
	}
	d.mu.Unlock()
	d.syncing.Wait()
	d.sync()
}

// dropCache deletes BuildKit's databases and lets go of what they held.
func dropCache(ctx context.Context, opt Options) error {
	for _, name := range []string{"cache.db", "history.db", "metadata_v2.db"} {
		if err := os.Remove(filepath.Join(opt.Root, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	ctx = namespaces.WithNamespace(ctx, opt.Store.Namespace())
	list, err := opt.Store.LeaseManager().List(ctx)
	if err != nil {
		return err
	}
	for _, l := range list { // nothing else is under way yet
		if err := opt.Store.LeaseManager().Delete(ctx, leases.Lease{ID: l.ID}); err != nil {
			return err
		}
	}
	return nil
}
