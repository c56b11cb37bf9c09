package build

import (
	"context"
	"time"

	"github.com/moby/buildkit/client"
	apibuild "github.com/moby/moby/api/types/build"
)

// PruneRequest selects build cache to delete.
type PruneRequest struct {
	All                                       bool
	KeepDuration                              time.Duration
	ReservedSpace, MaxUsedSpace, MinFreeSpace int64 // bytes
	// Filter is in BuildKit's filter syntax.
	Filter []string
}

// Prune deletes build cache. A builder that never ran in this daemon is
// started for it, because its cache may be there from before.
func (b *Builder) Prune(ctx context.Context, req PruneRequest) (apibuild.CachePruneReport, error) {
	run, err := b.get(ctx)
	if err != nil {
		return apibuild.CachePruneReport{}, err
	}
	ch, done := make(chan client.UsageInfo, 32), make(chan apibuild.CachePruneReport, 1)
	go func() {
		rep := apibuild.CachePruneReport{CachesDeleted: []string{}}
		for u := range ch {
			rep.CachesDeleted = append(rep.CachesDeleted, u.ID)
			rep.SpaceReclaimed += uint64(u.Size)
		}
		done <- rep
	}()
	err = run.worker.Prune(ctx, ch, client.PruneInfo{
		Filter: req.Filter, All: req.All, KeepDuration: req.KeepDuration,
		ReservedSpace: req.ReservedSpace, MaxUsedSpace: req.MaxUsedSpace, MinFreeSpace: req.MinFreeSpace,
	})
	close(ch)
	return <-done, err
}

// DiskUsage lists the build cache; empty while no build ran in this daemon.
func (b *Builder) DiskUsage(ctx context.Context) ([]apibuild.CacheRecord, error) {
	b.mu.Lock()
	run := b.started
	b.mu.Unlock()
	if run == nil {
		if !b.everRan() {
			return nil, nil
		}
		var err error
		if run, err = b.get(ctx); err != nil {
			return nil, err
		}
	}
	infos, err := run.worker.DiskUsage(ctx, client.DiskUsageInfo{})
	if err != nil {
		return nil, err
	}
	out := make([]apibuild.CacheRecord, 0, len(infos))
	for _, u := range infos {
		out = append(out, apibuild.CacheRecord{
			ID: u.ID, Parents: u.Parents, Type: string(u.RecordType), Description: u.Description,
			InUse: u.InUse, Shared: u.Shared, Size: u.Size,
			CreatedAt: u.CreatedAt, LastUsedAt: u.LastUsedAt, UsageCount: u.UsageCount,
		})
	}
	return out, nil
}
