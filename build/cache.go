package build

import (
	"context"
	"fmt"
	"time"

	controlapi "github.com/moby/buildkit/api/services/control"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/cmd/buildkitd/config"
	"github.com/moby/buildkit/util/disk"
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

// gcPolicy bounds the cache as BuildKit's own daemon does by default: by the
// size of the disk below root, and by age for what is easily made again.
func gcPolicy(root string) []client.PruneInfo {
	size, err := disk.GetDiskStat(root)
	if err != nil {
		size = disk.DiskStat{} // the limits are then absolute
	}
	var rules []client.PruneInfo
	for _, r := range config.DefaultGCPolicy(config.GCConfig{}, size) {
		rules = append(rules, client.PruneInfo{
			Filter: r.Filters, All: r.All, KeepDuration: r.KeepDuration.Duration,
			ReservedSpace: r.ReservedSpace.AsBytes(size), MaxUsedSpace: r.MaxUsedSpace.AsBytes(size), MinFreeSpace: r.MinFreeSpace.AsBytes(size),
		})
	}
	return rules
}

// Prune deletes build cache; all of it takes the records of past builds along,
// but for those that somebody pinned. A builder that never ran in this daemon is
// started for it, because its cache may be there from before.
func (b *Builder) Prune(ctx context.Context, req PruneRequest) (apibuild.CachePruneReport, error) {
	run, err := b.get(ctx)
	if err != nil {
		return apibuild.CachePruneReport{}, err
	}
	defer b.collectLater()
	rep := apibuild.CachePruneReport{CachesDeleted: []string{}}
	// By the controller, which also forgets what its solver knows of the records.
	err = run.controller.Prune(&controlapi.PruneRequest{
		Filter: req.Filter, All: req.All, KeepDuration: int64(req.KeepDuration),
		ReservedSpace: req.ReservedSpace, MaxUsedSpace: req.MaxUsedSpace, MinFreeSpace: req.MinFreeSpace,
	}, &pruneStream{statusStream: statusStream{ctx: ctx}, record: func(r *controlapi.UsageRecord) {
		rep.CachesDeleted = append(rep.CachesDeleted, r.ID)
		rep.SpaceReclaimed += uint64(r.Size)
	}})
	if err == nil && req.everything() {
		err = forgetHistory(ctx, run)
	}
	return rep, err
}

func (r PruneRequest) everything() bool {
	return r.All && len(r.Filter) == 0 && r.KeepDuration == 0 && r.ReservedSpace == 0 && r.MaxUsedSpace == 0 && r.MinFreeSpace == 0
}

// forgetHistory deletes the records of builds that have ended, and the blobs
// that they alone hold.
func forgetHistory(ctx context.Context, run *running) error {
	var refs []string
	list := &historyStream{statusStream: statusStream{ctx: ctx}, event: func(e *controlapi.BuildHistoryEvent) {
		if e.Record != nil && e.Record.CompletedAt != nil && !e.Record.Pinned {
			refs = append(refs, e.Record.Ref)
		}
	}}
	if err := run.controller.ListenBuildHistory(&controlapi.BuildHistoryRequest{EarlyExit: true}, list); err != nil {
		return fmt.Errorf("list past builds: %w", err)
	}
	for _, ref := range refs {
		if _, err := run.controller.UpdateBuildHistory(ctx, &controlapi.UpdateBuildHistoryRequest{Ref: ref, Delete: true}); err != nil {
			return fmt.Errorf("delete the record of build %s: %w", ref, err)
		}
	}
	if len(refs) == 0 {
		return nil
	}
	return run.worker.GarbageCollect(ctx)
}

// pruneStream is the server side of a prune request made in process.
type pruneStream struct {
	statusStream
	record func(*controlapi.UsageRecord)
}

func (s *pruneStream) Send(r *controlapi.UsageRecord) error { s.record(r); return nil }

// historyStream is the server side of a history request made in process.
type historyStream struct {
	statusStream
	event func(*controlapi.BuildHistoryEvent)
}

func (s *historyStream) Send(e *controlapi.BuildHistoryEvent) error { s.event(e); return nil }

// DiskUsage lists the build cache; empty while no build ran in this daemon. What
// an image needs, too, is shared.
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
	needed, err := b.opt.Store.NeededSnapshots(ctx)
	if err != nil {
		return nil, err
	}
	out := make([]apibuild.CacheRecord, 0, len(infos))
	for _, u := range infos {
		out = append(out, apibuild.CacheRecord{
			ID: u.ID, Parents: u.Parents, Type: string(u.RecordType), Description: u.Description,
			InUse: u.InUse, Shared: needed[run.worker.snapshot(u.ID)], Size: u.Size,
			CreatedAt: u.CreatedAt, LastUsedAt: u.LastUsedAt, UsageCount: u.UsageCount,
		})
	}
	return out, nil
}
