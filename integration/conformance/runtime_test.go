package conformance

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/wherry-engine/wherry/internal/testenv"
)

// suite is the module that pins the validation programs.
const suite = "runtime-tools"

const (
	// patience bounds one program; the slowest waits 13 s for something that
	// no runtime does.
	patience = 2 * time.Minute
	// atOnce programs run at a time: some do nothing but wait.
	atOnce = 6
	// attempts that a program has: some race with the containers they start.
	attempts = 3
	// believable is the number of assertions that a working runc passes at
	// least; here it passes about 3,000.
	believable = 2000
)

// TestRuntimeTools runs the validation programs of opencontainers/runtime-tools
// with wherry-runtime and with runc. Each assertion that runc passes on this
// machine, wherry-runtime has to pass. (Which ones pass depends on the machine:
// its controllers, its capabilities, and mistakes of the programs. So the field's
// reference is asked on the spot.)
func TestRuntimeTools(t *testing.T) {
	testenv.NeedsRoot(t)
	dir := t.TempDir()
	ours := newRuntime(t, dir, "wherry-runtime", testenv.Bin(t, "wherry-runtime"))
	reference := newRuntime(t, dir, "runc", testenv.NeedsProgram(t, "runc"))
	programs := buildSuite(t, dir)
	var (
		all   sync.WaitGroup
		slots = make(chan struct{}, atOnce)
		// The programs about limits use the same cgroups.
		limits sync.Mutex
		sum    = map[*runtime]int{}
		mu     sync.Mutex
	)
	for _, p := range programs {
		all.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			if strings.HasPrefix(p, "linux_cgroups_") || strings.HasPrefix(p, "delete_") {
				limits.Lock()
				defer limits.Unlock()
			}
			want := reference.validate(t, dir, p)
			got := ours.validate(t, dir, p)
			for range attempts - 1 {
				if len(worse(got, want)) > 0 {
					got = ours.validate(t, dir, p)
				}
			}
			if list := worse(got, want); len(list) > 0 {
				t.Errorf("%s: runc passes, wherry-runtime does not: %q\n%s", p, list, got.tail())
			}
			logDifferences(t, p, got, want)
			mu.Lock()
			defer mu.Unlock()
			sum[ours] += got.total()
			sum[reference] += want.total()
		})
	}
	all.Wait()
	t.Logf("%d programs; assertions passed: wherry-runtime %d, runc %d", len(programs), sum[ours], sum[reference])
	if sum[reference] < believable {
		t.Errorf("runc passes %d assertions only: something is wrong with the comparison", sum[reference])
	}
}

// worse lists what the reference passes and we do not. Where the reference fails
// as a whole nothing is asked of us.
func worse(got, want *outcome) (list []string) {
	if want.err != nil {
		return nil
	}
	if got.err != nil {
		list = append(list, got.err.Error())
	}
	for _, a := range slices.Sorted(maps.Keys(want.passed)) {
		if got.passed[a] < want.passed[a] {
			list = append(list, a)
		}
	}
	return list
}

// logDifferences tells what neither passes, or we alone.
func logDifferences(t *testing.T, program string, got, want *outcome) {
	for _, a := range slices.Sorted(maps.Keys(got.failed)) {
		if want.passed[a] == 0 {
			t.Logf("neither passes %s: %q", program, a)
		}
	}
	for _, a := range slices.Sorted(maps.Keys(got.passed)) {
		if want.failed[a] > 0 && got.failed[a] == 0 {
			t.Logf("only wherry-runtime passes %s: %q", program, a)
		}
	}
	if got.err != nil {
		t.Logf("%s ends with %v (runc: %v)", program, got.err, want.err)
	}
}

