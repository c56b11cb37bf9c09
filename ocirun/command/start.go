package command

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/wherry-engine/wherry/ocirun"
)

func start(ctx context.Context, g *globals, args []string) error {
	id, err := oneID(newFlags("start"), args)
	if err != nil {
		return err
	}
	rt, r, err := g.openTo(id, true)
	if err != nil {
		return err
	}
	defer rt.Close()
	if s := g.status(rt, r); s != specs.StateCreated {
		return fmt.Errorf("cannot start a container that is %s: %w", s, errdefs.ErrFailedPrecondition)
	}
	return g.start(ctx, r)
}

// start releases the init and runs the hooks that follow.
func (g *globals) start(ctx context.Context, r *record) error {
	socket := filepath.Join(g.dir(r.ID), startSocket)
	conn, err := dial(socket)
	if err != nil {
		return fmt.Errorf("start %s: %w", r.ID, err)
	}
	err = ocirun.StartBy(conn, ocirun.AgentOf(r.request(), r.Pid, specs.StateCreated))
	if ocirun.IsHookError(err) {
		return errors.Join(err, g.destroy(ctx, r, true))
	}
	if err := errors.Join(err, os.Remove(socket)); err != nil {
		return err
	}
	if r.Bare || r.Spec.Hooks == nil {
		return nil
	}
	if err := r.hooks(ctx, "poststart", r.Spec.Hooks.Poststart, r.Pid, specs.StateRunning); err != nil {
		return errors.Join(err, g.destroy(ctx, r, true))
	}
	return nil
}
