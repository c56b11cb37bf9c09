package lifecycle

import (
	"context"
	"io"
	"strings"
	"time"

	apicontainer "github.com/moby/moby/api/types/container"
	apievents "github.com/moby/moby/api/types/events"
	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/container"
	"github.com/wherry-engine/wherry/engine/exec"
	"github.com/wherry-engine/wherry/engine/handoff"
	"github.com/wherry-engine/wherry/engine/health"
)

// startProbe begins the health checks of a container that runs.
func (e *Engine) startProbe(u *unit) {
	cfg := u.spec.Load().Config.Healthcheck
	if !health.Enabled(cfg) || u.status.Load().State != container.StateRunning {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.handle.probe != nil {
		return
	}
	started := u.status.Load().StartedAt
	p := health.Start(e.run, *cfg, started,
		func(ctx context.Context) (int, string, error) { return e.probe(ctx, u) },
		func(s apicontainer.HealthStatus) {
			e.emit(u, apievents.Action(string(apievents.ActionHealthStatus)+": "+string(s)), nil)
			e.reaper.now(func() { e.saveHealth(u, started, s) })
		})
	switch known := u.status.Load().Health; {
	case u.handle.lastHealth != nil:
		p.Restore(*u.handle.lastHealth)
	case known != "":
		p.Resume(apicontainer.HealthStatus(known))
	}
	u.handle.probe = p
}

// forgetHealth drops what was known of an earlier life.
func (u *unit) forgetHealth() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.handle.lastHealth = nil
}

// saveHealth remembers the verdict for the next daemon.
func (e *Engine) saveHealth(u *unit, started time.Time, s apicontainer.HealthStatus) {
	_ = u.owner.do(func() error {
		if st := u.status.Load(); u.up() && st.StartedAt.Equal(started) && !u.isGone() {
			e.save(u, func(st *container.Status) { st.Health = string(s) })
		}
		return nil
	})
}

// stopProbe ends the health checks; the results stay for inspect.
func (e *Engine) stopProbe(u *unit) {
	u.mu.Lock()
	p := u.handle.probe
	u.handle.probe = nil
	u.mu.Unlock()
	if p == nil {
		return
	}
	p.Stop()
	last := p.Snapshot()
	u.mu.Lock()
	defer u.mu.Unlock()
	u.handle.lastHealth = nil
	if u.status.Load().State == container.StatePaused {
		u.handle.lastHealth = last
	}
}

// probe runs one health check in the container.
func (e *Engine) probe(ctx context.Context, u *unit) (int, string, error) {
	c := u.spec.Load().Config
	ex := exec.NewProbe(u.id, health.Command(c.Healthcheck, c.Shell))
	treq, err := e.execMessage(u, ex)
	if err != nil {
		return -1, "", err
	}
	treq.Attach.Framed = false
	conn, f, err := handoff.Pair()
	if err != nil {
		return -1, "", err
	}
	defer conn.Close()
	e.execs.Add(ex)
	cmd := strings.Join(ex.Request.Cmd, " ")
	id := map[string]string{"execID": ex.ID}
	e.emit(u, apievents.Action(string(apievents.ActionExecCreate)+": "+cmd), id)
	e.emit(u, apievents.Action(string(apievents.ActionExecStart)+": "+cmd), id)
	_, err = e.runExec(ctx, ex, treq, f)
	_ = f.Close()
	if err != nil {
		return -1, "", err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	out, _ := io.ReadAll(io.LimitReader(conn, 64<<10))
	select {
	case <-ex.Done():
	case <-ctx.Done():
		_ = e.o.Tasks.Signal(context.WithoutCancel(ctx), string(u.id), ex.ID, int(unix.SIGKILL))
		return -1, string(out), ctx.Err()
	}
	return e.execs.State(ex).Status.ExitCode, string(out), nil
}
