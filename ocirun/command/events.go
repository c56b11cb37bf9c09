package command

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/ocirun"
)

// event is one line of output, as runc words it.
type event struct {
	Type string `json:"type"`
	ID   string `json:"id"`
	Data any    `json:"data,omitempty"`
}

// events shows the counters of a container's cgroups, once or until it ends,
// and when the kernel killed a process of it for lack of memory.
func events(ctx context.Context, g *globals, args []string) error {
	fs := newFlags("events")
	interval := fs.Duration("interval", 5*time.Second, "time between two statistics")
	once := fs.Bool("stats", false, "show statistics once and end")
	id, err := oneID(fs, args)
	if err != nil {
		return err
	}
	if *interval <= 0 {
		return fmt.Errorf("events: the interval must be positive: %w", errdefs.ErrInvalidArgument)
	}
	rt, r, err := g.open(id)
	if err != nil {
		return err
	}
	defer rt.Close()
	if !r.alive() {
		return fmt.Errorf("container %s is not running: %w", id, errdefs.ErrFailedPrecondition)
	}
	out := json.NewEncoder(os.Stdout)
	stats := func() error {
		s, err := rt.Stats(r.Cgroup)
		if err != nil {
			return err
		}
		return out.Encode(event{"stats", id, s})
	}
	if *once {
		return stats()
	}
	return r.watch(ctx, rt, *interval, stats, func() error { return out.Encode(event{Type: "oom", ID: id}) })
}

// watch calls stats at every interval and oom when there was one, until the
// container's first process is gone.
func (r *record) watch(ctx context.Context, rt *ocirun.Runtime, interval time.Duration, stats, oom func() error) error {
	pidfd, err := r.pidfd()
	if err != nil {
		return err
	}
	defer pidfd.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	killed := make(chan struct{}, 64)
	watched := make(chan struct{})
	ready := sync.OnceFunc(func() { close(watched) })
	go func() {
		defer ready()
		// Without a memory cgroup there is nothing to tell.
		_ = rt.WatchOOM(ctx, r.Cgroup, ready, func() { killed <- struct{}{} })
	}()
	<-watched // whoever has read statistics misses nothing that comes later
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		poll := []unix.PollFd{{Fd: int32(pidfd.Fd()), Events: unix.POLLIN}}
		for {
			if n, err := unix.Poll(poll, -1); n > 0 || err != nil && err != unix.EINTR { //nolint:errorlint // an errno
				return
			}
		}
	}()
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-killed:
			err = oom()
		case <-tick.C:
			if err = stats(); errdefs.IsNotFound(err) {
				return nil
			}
		case <-ended:
			select {
			case <-killed:
				return oom()
			default:
				return nil
			}
		}
		if err != nil {
			return err
		}
	}
}
