package command

import (
	"bufio"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/wherry-engine/wherry/ocirun/cgroup/stat"
)

func TestEventsStats(t *testing.T) {
	b := newBox(t, "sleep", "100")
	b.want(0, "", "run", "-d", "-b", b.bundle, "c1")
	t.Cleanup(func() { b.run("delete", "--force", "c1") })
	out, code := b.run("events", "--stats", "c1")
	var e struct {
		Type, ID string
		Data     stat.Stats
	}
	if err := json.Unmarshal([]byte(out), &e); err != nil || code != 0 {
		t.Fatal(out, code, err)
	}
	if e.Type != "stats" || e.ID != "c1" || e.Data.CPU.Usage.Total == 0 || e.Data.Memory.Usage.Usage == 0 || e.Data.Memory.Usage.Limit == 0 || e.Data.Pids.Current == 0 {
		t.Errorf("%s", out)
	}
	b.want(1, "positive", "events", "--interval", "0s", "c1")
	b.want(0, "", "kill", "c1", "KILL")
	b.waitStopped()
	b.want(1, "not running", "events", "--stats", "c1")
}

// TestEventsLikeRunc wants every name of runc's output in ours.
func TestEventsLikeRunc(t *testing.T) {
	runc, err := exec.LookPath("runc")
	if err != nil {
		t.Skip("needs runc:", err)
	}
	// A file in memory, for a cache: runc and we leave it out where there is none.
	b := newBox(t, "sh", "-c", "head -c 1000000 /dev/zero >/dev/shm/x; sleep 100")
	b.want(0, "", "run", "-d", "-b", b.bundle, "c1")
	t.Cleanup(func() { b.run("delete", "--force", "c1") })
	ours, _ := b.run("events", "--stats", "c1")
	for deadline := time.Now().Add(20 * time.Second); !slices.Contains(keys(t, ours, true), ".data.memory.cache"); ours, _ = b.run("events", "--stats", "c1") {
		if time.Now().After(deadline) {
			t.Fatalf("no cache in %s", ours)
		}
		time.Sleep(20 * time.Millisecond)
	}

	b.spec.Linux.CgroupsPath += "-runc"
	b.write()
	id, root := filepath.Base(b.spec.Linux.CgroupsPath), filepath.Join(b.bundle, "runc")
	of := func(args ...string) string {
		out, err := exec.Command(runc, append([]string{"--root", root}, args...)...).Output()
		if err != nil {
			t.Skipf("runc %v: %v", args, err)
		}
		return string(out)
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	run := exec.Command(runc, "--root", root, "run", "-d", "-b", b.bundle, id)
	run.Stdin, run.Stdout, run.Stderr = null, null, null
	if err := run.Run(); err != nil {
		t.Skip("runc does not run here:", err)
	}
	t.Cleanup(func() { _ = exec.Command(runc, "--root", root, "delete", "-f", id).Run() })
	theirs := of("events", "--stats", id)
	have := keys(t, ours, true)
	for _, k := range keys(t, theirs, false) {
		// Counters of the kernel's own naming come and go with it, I/O and what may
		// be left out with use.
		if !slices.Contains(have, k) && !strings.Contains(k, ".raw.") && !strings.Contains(k, ".blkio.") && !strings.Contains(k, ".percpu_") {
			t.Errorf("%s is missing of %q", k, have)
		}
	}
}

// keys of a JSON text, with dots; those of a value of zero, which may be left
// out, if zero is set.
func keys(t *testing.T, text string, zero bool) []string {
	t.Helper()
	var v any
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	var out []string
	var walk func(prefix string, v any)
	walk = func(prefix string, v any) {
		m, ok := v.(map[string]any)
		if !ok {
			if n, isNumber := v.(float64); (!isNumber || n != 0 || zero) && v != nil {
				out = append(out, prefix)
			}
			return
		}
		for k, v := range m {
			walk(prefix+"."+k, v)
		}
	}
	walk("", v)
	slices.Sort(out)
	return out
}

func TestEventsOOM(t *testing.T) {
	b := newBox(t, "sh", "-c", "read x; (x=a; while :; do x=$x$x; done); read y")
	limit := int64(8 << 20)
	b.spec.Linux.Resources.Memory = &specs.LinuxMemory{Limit: &limit, Swap: &limit}
	b.write()
	in, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	c := b.cmd("run", "-d", "-b", b.bundle, "c1")
	c.Stdin = in
	if err := c.Run(); err != nil {
		log, _ := os.ReadFile(filepath.Join(b.bundle, "log"))
		t.Fatalf("%v: %s", err, log)
	}
	in.Close()
	t.Cleanup(func() { b.run("delete", "--force", "c1") })
	watch := b.cmd("events", "--interval", "10ms", "c1")
	out, err := watch.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := watch.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	if !lines.Scan() || !strings.Contains(lines.Text(), `"type":"stats"`) {
		t.Error("no statistics:", lines.Text())
	}
	if _, err := w.WriteString("go\n"); err != nil {
		t.Fatal(err)
	}
	oom := false
	for !oom && lines.Scan() {
		oom = strings.Contains(lines.Text(), `"type":"oom"`)
	}
	if !oom {
		t.Error("no word of the lack of memory")
	}
	b.want(0, "", "kill", "c1", "KILL")
	for lines.Scan() { //nolint:revive // until the container is gone
	}
	if err := watch.Wait(); err != nil {
		log, _ := os.ReadFile(filepath.Join(b.bundle, "log"))
		t.Errorf("%v: %s", err, log)
	}
}
