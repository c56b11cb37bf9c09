package ocirun

import (
	"context"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func countDir(t *testing.T, dir string) int {
	t.Helper()
	e, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	return len(e)
}

// TestNothingIsLeft runs many containers and execs at once, good and bad, and
// then looks for descriptors, mounts, threads, goroutines and cgroups.
func TestNothingIsLeft(t *testing.T) {
	r := newRuntime(t)
	root := busyboxRoot(t)
	mustRun(t, r, sh(root, "true"))
	unready(r)
	fds, mounts, goroutines := countDir(t, "/proc/self/fd"), mountTable(t), runtime.NumGoroutine()
	ids := make(chan string, 1000)
	for range 160 {
		ids <- testID(t)
	}
	close(ids)
	var wg sync.WaitGroup
	for worker := range 8 {
		wg.Go(func() {
			for id := range ids {
				lifeOfOne(t, r, root, id, worker)
			}
		})
	}
	wg.Wait()
	unready(r)
	if got := countDir(t, "/proc/self/fd"); got > fds {
		t.Errorf("%d descriptors became %d", fds, got)
	}
	if mountTable(t) != mounts {
		t.Error("the mount table changed")
	}
	// Goroutines on their way out get there. Threads that cloned end; idle ones of
	// the Go runtime stay.
	deadline := time.Now().Add(5 * time.Second)
	for (runtime.NumGoroutine() > goroutines || countDir(t, "/proc/self/task") > 60) && time.Now().Before(deadline) {
		time.Sleep(10 * time.Millisecond)
	}
	if got := runtime.NumGoroutine(); got > goroutines {
		t.Errorf("%d goroutines became %d", goroutines, got)
	}
	if n := countDir(t, "/proc/self/task"); n > 60 {
		t.Errorf("%d threads", n)
	}
}

// unready removes the inits that stand by for an exec.
func unready(r *Runtime) {
	r.standby.work.Wait()
	r.standby.dismiss()
}

func lifeOfOne(t *testing.T, r *Runtime, root, id string, worker int) {
	spec := testSpec(root, "sleep", "60")
	if worker%4 == 3 {
		spec.Process.Args = []string{"missing"}
	}
	c, err := r.Create(context.Background(), &CreateRequest{ID: id, Spec: spec, Init: worker%4 == 2})
	if worker%4 == 3 {
		if err == nil {
			t.Error("no error")
		}
		checkGone(t, r, id)
		return
	}
	if err != nil {
		t.Error(err)
		return
	}
	defer c.PidFD.Close()
	if worker%4 == 1 {
		if err := c.Abort(); err != nil {
			t.Error(err)
		}
	} else {
		if err := c.Start(); err != nil {
			t.Error(err)
		}
		p := *spec.Process
		p.Args = []string{"true"}
		proc, err := r.Exec(context.Background(), &ExecRequest{Pid: c.Pid, PidFD: c.PidFD, Spec: spec, Process: &p, Cgroup: c.Cgroup})
		if err != nil {
			t.Error(err)
		} else {
			wait(t, proc.PidFD)
			proc.PidFD.Close()
		}
		_ = unix.PidfdSendSignal(int(c.PidFD.Fd()), unix.SIGKILL, nil, 0)
	}
	wait(t, c.PidFD)
	remove(t, r, c)
}

func TestSameCgroupTwice(t *testing.T) {
	r := newRuntime(t)
	root := busyboxRoot(t)
	req := sh(root, "exec sleep 60")
	c := start(t, r, req)
	_, err := r.Create(context.Background(), &CreateRequest{ID: c.ID, Spec: testSpec(root, "true")})
	if err == nil {
		t.Fatal("two containers in one cgroup")
	}
	if !r.CgroupExists(c.Cgroup) {
		t.Error("the first one's cgroup is gone")
	}
}

// TestRestartWhileCleaningUp makes a container of the same name again while
// the cgroup of its last life is being removed.
func TestRestartWhileCleaningUp(t *testing.T) {
	r := newRuntime(t)
	root := busyboxRoot(t)
	id := testID(t)
	var removing sync.WaitGroup
	for range 30 {
		c, err := r.Create(context.Background(), &CreateRequest{ID: id, Spec: testSpec(root, "true")})
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		wait(t, c.PidFD)
		c.PidFD.Close()
		removing.Go(func() { _ = r.DeleteCgroup(context.Background(), c.Cgroup) })
	}
	removing.Wait()
	_ = r.DeleteCgroup(context.Background(), "/"+id)
	checkGone(t, r, id)
}
