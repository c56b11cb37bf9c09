package command

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/ocirun"
)

func remove(ctx context.Context, g *globals, args []string) error {
	fs := newFlags("delete")
	force := fs.Bool("force", false, "kill the container if it runs")
	fs.BoolVar(force, "f", false, "kill the container if it runs")
	id, err := oneID(fs, args)
	if err != nil {
		return err
	}
	rt, r, err := g.openTo(id, true)
	if errdefs.IsNotFound(err) {
		// What a killed create left.
		if rerr := os.RemoveAll(g.dir(id)); rerr != nil || *force {
			return rerr
		}
	}
	if err != nil {
		return err
	}
	defer rt.Close()
	return g.remove(ctx, rt, r, *force)
}

func (g *globals) remove(ctx context.Context, rt *ocirun.Runtime, r *record, force bool) error {
	s := g.status(rt, r)
	if s != specs.StateStopped && s != specs.StateCreated && !force {
		return fmt.Errorf("cannot delete container %s that is not stopped: %s: %w", r.ID, s, errdefs.ErrFailedPrecondition)
	}
	if s != specs.StateStopped {
		if err := killAndWait(r); err != nil {
			return err
		}
	}
	// Without a PID namespace of its own others may live on.
	if pids, err := rt.Pids(r.Cgroup); err == nil && len(pids) > 0 {
		if err := rt.KillAll(r.Cgroup, unix.SIGKILL); err != nil && !errdefs.IsNotFound(err) {
			return err
		}
	}
	if r.Systemd {
		if err := ocirun.StopUnit(r.Cgroup); err != nil {
			return err
		}
	}
	if err := rt.DeleteCgroup(ctx, r.Cgroup); err != nil {
		return err
	}
	var err error
	if !r.Bare {
		err = errors.Join(ocirun.UnmountForeign(r.Spec, r.Bundle, r.MountsBefore), ocirun.DeleteRdt(r.ID, r.Spec))
		g.poststop(ctx, r)
	}
	return errors.Join(err, os.RemoveAll(g.dir(r.ID)))
}

// poststop runs the hooks of a container that is gone. One that fails is worth
// a warning and keeps nothing from going on (runtime.md, "Lifecycle").
func (g *globals) poststop(ctx context.Context, r *record) {
	if r.Spec.Hooks == nil {
		return
	}
	for i := range r.Spec.Hooks.Poststop {
		if err := r.hooks(ctx, "poststop", r.Spec.Hooks.Poststop[i:i+1], 0, specs.StateStopped); err != nil {
			g.logger().Warn("poststop hook failed", "container", r.ID, "err", err)
		}
	}
}

// killAndWait ends the container's first process.
func killAndWait(r *record) error {
	fd, err := r.pidfd()
	if err != nil {
		return nil //nolint:nilerr // it ended by itself
	}
	defer fd.Close()
	if err := unix.PidfdSendSignal(int(fd.Fd()), unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return err
	}
	poll := []unix.PollFd{{Fd: int32(fd.Fd()), Events: unix.POLLIN}}
	deadline := time.Now().Add(10 * time.Second)
	for {
		n, err := unix.Poll(poll, int(time.Until(deadline).Milliseconds()))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if n == 0 {
			return fmt.Errorf("container %s did not die within 10 s: %w", r.ID, errdefs.ErrUnavailable)
		}
		return err
	}
}
