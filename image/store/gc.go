package store

import (
	"context"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/pkg/gc"
)

const (
	// gcDelay gathers several removals into one collection.
	gcDelay = 500 * time.Millisecond
	// gcTimeout bounds a background collection.
	gcTimeout = 10 * time.Minute

	leasePrefix = "wherry-transfer-"
	// leaseLife bounds what a forgotten lease keeps.
	leaseLife = 24 * time.Hour
)

// collector runs collections in the background, one at a time.
type collector struct {
	wake chan struct{}
	quit chan struct{}
	done sync.WaitGroup
	once sync.Once
	run  sync.Mutex
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
	stats, err := s.meta.GarbageCollect(ctx)
	if err != nil {
		return nil, err
	}
	s.parsed.clear()
	return stats, nil
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
	return s.clearTemp()
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

type unleasedKey struct{}

// unleased undoes lease for what shall outlive the transfer.
func unleased(ctx context.Context) context.Context {
	if base, ok := ctx.Value(unleasedKey{}).(context.Context); ok {
		return base
	}
	return ctx
}
