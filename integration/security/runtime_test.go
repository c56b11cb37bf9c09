package security

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/internal/testenv"
)

// bundle is one container of the bare runtime, with a root file system that an
// attacker can write to while it starts.
type bundle struct {
	dir, rootfs, id string
	spec            specs.Spec
}

// newBundle unpacks the base layer and has the runtime write its specification.
func newBundle(t *testing.T) *bundle {
	t.Helper()
	testenv.NeedsRoot(t)
	b := &bundle{dir: t.TempDir(), id: unique("wh-sec-" + fmt.Sprint(os.Getpid()))}
	b.rootfs = filepath.Join(b.dir, "rootfs")
	files, err := base()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		name := filepath.Join(b.rootfs, f.name)
		err := os.MkdirAll(filepath.Dir(name), 0o755)
		switch {
		case strings.HasSuffix(f.name, "/"):
			err = os.MkdirAll(name, 0o755)
		case f.link != "":
			err = os.Symlink(f.link, name)
		case err == nil:
			err = os.WriteFile(name, []byte(f.body), 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range []string{"proc", "sys", "dev"} {
		if err := os.Mkdir(filepath.Join(b.rootfs, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(testenv.Bin(t, "wherry-runtime"), "spec")
	cmd.Dir = b.dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("spec: %v %s", err, out)
	}
	data, err := os.ReadFile(filepath.Join(b.dir, "config.json"))
	if err == nil {
		err = json.Unmarshal(data, &b.spec)
	}
	if err != nil {
		t.Fatal(err)
	}
	b.spec.Process.Terminal, b.spec.Root.Readonly = false, false
	b.spec.Linux.MaskedPaths, b.spec.Linux.ReadonlyPaths = masked, readonly
	return b
}

// run runs the bundle once and returns what it printed.
func (b *bundle) run(t *testing.T, args ...string) (out string, ok bool) {
	t.Helper()
	b.spec.Process.Args = args
	data, err := json.Marshal(&b.spec)
	if err == nil {
		err = os.WriteFile(filepath.Join(b.dir, "config.json"), data, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	program := testenv.Bin(t, "wherry-runtime")
	command := []string{program, "--root", filepath.Join(b.dir, "state"), "run", "--bundle", b.dir, b.id}
	if b.spec.Process.Terminal {
		// A terminal of its own for the runtime to pass on.
		command = []string{testenv.NeedsProgram(t, "script"), "-qefc", strings.Join(command, " "), "/dev/null"}
	}
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	raw, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		t.Fatalf("the runtime hangs: %s", raw)
	}
	_ = exec.Command(program, "--root", filepath.Join(b.dir, "state"), "delete", "--force", b.id).Run()
	return strings.ReplaceAll(string(raw), "\r", ""), err == nil
}

// exchange swaps pairs of names below a directory until the test is over.
func exchange(t *testing.T, dir string, pairs ...string) {
	t.Helper()
	var stop atomic.Bool
	done := make(chan struct{})
	go func() {
		defer close(done)
		for !stop.Load() {
			for i := 0; i < len(pairs); i += 2 {
				_ = unix.Renameat2(unix.AT_FDCWD, filepath.Join(dir, pairs[i]), unix.AT_FDCWD, filepath.Join(dir, pairs[i+1]), unix.RENAME_EXCHANGE)
			}
		}
	}()
	t.Cleanup(func() { stop.Store(true); <-done })
}

// link makes a symbolic link in the root file system.
func (b *bundle) link(t *testing.T, target, name string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(filepath.Join(b.rootfs, name)), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(target, filepath.Join(b.rootfs, name)); err != nil {
		t.Fatal(err)
	}
}

func (b *bundle) mkdir(t *testing.T, names ...string) {
	t.Helper()
	for _, n := range names {
		if err := os.MkdirAll(filepath.Join(b.rootfs, n), 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

// look is what a started container looks for: the kernel's file systems, where
// they should be and where an exchange may have put them.
var look = []string{"/probe", "masks", "/proc", "/sys", "/l", "/m", "/fake", "/other", "/more", "/dev", "/data", "/etc"}

// checkInside fails if one of them was found unprotected.
func checkInside(t *testing.T, what, out string) {
	t.Helper()
	for _, line := range lines(out, "open") {
		t.Errorf("%s: %s", what, line)
	}
}

// TestProcRace exchanges what the kernel's file systems are mounted on while
// containers start (CVE-2019-19921, CVE-2023-27561, CVE-2023-28642: a volume over
// /proc; CVE-2025-31133: masked paths; CVE-2025-52881: writes to /proc go
// elsewhere).
func TestProcRace(t *testing.T) {
	sysctl := map[string]string{"net.ipv4.ip_forward": "1"}
	for label, prepare := range map[string]func(t *testing.T, b *bundle, canary *canary){
		"CVE-2019-19921 /proc is exchanged": func(t *testing.T, b *bundle, c *canary) {
			b.link(t, c.dir, "l")
			exchange(t, b.rootfs, "proc", "l")
		},
		"CVE-2023-27561 /proc is a directory of links": func(t *testing.T, b *bundle, c *canary) {
			b.mkdir(t, "fake/self/attr", "fake/sys/net/ipv4", "fake/thread-self/attr")
			for _, n := range []string{"self/attr/exec", "self/oom_score_adj", "sys/net/ipv4/ip_forward", "thread-self/attr/exec", "thread-self/oom_score_adj", "kcore", "keys"} {
				b.link(t, c.dir+"/secret", "fake/"+n)
			}
			exchange(t, b.rootfs, "proc", "fake")
		},
		"CVE-2023-28642 /proc is a link inside": func(t *testing.T, b *bundle, _ *canary) {
			b.mkdir(t, "other")
			b.link(t, "other", "l")
			exchange(t, b.rootfs, "proc", "l")
		},
		"CVE-2025-31133 /dev/null is exchanged": func(t *testing.T, b *bundle, c *canary) {
			// /dev is the root's own, with a null device that comes and goes.
			b.spec.Mounts = withoutMounts(b.spec.Mounts, "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue")
			b.link(t, "/proc/sys/kernel/core_pattern", "dev/l")
			b.link(t, c.dir+"/null", "dev/m")
			if err := os.WriteFile(filepath.Join(b.rootfs, "dev/null2"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
			exchange(t, filepath.Join(b.rootfs, "dev"), "null", "l", "null2", "m", "l", "m")
		},
		"CVE-2025-52881 writes through links": func(t *testing.T, b *bundle, c *canary) {
			// A tmpfs over a part of /proc, and links in place of what is written.
			b.mkdir(t, "fake/net/ipv4", "more")
			b.link(t, c.dir+"/secret", "fake/net/ipv4/ip_forward")
			b.link(t, "/proc/sysrq-trigger", "more/ip_forward")
			b.spec.Mounts = append(b.spec.Mounts, specs.Mount{Destination: "/proc/sys", Type: "bind", Source: filepath.Join(b.rootfs, "fake"), Options: []string{"rbind", "rw"}})
			exchange(t, b.rootfs, "fake/net/ipv4", "more")
		},
		"/sys is exchanged": func(t *testing.T, b *bundle, c *canary) {
			b.link(t, c.dir, "l")
			b.mkdir(t, "other")
			b.link(t, "proc", "m")
			exchange(t, b.rootfs, "sys", "l", "other", "m", "sys", "m")
		},
		"/dev is exchanged": func(t *testing.T, b *bundle, c *canary) {
			b.link(t, c.dir, "l")
			b.link(t, "proc/sys/kernel", "m")
			exchange(t, b.rootfs, "dev", "l", "l", "m")
		},
		"/dev is the root's own": func(t *testing.T, b *bundle, c *canary) {
			b.spec.Mounts = withoutMounts(b.spec.Mounts, "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue")
			b.link(t, c.dir, "l")
			exchange(t, b.rootfs, "dev", "l")
		},
		"everything at once": func(t *testing.T, b *bundle, c *canary) {
			b.link(t, c.dir, "l")
			exchange(t, b.rootfs, "proc", "l", "sys", "l", "dev", "l", "data", "l", "etc", "l")
		},
	} {
		t.Run(label, func(t *testing.T) {
			canary := newCanary(t)
			b := newBundle(t)
			b.spec.Linux.Sysctl = sysctl
			adj := 500
			b.spec.Process.OOMScoreAdj = &adj
			b.spec.Process.Cwd = "/data/new/dir"
			b.spec.Linux.Devices = append(b.spec.Linux.Devices, specs.LinuxDevice{Path: "/dev/more/zero", Type: "c", Major: 1, Minor: 5})
			b.spec.Mounts = append(b.spec.Mounts, specs.Mount{Destination: "/etc/made/hosts", Type: "bind", Source: "/etc/hosts", Options: []string{"bind"}})
			prepare(t, b, canary)
			started := 0
			var last string
			for range 2 * rounds {
				out, ok := b.run(t, look...)
				canary.notIn(t, label, out)
				last = out
				if ok && strings.Contains(out, "found ") {
					started++
					checkInside(t, label, out)
				}
			}
			t.Logf("%d of %d started; the last: %.300s", started, 2*rounds, last)
		})
	}
}

func withoutMounts(mounts []specs.Mount, destinations ...string) []specs.Mount {
	var out []specs.Mount
next:
	for _, m := range mounts {
		for _, d := range destinations {
			if m.Destination == d {
				continue next
			}
		}
		out = append(out, m)
	}
	return out
}

// TestConsoleRace exchanges /dev/console, which the terminal is laid over, with
// links to the host and to files of /proc (CVE-2025-52565).
func TestConsoleRace(t *testing.T) {
	canary := newCanary(t)
	b := newBundle(t)
	b.spec.Process.Terminal = true
	// /dev belongs to the root; only the pseudo-terminals are mounted.
	b.spec.Mounts = withoutMounts(b.spec.Mounts, "/dev", "/dev/shm", "/dev/mqueue")
	b.mkdir(t, "dev/pts")
	b.link(t, canary.dir+"/console", "dev/l")
	b.link(t, "/proc/sys/kernel/core_pattern", "dev/m")
	b.link(t, canary.dir+"/made", "dev/n")
	b.link(t, "/proc/sysrq-trigger", "dev/o")
	if err := os.WriteFile(filepath.Join(b.rootfs, "dev/console"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	exchange(t, filepath.Join(b.rootfs, "dev"), "console", "l", "l", "m", "m", "n", "n", "o")
	started := 0
	var last string
	for range 2 * rounds {
		out, ok := b.run(t, look...)
		canary.notIn(t, "console", out)
		last = out
		if ok && strings.Contains(out, "found ") {
			started++
			checkInside(t, "console", out)
		}
	}
	t.Logf("%d of %d started; the last: %.300s", started, 2*rounds, last)
	if started == 0 {
		t.Error("none started: the test shows nothing")
	}
}

// TestRuntimeBinaryOfBundle is TestRuntimeBinary for the bare runtime: a process
// in the container lies in wait for programs that are none of the image's.
func TestRuntimeBinaryOfBundle(t *testing.T) {
	b := newBundle(t)
	if err := os.WriteFile(filepath.Join(b.rootfs, "evil"), []byte("#!/proc/self/exe\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	program := testenv.Bin(t, "wherry-runtime")
	before := sum(t, program)
	state := filepath.Join(b.dir, "state")
	done := make(chan string)
	go func() {
		out, _ := b.run(t, "/probe", "exes", "2")
		done <- out
	}()
	out, attacks := "", 0
	for out == "" {
		select {
		case out = <-done:
		default:
			if exec.Command(program, "--root", state, "exec", b.id, "/evil").Run() == nil {
				attacks++
			}
		}
	}
	t.Log(attacks, out)
	found := lines(out, "program")
	for _, line := range found {
		contains(t, "unwritten", line, "written 0 ")
		lacks(t, "unwritten", line, "<nil>")
		lacks(t, "a path of the host", line, program)
	}
	if len(found) == 0 {
		t.Error("the attacker never saw the program: the test shows nothing")
	}
	if sum(t, program) != before {
		t.Error("wherry-runtime was changed on disk")
	}
}

// TestFakeProc is the same without a race: what a bundle mounts at /proc is no
// procfs, or another one lies over it. Labels, scores and sysctls are written to
// the kernel's own files or not at all.
func TestFakeProc(t *testing.T) {
	for label, mounts := range map[string]func(b *bundle) []specs.Mount{
		"bind instead of proc": func(b *bundle) []specs.Mount {
			return append(withoutMounts(b.spec.Mounts, "/proc"), specs.Mount{Destination: "/proc", Type: "bind", Source: b.rootfs + "/fake", Options: []string{"rbind"}})
		},
		"bind over proc": func(b *bundle) []specs.Mount {
			return append(b.spec.Mounts, specs.Mount{Destination: "/proc", Type: "bind", Source: b.rootfs + "/fake", Options: []string{"rbind"}})
		},
		"tmpfs over proc": func(b *bundle) []specs.Mount {
			return append(b.spec.Mounts, specs.Mount{Destination: "/proc", Type: "tmpfs", Source: "tmpfs"})
		},
		"tmpfs over its sysctls": func(b *bundle) []specs.Mount {
			return append(b.spec.Mounts, specs.Mount{Destination: "/proc/sys", Type: "tmpfs", Source: "tmpfs", Options: []string{"tmpcopyup"}})
		},
	} {
		t.Run(label, func(t *testing.T) {
			canary := newCanary(t)
			b := newBundle(t)
			for _, n := range []string{"self/attr/exec", "self/attr/apparmor/exec", "self/oom_score_adj", "sys/net/ipv4/ip_forward", "thread-self/attr/exec", "thread-self/oom_score_adj", "self/fd/3", "kcore", "keys", "sysrq-trigger"} {
				b.link(t, canary.dir+"/secret", "fake/"+n)
			}
			b.spec.Linux.Sysctl = map[string]string{"net.ipv4.ip_forward": "1"}
			adj := 500
			b.spec.Process.OOMScoreAdj = &adj
			b.spec.Mounts = mounts(b)
			out, ok := b.run(t, "/probe", "stat", "/proc")
			canary.notIn(t, label, out)
			t.Logf("started: %v, %.300s", ok, out)
		})
	}
}
