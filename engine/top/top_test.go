package top

import (
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
)

// group makes a directory that looks like a cgroup holding this process.
func group(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.MkdirAll(dir+"/c/sub", 0o755); err != nil {
		t.Fatal(err)
	}
	for p, text := range map[string]string{"/c": "", "/c/sub": strconv.Itoa(os.Getpid()) + "\n4194304\n"} {
		if err := os.WriteFile(dir+p+"/cgroup.procs", []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestList(t *testing.T) {
	dir := group(t)
	got, err := List(Options{Mount: dir, Cgroup: "c", UserName: func(int) string { return "me" }})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"}, got.Titles); diff != "" {
		t.Error(diff)
	}
	if len(got.Processes) != 1 || got.Processes[0][0] != "me" || got.Processes[0][1] != strconv.Itoa(os.Getpid()) || !strings.Contains(got.Processes[0][7], "top.test") {
		t.Errorf("%v", got.Processes)
	}
	got, err = List(Options{Mount: dir, Cgroup: "c", Args: "-eo pid,comm=NAME"})
	if diff := cmp.Diff([]string{"PID", "NAME"}, got.Titles); err != nil || diff != "" {
		t.Error(err, diff)
	}
	for _, bad := range []string{"--evil", "-o", "-o nosuch", "-ef; reboot"} {
		if _, err := List(Options{Mount: dir, Cgroup: "c", Args: bad}); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%q: %v, want InvalidArgument", bad, err)
		}
	}
	if _, err := List(Options{Mount: dir, Cgroup: "none"}); !errdefs.IsNotFound(err) {
		t.Errorf("%v, want NotFound", err)
	}
}

func TestParseStat(t *testing.T) {
	p, err := parseStat("7 (a) b) S 1 2 3 34816 0 0 0 0 0 0 100 50 0 0 20 0 4 0 200 2048 3 0")
	if err != nil {
		t.Fatal(err)
	}
	if p.comm != "a) b" || p.ppid != 1 || p.cpu != 1500*time.Millisecond || p.start != 2*time.Second || p.vsz != 2 || p.terminal() != "pts/0" || p.threads != 4 {
		t.Errorf("%+v", p)
	}
	for _, bad := range []string{"", "7 (x", "7 (x) S 1"} {
		if _, err := parseStat(bad); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}

func TestClock(t *testing.T) {
	for d, want := range map[time.Duration]string{5 * time.Second: "00:05", 2 * time.Hour: "02:00:00", 49 * time.Hour: "2-01:00:00"} {
		if got := clock(d); got != want {
			t.Errorf("%v: %s, want %s", d, got, want)
		}
	}
}
