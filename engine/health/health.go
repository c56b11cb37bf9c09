// Package health schedules the health checks of running containers and keeps
// their results. How a check is run is its caller's.
package health

import (
	"context"
	"slices"
	"sync"
	"time"

	apicontainer "github.com/moby/moby/api/types/container"
)

// Defaults of a health check, in the user's words.
const (
	defaultInterval      = 30 * time.Second
	defaultTimeout       = 30 * time.Second
	defaultStartInterval = 5 * time.Second
	defaultRetries       = 3
	keptResults          = 5
	maxOutput            = 4096 // bytes kept of a check's output
)

// Runner runs one check and returns its exit code and output. The context ends
// at the check's timeout.
type Runner func(ctx context.Context) (code int, output string, err error)

// Enabled reports whether a configuration asks for checks.
func Enabled(c *apicontainer.HealthConfig) bool {
	return c != nil && len(c.Test) > 1 && c.Test[0] != "NONE"
}

// Command returns the arguments of the check.
func Command(c *apicontainer.HealthConfig, shell []string) []string {
	if c.Test[0] == "CMD-SHELL" {
		if len(shell) == 0 {
			shell = []string{"/bin/sh", "-c"}
		}
		return append(slices.Clone(shell), c.Test[1:]...)
	}
	return c.Test[1:]
}

// Probe checks one container until it is stopped.
type Probe struct {
	cfg     apicontainer.HealthConfig
	started time.Time
	run     Runner
	changed func(apicontainer.HealthStatus)
	cancel  context.CancelFunc
	done    chan struct{}

	mu     sync.Mutex
	health apicontainer.Health
}

// Start begins to check. changed is called from the probe's goroutine at each
// change of the status.
func Start(ctx context.Context, cfg apicontainer.HealthConfig, started time.Time, run Runner, changed func(apicontainer.HealthStatus)) *Probe {
	ctx, cancel := context.WithCancel(ctx)
	p := &Probe{cfg: cfg, started: started, run: run, changed: changed, cancel: cancel, done: make(chan struct{})}
	p.health.Status = apicontainer.Starting
	p.health.Log = []*apicontainer.HealthcheckResult{}
	go p.loop(ctx)
	return p
}

// Stop ends the checks; the last results stay readable.
func (p *Probe) Stop() {
	p.cancel()
	<-p.done
}

// Snapshot returns the results so far.
func (p *Probe) Snapshot() *apicontainer.Health {
	p.mu.Lock()
	defer p.mu.Unlock()
	h := p.health
	h.Log = slices.Clone(h.Log)
	return &h
}

// Status returns the word alone, and the failures in a row.
func (p *Probe) Status() (apicontainer.HealthStatus, int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.health.Status, p.health.FailingStreak
}

// Restore sets what was known before.
func (p *Probe) Restore(h apicontainer.Health) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.health = h
}

// Resume sets what an earlier daemon found. Nobody checked while there was no
// daemon, and the log says so.
func (p *Probe) Resume(s apicontainer.HealthStatus) {
	now := time.Now()
	r := &apicontainer.HealthcheckResult{Start: now, End: now, Output: "health checks were paused while the daemon was away"}
	if s != apicontainer.Healthy {
		r.ExitCode = 1
	}
	p.Restore(apicontainer.Health{Status: s, Log: []*apicontainer.HealthcheckResult{r}})
}

// loop waits, checks and records. It owns the timer.
func (p *Probe) loop(ctx context.Context) {
	defer close(p.done)
	timer := time.NewTimer(p.wait())
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		r := p.check(ctx)
		if ctx.Err() != nil {
			return
		}
		p.record(r)
		timer.Reset(p.wait())
	}
}

func or(d, def time.Duration) time.Duration {
	if d == 0 {
		return def
	}
	return d
}

// wait is the time until the next check: shorter while the container starts.
func (p *Probe) wait() time.Duration {
	status, _ := p.Status()
	interval := or(p.cfg.Interval, defaultInterval)
	if status == apicontainer.Starting && p.inStartPeriod(time.Now()) {
		if p.cfg.StartInterval != 0 {
			return p.cfg.StartInterval
		}
		return min(interval, defaultStartInterval)
	}
	return interval
}

func (p *Probe) inStartPeriod(now time.Time) bool {
	return p.cfg.StartPeriod > 0 && now.Sub(p.started) < p.cfg.StartPeriod
}

func (p *Probe) check(ctx context.Context) *apicontainer.HealthcheckResult {
	timeout := or(p.cfg.Timeout, defaultTimeout)
	cctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	r := &apicontainer.HealthcheckResult{Start: time.Now()}
	code, output, err := p.run(cctx)
	r.End, r.ExitCode = time.Now(), code
	switch {
	case cctx.Err() != nil:
		r.ExitCode = -1
		output = "Health check exceeded timeout (" + timeout.String() + ")" + colon(output)
	case err != nil:
		r.ExitCode = -1
		output = err.Error()
	}
	if len(output) > maxOutput {
		output = output[:maxOutput]
	}
	r.Output = output
	return r
}

func colon(s string) string {
	if s == "" {
		return s
	}
	return ": " + s
}

// record adds a result and decides the status.
func (p *Probe) record(r *apicontainer.HealthcheckResult) {
	p.mu.Lock()
	h := &p.health
	before := h.Status
	h.Log = append(h.Log, r)
	if len(h.Log) > keptResults {
		h.Log = slices.Clone(h.Log[len(h.Log)-keptResults:])
	}
	retries := p.cfg.Retries
	if retries == 0 {
		retries = defaultRetries
	}
	switch {
	case r.ExitCode == 0:
		h.FailingStreak, h.Status = 0, apicontainer.Healthy
	case before == apicontainer.Starting && p.inStartPeriod(r.Start):
		// Failures do not count while the container may still be starting.
	default:
		h.FailingStreak++
		if h.FailingStreak >= retries {
			h.Status = apicontainer.Unhealthy
		}
	}
	after := h.Status
	p.mu.Unlock()
	if before != after {
		p.changed(after)
	}
}
