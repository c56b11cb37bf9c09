package store

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/pkg/gc"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
)

const (
	// gcDelay gathers several removals into one collection.
	gcDelay = 500 * time.Millisecond
	// gcTimeout bounds a background collection.
	gcTimeout = 10 * time.Minute

	leasePrefix = "wherry-transfer-"
	// leaseLife bounds what a forgotten lease keeps.
	leaseLife = 24 * time.Hour
	// partialLife is how long a partial download waits, when the engine
	// starts, to be resumed.
	partialLife = time.Hour
)

// collector runs collections in the background, one at a time.
type collector struct {
	wake chan struct{}
	quit chan struct{}
	done sync.WaitGroup
	once sync.Once
	// run is held during a collection; swept tells that the stores themselves
	// were compared with the database since Open.
	run   sync.Mutex
	swept bool
}

func (c *collector) start(s *Store) {
	c.wake, c.quit = make(chan struct{}, 1), make(chan struct{})
	c.done.Go(func() { c.loop(s) })
}

// poke asks for a collection soon. It never blocks.
func (c *collector) poke() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

func (c *collector) loop(s *Store) {
	for {
		select {
		case <-c.quit:
			return
		case <-c.wake:
		}
		select {
		case <-c.quit:
			return
		case <-time.After(gcDelay):
		}
		c.collectNow(s)
	}
}

// collectNow runs one collection; stop waits for it.
func (c *collector) collectNow(s *Store) {
	ctx, cancel := context.WithTimeout(s.context(context.Background()), gcTimeout)
	defer cancel()
	if _, err := s.collect(ctx); err != nil {
		s.log.Warn("image garbage collection", "err", err)
	}
}

func (c *collector) stop() {
	c.once.Do(func() {
		if c.quit != nil {
			close(c.quit)
		}
	})
	c.done.Wait()
}

// collect removes pins nobody needs, and then everything unreferenced.
func (s *Store) collect(ctx context.Context) (gc.Stats, error) {
	s.gc.run.Lock()
	defer s.gc.run.Unlock()
	if err := s.unpinUnneeded(ctx); err != nil {
		return nil, err
	}
	if !s.gc.swept {
		// On a full disk this fails; the collection itself makes room.
		err := s.markDirty(ctx)
		if err != nil {
			s.log.Debug("compare the stores with the database", "err", err)
		}
		s.gc.swept = err == nil
	}
	stats, err := s.meta.GarbageCollect(ctx)
	if err != nil {
		return nil, err
	}
	s.parsed.clear()
	return stats, nil
}

// tidyPrefix begins the names of what markDirty makes.
const tidyPrefix = "tidy-"

// markDirty makes the collection that follows look into the blob store and the
// snapshotter too, for what a killed process put there and nowhere else. The
// database looks only after it removed something, so it gets something to remove.
func (s *Store) markDirty(ctx context.Context) error {
	name := tidyPrefix + randomID()
	desc := ocispec.Descriptor{Digest: digest.FromString(name), Size: int64(len(name))}
	if err := content.WriteBlob(ctx, s.ContentStore(), name, strings.NewReader(name), desc); err != nil {
		return err
	}
	_, err := s.snap.Prepare(ctx, name, "")
	return err
}

// tidy removes what an earlier process was doing when it died.
func (s *Store) tidy(ctx context.Context) error {
	list, err := s.leases.List(ctx)
	if err != nil {
		return err
	}
	for _, l := range list {
		if len(l.ID) > len(leasePrefix) && l.ID[:len(leasePrefix)] == leasePrefix {
			if err := s.leases.Delete(ctx, l); err != nil {
				return err
			}
		}
	}
	s.dropPartial(ctx, time.Now().Add(-partialLife))
	return s.sweepIngest()
}

// sweepIngest removes what is left of downloads that a process was killed in
// the middle of beginning or ending: without their data or their reference
// nothing can go on with them, and the content store does not see them. So it
// does with what a collection had begun to write. It runs before any download.
func (s *Store) sweepIngest() error {
	dir := filepath.Join(s.opts.Root, "content", "ingest")
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		ref, err := os.ReadFile(filepath.Join(dir, e.Name(), "ref"))
		whole := !errors.Is(err, os.ErrNotExist) && !strings.HasPrefix(path.Base(string(ref)), tidyPrefix)
		if _, err := os.Lstat(filepath.Join(dir, e.Name(), "data")); errors.Is(err, os.ErrNotExist) {
			whole = false
		}
		if !whole {
			if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// lease protects what is made with the returned context until done is called.
func (s *Store) lease(ctx context.Context) (_ context.Context, done func(), _ error) {
	l, err := s.leases.Create(ctx, leases.WithID(leasePrefix+randomID()), leases.WithExpiration(leaseLife))
	if err != nil {
		return nil, nil, err
	}
	return leases.WithLease(context.WithValue(ctx, unleasedKey{}, ctx), l.ID), func() {
		ctx := context.WithoutCancel(ctx)
		if err := s.leases.Delete(ctx, l); err != nil {
			s.log.Warn("drop a lease", "lease", l.ID, "err", err)
		}
		s.gc.poke()
	}, nil
}

// making runs something that brings content in, under a lease. When the disk
// is full, what it leaves is removed before it returns, since nothing else
// could run until then.
func (s *Store) making(ctx context.Context, f func(context.Context) error) error {
	leased, done, err := s.lease(ctx)
	if err != nil {
		return err
	}
	err = f(leased)
	done()
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		s.makeRoom(context.WithoutCancel(ctx))
	}
	return err
}

// makeRoom removes partial downloads and everything unreferenced.
func (s *Store) makeRoom(ctx context.Context) {
	s.dropPartial(ctx, time.Now())
	if _, err := s.meta.GarbageCollect(ctx); err != nil { // before anything that needs room itself
		s.log.Warn("image garbage collection", "err", err)
	}
	if _, err := s.collect(ctx); err != nil {
		s.log.Warn("image garbage collection", "err", err)
	}
}

// dropPartial removes partial downloads that no transfer is working on and
// that were last written before a time. It returns their bytes.
func (s *Store) dropPartial(ctx context.Context, before time.Time) int64 {
	list, err := s.ContentStore().ListStatuses(ctx)
	if err != nil {
		s.log.Warn("list partial downloads", "err", err)
	}
	var bytes int64
	for _, st := range list {
		blob, ok := strings.CutPrefix(st.Ref, pullPrefix)
		if !ok || st.UpdatedAt.After(before) {
			continue
		}
		unlock := s.keys.tryLock("blob:" + blob)
		if unlock == nil {
			continue
		}
		s.abort(ctx, st.Ref)
		unlock()
		bytes += st.Offset
	}
	return bytes
}

type unleasedKey struct{}

// unleased undoes lease for what shall outlive the transfer.
func unleased(ctx context.Context) context.Context {
	if base, ok := ctx.Value(unleasedKey{}).(context.Context); ok {
		return base
	}
	return ctx
}

func randomID() string {
	var b [12]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}