// buildSuite builds the programs into dir/bin and puts beside it what they
// expect in their working directory. It returns their names.
func buildSuite(t *testing.T, dir string) []string {
	const module = "github.com/opencontainers/runtime-tools"
	bin := filepath.Join(dir, "bin")
	goTool(t, "build", "-ldflags", "-s -w", "-o", bin+"/", module+"/validation/...", module+"/cmd/runtimetest")
	source := strings.TrimSpace(goTool(t, "list", "-m", "-f", "{{.Dir}}", module))
	roots, err := filepath.Glob(filepath.Join(source, "rootfs-*.tar.gz"))
	if err != nil || len(roots) == 0 {
		t.Fatalf("no root file systems in %s: %v", source, err)
	}
	for _, r := range roots {
		copyFile(t, r, filepath.Join(dir, filepath.Base(r)))
	}
	if err := os.Rename(filepath.Join(bin, "runtimetest"), filepath.Join(dir, "runtimetest")); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(bin)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func goTool(t *testing.T, args ...string) string {
	cmd := exec.Command("go", args...)
	cmd.Dir = suite
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			err = fmt.Errorf("%w\n%s", err, exit.Stderr)
		}
		t.Fatalf("go %s: %v", args[0], err)
	}
	return string(out)
}

func copyFile(t *testing.T, from, to string) {
	data, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, data, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// runtime is one under test, with state of its own.
type runtime struct{ name, wrapper string }

// newRuntime writes the wrapper that programs, which pass no options, call. It
// is slow to kill: the program killsig sends its signals before the shell in the
// container can have set its traps, if the runtime is quick.
func newRuntime(t *testing.T, dir, name, path string) *runtime {
	r := &runtime{name, filepath.Join(dir, "with-"+name)}
	state := filepath.Join(dir, "state-"+name)
	script := fmt.Sprintf("#!/bin/sh\n[ \"$1\" != kill ] || sleep 0.3\nexec %s --root %s \"$@\"\n", path, state)
	if err := errors.Join(os.Mkdir(state, 0o700), os.WriteFile(r.wrapper, []byte(script), 0o755)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.removeAll)
	return r
}

// removeAll removes the containers that programs leave behind.
func (r *runtime) removeAll() {
	out, _ := exec.Command(r.wrapper, "list", "-q").Output()
	for id := range strings.FieldsSeq(string(out)) {
		_ = exec.Command(r.wrapper, "delete", "-f", id).Run()
	}
}

// validate runs one program. It has a mount namespace of its own, in which ends
// what a container without one mounts.
func (r *runtime) validate(t *testing.T, dir, program string) *outcome {
	tmp, err := os.MkdirTemp(dir, "")
	if err != nil {
		t.Error(err)
		return parse(nil, err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(dir, "bin", program))
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "RUNTIME="+r.wrapper, "TMPDIR="+tmp)
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.WaitDelay = time.Second // a container that was left behind holds the pipe
	err = cmd.Run()
	if errors.Is(err, exec.ErrWaitDelay) {
		err = nil
	}
	return parse(out.Bytes(), err)
}

// outcome counts a program's assertions by name.
type outcome struct {
	passed, failed map[string]int
	err            error // of the program itself
	out            []byte
}

var (
	// A line of the Test Anything Protocol.
	assertion = regexp.MustCompile(`^(not )?ok( \d+)?( - )?(.*)$`)
	// What differs from run to run: identifiers and numbers of processes.
	variable = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f-]+|[0-9]{6,}`)
)

func parse(out []byte, err error) *outcome {
	o := &outcome{passed: map[string]int{}, failed: map[string]int{}, err: err, out: out}
	for line := range strings.Lines(string(out)) {
		m := assertion.FindStringSubmatch(strings.TrimSpace(line))
		if m == nil || strings.Contains(strings.ToUpper(m[4]), "# SKIP") {
			continue
		}
		name := variable.ReplaceAllString(m[4], "…")
		if m[1] == "" {
			o.passed[name]++
		} else {
			o.failed[name]++
		}
	}
	return o
}

func (o *outcome) total() (n int) {
	for _, k := range o.passed {
		n += k
	}
	return n
}

// tail is the end of what the program said.
func (o *outcome) tail() []byte {
	const enough = 1500
	if len(o.out) > enough {
		return o.out[len(o.out)-enough:]
	}
	return o.out
}
