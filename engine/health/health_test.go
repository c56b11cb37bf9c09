package health

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	apicontainer "github.com/moby/moby/api/types/container"
)

func TestProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		codes := []int{1, 1, 0, 1, 1, 0}
		var changes []apicontainer.HealthStatus
		n := 0
		p := Start(t.Context(), apicontainer.HealthConfig{Interval: time.Second, Retries: 2}, time.Now(),
			func(context.Context) (int, string, error) {
				code := codes[n%len(codes)]
				n++
				return code, "out", nil
			},
			func(s apicontainer.HealthStatus) { changes = append(changes, s) })
		time.Sleep(6500 * time.Millisecond) // of the bubble's clock
		p.Stop()
		want := []apicontainer.HealthStatus{"unhealthy", "healthy", "unhealthy", "healthy"}
		if diff := cmp.Diff(want, changes); diff != "" {
			t.Errorf("changes (-want +got):\n%s", diff)
		}
		if h := p.Snapshot(); len(h.Log) != keptResults || n != 6 {
			t.Errorf("%d results kept of %d checks", len(h.Log), n)
		}
	})
}

func TestStartPeriodAndTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n atomic.Int32
		p := Start(t.Context(), apicontainer.HealthConfig{
			Interval: time.Minute, StartPeriod: 10 * time.Second, StartInterval: time.Second, Timeout: 500 * time.Millisecond, Retries: 1,
		}, time.Now(), func(ctx context.Context) (int, string, error) {
			n.Add(1)
			<-ctx.Done()
			return 0, "", ctx.Err()
		}, func(apicontainer.HealthStatus) {})
		time.Sleep(9 * time.Second)
		if s, _ := p.Status(); s != apicontainer.Starting || n.Load() < 5 {
			t.Errorf("in the start period: %s after %d checks", s, n.Load())
		}
		time.Sleep(2 * time.Minute)
		if s, streak := p.Status(); s != apicontainer.Unhealthy || streak == 0 {
			t.Errorf("after it: %s, %d in a row", s, streak)
		}
		p.Stop()
	})
}
