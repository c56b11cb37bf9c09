package command

import (
	"context"
	"fmt"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func pause(ctx context.Context, g *globals, args []string) error {
	return g.freeze(ctx, "pause", args)
}

func resume(ctx context.Context, g *globals, args []string) error {
	return g.freeze(ctx, "resume", args)
}

func (g *globals) freeze(ctx context.Context, what string, args []string) error {
	id, err := oneID(newFlags(what), args)
	if err != nil {
		return err
	}
	rt, r, err := g.open(id)
	if err != nil {
		return err
	}
	defer rt.Close()
	s := g.status(rt, r)
	if what == "resume" {
		if s != "paused" {
			return fmt.Errorf("container %s is %s, not paused: %w", id, s, errdefs.ErrFailedPrecondition)
		}
		return rt.Resume(ctx, r.Cgroup)
	}
	if s != specs.StateRunning && s != specs.StateCreated {
		return fmt.Errorf("container %s is %s: %w", id, s, errdefs.ErrFailedPrecondition)
	}
	return rt.Pause(ctx, r.Cgroup)
}
