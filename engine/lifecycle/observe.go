package lifecycle

import (
	"context"
	"time"

	"github.com/containerd/errdefs"
	apicontainer "github.com/moby/moby/api/types/container"
	apievents "github.com/moby/moby/api/types/events"
	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/engine/stats"
	"github.com/wherry-engine/wherry/engine/top"
)

// statsInterval is the time between samples of a stream.
const statsInterval = time.Second

// Top lists the processes of a running container. Conflict, InvalidArgument.
func (e *Engine) Top(ctx context.Context, ref, args string) (apicontainer.TopResponse, error) {
	u, err := e.index.find(ref)
	if err != nil {
		return apicontainer.TopResponse{}, err
	}
	if !u.up() {
		return apicontainer.TopResponse{}, notRunning(u)
	}
	t, err := e.o.Tasks.Status(ctx, string(u.id))
	if err != nil {
		return apicontainer.TopResponse{}, err
	}
	out, err := top.List(top.Options{Cgroup: t.Cgroup, Args: args})
	if err == nil {
		e.emit(u, apievents.ActionTop, nil)
	}
	return out, err
}

// Stats samples what a container uses and gives each sample to emit until that
// fails, the context ends or, without stream, after the first. With oneShot the
// first sample has no predecessor and is not waited for. A stopped container
// yields empty samples.
func (e *Engine) Stats(ctx context.Context, ref string, stream, oneShot bool, emit func(apicontainer.StatsResponse) error) error {
	u, err := e.index.find(ref)
	if err != nil {
		return err
	}
	prev := e.sample(ctx, u)
	if oneShot && !stream {
		return emit(prev)
	}
	if !u.up() && !stream {
		return emit(prev)
	}
	if stream {
		first := prev
		if err := emit(first); err != nil {
			return err
		}
	}
	tick := time.NewTicker(statsInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-e.run.Done():
			return nil
		case <-tick.C:
		}
		if u.isGone() {
			return nil
		}
		s := e.sample(ctx, u)
		s.PreRead, s.PreCPUStats = prev.Read, prev.CPUStats
		prev = s
		if err := emit(s); err != nil || !stream {
			return err
		}
	}
}

// sample reads the figures now; a container that does not run has none.
func (e *Engine) sample(ctx context.Context, u *unit) apicontainer.StatsResponse {
	empty := apicontainer.StatsResponse{ID: string(u.id), Name: "/" + u.name()}
	if !u.up() {
		return empty
	}
	t, err := e.o.Tasks.Status(ctx, string(u.id))
	if err != nil {
		return empty
	}
	s, err := stats.Read(stats.Source{Cgroup: t.Cgroup, Pid: t.Pid, MemoryTotal: memoryTotal()})
	if err != nil && !errdefs.IsNotFound(err) {
		e.log.Debug("read stats", "container", u.id, "err", err)
	}
	if err != nil {
		return empty
	}
	s.ID, s.Name = empty.ID, empty.Name
	if u.spec.Load().HostConfig.NetworkMode.IsHost() {
		s.Networks = nil
	}
	return s
}

func memoryTotal() uint64 {
	var si unix.Sysinfo_t
	if err := unix.Sysinfo(&si); err != nil {
		return 0
	}
	return uint64(si.Totalram) * uint64(si.Unit)
}

// Counts returns how many containers are in the states `info` shows.
func (e *Engine) Counts() (running, paused, stopped int) {
	for _, u := range e.index.all() {
		switch st := u.status.Load().State; {
		case st == "paused":
			paused++
		case st.Up():
			running++
		default:
			stopped++
		}
	}
	return running, paused, stopped
}
