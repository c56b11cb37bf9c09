package ocirun

import (
	"context"
	"os"
	"sort"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/ocirun/wire"
)

func BenchmarkExecPhases(b *testing.B) {
	r := newRuntime(b)
	root := busyboxRoot(b)
	req := sh(root, "exec sleep 60")
	c := start(b, r, req)
	names := []string{"spawn", "ready", "exec", "exit"}
	all := make([][]time.Duration, len(names))
	p := *req.Spec.Process
	p.Args = []string{"/bin/true"}
	for b.Loop() {
		t := []time.Time{time.Now()}
		er := &ExecRequest{Pid: c.Pid, PidFD: c.PidFD, Spec: req.Spec, Process: &p, Cgroup: c.Cgroup}
		cfg, fds, err := r.execConfig(er)
		if err != nil {
			b.Fatal(err)
		}
		s, err := r.spawn(&birth{cgroup: c.Cgroup, enter: []nsFD{{int(c.PidFD.Fd()), joinable}}, stdio: [3]*os.File{}})
		if err != nil {
			b.Fatal(err)
		}
		t = append(t, time.Now())
		_ = s.send(wire.KindConfig, cfg, fds...)
		_ = s.send(wire.KindContinue, nil)
		if _, err := s.receive(context.Background()); err != nil {
			b.Fatal(err)
		}
		t = append(t, time.Now())
		_, _ = s.conn.Receive()
		t = append(t, time.Now())
		_, _ = unix.Poll([]unix.PollFd{{Fd: int32(s.pidfd.Fd()), Events: unix.POLLIN}}, -1)
		t = append(t, time.Now())
		s.reap()
		s.pidfd.Close()
		unix.Close(s.conn.FD)
		for i := range names {
			all[i] = append(all[i], t[i+1].Sub(t[i]))
		}
	}
	for i, name := range names {
		d := all[i]
		sort.Slice(d, func(i, j int) bool { return d[i] < d[j] })
		b.ReportMetric(float64(d[len(d)/2].Microseconds()), name+"-µs")
		b.ReportMetric(float64(d[len(d)/10].Microseconds()), name+"-p10-µs")
	}
}
