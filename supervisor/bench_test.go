package supervisor

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/wherry-engine/wherry/task"
)

// pss returns the proportional set size of a process (KiB).
func pss(t testing.TB, pid int) int {
	t.Helper()
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/smaps_rollup")
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range strings.Split(string(b), "\n") {
		if f := strings.Fields(l); len(f) == 3 && f[0] == "Pss:" {
			n, err := strconv.Atoi(f[1])
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatal("no Pss")
	return 0
}

// TestMemoryPerIdleContainer holds the helpers to their budget.
func TestMemoryPerIdleContainer(t *testing.T) {
	const (
		count  = 100
		budget = 64 // KiB, supervisor and keeper
	)
	b := newBox(t)
	start := func() {
		req := b.request("exec sleep 1000")
		req.Stdio = task.Stdio{OpenStdin: true}
		b.start(req, task.StartFiles{})
	}
	for range 5 {
		start()
	}
	time.Sleep(500 * time.Millisecond) // starts have settled
	sup, keep := pss(t, b.inv.SupervisorPid), pss(t, b.inv.KeeperPid)
	for range count {
		start()
	}
	time.Sleep(2 * time.Second)
	sup1, keep1 := pss(t, b.inv.SupervisorPid), pss(t, b.inv.KeeperPid)
	each := float64(sup1-sup+keep1-keep) / count
	t.Logf("supervisor %d to %d KiB, keeper %d to %d KiB: %.1f KiB for each idle container", sup, sup1, keep, keep1, each)
	if each > budget {
		t.Errorf("more than %d KiB", budget)
	}
}

func BenchmarkRun(b *testing.B) {
	box := newBox(b)
	var start, exit, remove time.Duration
	for b.Loop() {
		req := box.request("")
		req.Spec.Process.Args = []string{"/bin/true"}
		t0 := time.Now()
		box.start(req, task.StartFiles{})
		t1 := time.Now()
		box.awaitExit(req.ID)
		t2 := time.Now()
		if err := box.client.Delete(box.ctx, req.ID, false); err != nil {
			b.Fatal(err)
		}
		start, exit, remove = start+t1.Sub(t0), exit+t2.Sub(t1), remove+time.Since(t2)
	}
	for name, d := range map[string]time.Duration{"start": start, "exit": exit, "remove": remove} {
		b.ReportMetric(float64(d.Microseconds())/float64(b.N), name+"-us")
	}
}

func BenchmarkStart(b *testing.B) {
	box := newBox(b)
	for b.Loop() {
		req := box.request("")
		req.Spec.Process.Args = []string{"/bin/sleep", "100"}
		box.start(req, task.StartFiles{})
		b.StopTimer()
		if err := box.client.Delete(box.ctx, req.ID, true); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}

func BenchmarkLog(b *testing.B) {
	box := newBox(b)
	const mib = 64
	for _, driver := range []string{"json-file", "local", "none"} {
		b.Run(driver, func(b *testing.B) {
			began := cpu(b, box.inv.SupervisorPid)
			for b.Loop() {
				req := box.request(fmt.Sprintf("yes 0123456789abcdefghijklmnopqrstuvwxyz0123456789abcdefghijklmnopqrstuvwxyz | head -c %d", mib<<20))
				req.Log.Driver = driver
				box.start(req, task.StartFiles{})
				box.awaitExit(req.ID)
				b.StopTimer()
				if err := box.client.Delete(box.ctx, req.ID, false); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
			b.ReportMetric(float64(b.N*mib)/b.Elapsed().Seconds(), "MiB/s")
			b.ReportMetric(float64(b.N*mib)/(cpu(b, box.inv.SupervisorPid)-began).Seconds(), "MiB/cpu-s")
		})
	}
}

// cpu returns the processor time that a process has used.
func cpu(t testing.TB, pid int) time.Duration {
	t.Helper()
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		t.Fatal(err)
	}
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	user, err1 := strconv.Atoi(f[11])
	sys, err2 := strconv.Atoi(f[12])
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	return time.Duration(user+sys) * 10 * time.Millisecond
}

func BenchmarkExec(b *testing.B) {
	box := newBox(b)
	req := box.request("sleep 1000")
	box.start(req, task.StartFiles{})
	n := 0
	var start, end time.Duration
	for b.Loop() {
		n++
		client, server := socketPair(b)
		t0 := time.Now()
		_, err := box.client.Exec(box.ctx, task.ExecRequest{
			ID: req.ID, ExecID: strconv.Itoa(n), Process: &specs.Process{Args: []string{"/bin/true"}, Cwd: "/"},
			Attach: task.AttachRequest{Stdout: true, Stderr: true, Framed: true},
		}, server)
		if err != nil {
			b.Fatal(err)
		}
		t1 := time.Now()
		server.Close()
		readAll(b, client)
		start, end = start+t1.Sub(t0), end+time.Since(t1)
		client.Close()
	}
	b.ReportMetric(float64(start.Microseconds())/float64(b.N), "start-us")
	b.ReportMetric(float64(end.Microseconds())/float64(b.N), "end-us")
}
