package ocirun

import (
	"context"
	"os"
	"sort"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// BenchmarkPhases prints the median of each phase of a container's life.
func BenchmarkPhases(b *testing.B) {
	r := newRuntime(b)
	root := busyboxRoot(b)
	gap, _ := time.ParseDuration(os.Getenv("WHERRY_BENCH_GAP"))
	var create, start, exit, del []time.Duration
	for b.Loop() {
		spec := testSpec(root, "/bin/true")
		b.StopTimer()
		time.Sleep(gap)
		b.StartTimer()
		t0 := time.Now()
		c, err := r.Create(context.Background(), &CreateRequest{ID: testID(b), Spec: spec})
		if err != nil {
			b.Fatal(err)
		}
		t1 := time.Now()
		if err := c.Start(); err != nil {
			b.Fatal(err)
		}
		t2 := time.Now()
		_, _ = unix.Poll([]unix.PollFd{{Fd: int32(c.PidFD.Fd()), Events: unix.POLLIN}}, -1)
		t3 := time.Now()
		reapFD(b, c.PidFD)
		c.PidFD.Close()
		remove(b, r, c)
		create, start, exit, del = append(create, t1.Sub(t0)), append(start, t2.Sub(t1)), append(exit, t3.Sub(t2)), append(del, time.Since(t3))
	}
	for name, d := range map[string][]time.Duration{"create": create, "start": start, "exit": exit, "delete": del} {
		sort.Slice(d, func(i, j int) bool { return d[i] < d[j] })
		b.ReportMetric(float64(d[len(d)/2].Microseconds()), name+"-µs")
		b.ReportMetric(float64(d[0].Microseconds()), name+"-min-µs")
	}
}
