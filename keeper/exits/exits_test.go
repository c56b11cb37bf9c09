package exits

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func TestRecorder(t *testing.T) {
	dir := t.TempDir()
	want := []Exit{{1, 2, 3}, {4, 5, 137}}
	for _, e := range want {
		r, err := NewRecorder(dir)
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Add(e); err != nil {
			t.Fatal(err)
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	}
	got, err := Read(dir)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	Remove(dir)
	if got, err = Read(dir); err != nil || got != nil {
		t.Errorf("after removal: %v, %v", got, err)
	}
}

func TestRotation(t *testing.T) {
	dir := t.TempDir()
	r, err := NewRecorder(dir)
	if err != nil {
		t.Fatal(err)
	}
	const n = 250000
	for i := range n {
		if err := r.Add(Exit{i, 1, 0}); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	got, err := Read(dir)
	if err != nil || len(got) == 0 || got[len(got)-1].Pid != n-1 {
		t.Fatalf("%d read, %v", len(got), err)
	}
	for _, name := range []string{"exits", "exits.1"} {
		if fi, err := os.Stat(filepath.Join(dir, name)); err != nil || fi.Size() > maxSize+100 {
			t.Errorf("%s: %v, %v", name, fi, err)
		}
	}
}

func TestNewerVersionIsRefused(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "exits"), []byte("wherry-exits 2\n1 2 3\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := Read(dir); err == nil {
		t.Errorf("read as %v", got)
	}
}

func TestZombie(t *testing.T) {
	c := exec.Command("/bin/sh", "-c", "exit 42")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	start, err := StartTime(c.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	var info unix.Siginfo
	if err := unix.Waitid(unix.P_PID, c.Process.Pid, &info, unix.WEXITED|unix.WNOWAIT, nil); err != nil {
		t.Fatal(err)
	}
	if code, ok := FromZombie(c.Process.Pid, start); !ok || code != 42 {
		t.Errorf("exit code %d, %v", code, ok)
	}
	if _, ok := FromZombie(c.Process.Pid, start+1); ok {
		t.Error("another process's exit code was returned")
	}
	_ = c.Wait()
	if _, ok := FromZombie(c.Process.Pid, start); ok {
		t.Error("a process that is no more has an exit code")
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(header + "1 2 3\n4 5"))
	f.Fuzz(func(t *testing.T, b []byte) { _, _ = parse(b) })
}
