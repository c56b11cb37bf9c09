package main

import (
	"context"
	"path/filepath"
	"strconv"

	moby "github.com/moby/moby/api/types/build"
	apievents "github.com/moby/moby/api/types/events"

	apibuild "github.com/wherry-engine/wherry/api/build"
	"github.com/wherry-engine/wherry/build"
	"github.com/wherry-engine/wherry/daemon/apparmor"
	"github.com/wherry-engine/wherry/events"
	"github.com/wherry-engine/wherry/network"
	"github.com/wherry-engine/wherry/task"
)

// newBuilder makes the builder over the engine's stores; BuildKit itself
// starts with the first build.
func (e *engine) newBuilder(tasks func() task.Service, sandboxes network.Sandboxes, cgroupParent string) (*build.Builder, error) {
	opts := build.Options{
		Root: filepath.Join(e.cfg.Load().DataRoot, "buildkit"), Store: e.images,
		Tasks: tasks, Sandboxes: sandboxes, CgroupParent: cgroupParent,
		SystemdCgroup: e.cfg.Load().SystemdCgroup(), Logger: e.log,
	}
	if apparmor.Supported() {
		opts.AppArmor = func() (string, error) { return apparmor.Default, apparmor.Ensure() }
	}
	b, err := build.New(opts)
	if err != nil {
		return nil, err
	}
	e.onClose(func(context.Context) error { return b.Close() })
	return b, nil
}

// buildBackend gives the builder the shape the API asks for.
type buildBackend struct {
	*build.Builder
	events events.Publisher
}

func (b buildBackend) Build(ctx context.Context, r apibuild.Request, out apibuild.Output) error {
	_, err := b.Builder.Build(ctx, build.Request{
		Context: r.Context, Remote: r.Remote, Session: r.Session, BuildID: r.BuildID,
		Dockerfile: r.Dockerfile, Tags: r.Tags, BuildArgs: r.BuildArgs, Labels: r.Labels, Target: r.Target,
		NoCache: r.NoCache, Pull: r.Pull, NetworkMode: r.NetworkMode, ExtraHosts: r.ExtraHosts,
		Platform: r.Platform, CgroupParent: r.CgroupParent, ShmSize: r.ShmSize, Ulimits: r.Ulimits,
		CacheFrom: r.CacheFrom, Auth: r.Auth, BuildKit: r.BuildKit,
	}, out)
	return err
}

func (b buildBackend) Prune(ctx context.Context, r apibuild.PruneRequest) (moby.CachePruneReport, error) {
	report, err := b.Builder.Prune(ctx, build.PruneRequest(r))
	if err == nil {
		b.events.Publish(apievents.BuilderEventType, apievents.ActionPrune, "", map[string]string{
			"reclaimed": strconv.FormatUint(report.SpaceReclaimed, 10),
		})
	}
	return report, err
}
