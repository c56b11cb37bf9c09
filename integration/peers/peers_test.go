package peers

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/internal/testenv"
)

func TestMain(m *testing.M) {
	code := m.Run()
	testenv.CloseRegistries()
	os.Exit(code)
}

// engine is another engine that runs wherry-runtime.
type engine struct {
	cli   testenv.CLI
	image string
	// run is how the engine's command for a new container begins.
	run []string
}

// workspace is a directory for an engine and the name of its cgroups. At the
// end it looks for what containers have left: mounts below the directory and
// groups below the cgroup.
func workspace(t *testing.T) (dir, cgroup string) {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "wp-") // short, for unix sockets end at 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	cgroup = "/" + filepath.Base(dir)
	t.Cleanup(func() {
		// A network namespace or a storage root may be a mount of the engine's own.
		for _, m := range mountsBelow(dir) {
			if !strings.HasSuffix(m, "/overlay") && !strings.HasSuffix(m, "/netns") {
				t.Errorf("a mount is left: %s", m)
			}
			_ = unix.Unmount(m, unix.MNT_DETACH)
		}
		removeCgroups(t, cgroup)
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir, cgroup
}

// mountsBelow lists mount points, the innermost first.
func mountsBelow(dir string) (points []string) {
	data, _ := os.ReadFile("/proc/self/mountinfo")
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) > 4 && strings.HasPrefix(f[4], dir+"/") {
			points = append([]string{f[4]}, points...)
		}
	}
	return points
}

// removeCgroups removes an engine's parent of its containers' cgroups, in
// which nothing may be left but what the engine keeps for itself.
func removeCgroups(t *testing.T, name string) {
	hierarchies, _ := filepath.Glob("/sys/fs/cgroup/*")
	for _, h := range append(hierarchies, "/sys/fs/cgroup") {
		_ = os.Remove(filepath.Join(h, name, "conmon"))
		if err := os.Remove(filepath.Join(h, name)); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTDIR) {
			t.Errorf("a cgroup is left: %v", err)
		}
	}
}

// runArgs is a command for a new container of the image.
func (e *engine) runArgs(options []string, command ...string) []string {
	args := append(append([]string{}, e.run...), options...)
	return append(append(args, e.image), command...)
}

// suite is what containers must do under every engine whose command line is
// like docker's.
func suite(t *testing.T, e *engine) {
	t.Run("run", e.testRun)
	t.Run("restrictions", e.testRestrictions)
	t.Run("terminal", e.testTerminal)
	t.Run("limits", e.testLimits)
	t.Run("lifecycle", e.testLifecycle)
}

func (e *engine) testRun(t *testing.T) {
	rm := []string{"--rm"}
	if got := e.cli.OK(t, e.runArgs(rm, "echo", "hello")...); got != "hello" {
		t.Errorf("output %q", got)
	}
	for _, c := range []struct {
		code    int
		command []string
	}{{7, []string{"sh", "-c", "exit 7"}}, {127, []string{"nosuch"}}, {126, []string{"/etc"}}} {
		if r := e.cli.Try(t, e.runArgs(rm, c.command...)...); r.Code != c.code {
			t.Errorf("%q: exit code %d, want %d\n%s", c.command, r.Code, c.code, r.All())
		}
	}
	if got := e.cli.OKInput(t, strings.NewReader("through\n"), e.runArgs([]string{"--rm", "-i"}, "cat")...); got != "through" {
		t.Errorf("input came out as %q", got)
	}
}

func (e *engine) testRestrictions(t *testing.T) {
	for _, c := range []struct{ name, options, script, want string }{
		{"user", "--user=app", "id -un; id -u", "app\n1000"},
		{"no capabilities", "--cap-drop=all", "grep CapEff /proc/self/status | cut -f2", "0000000000000000"},
		{"read-only", "--read-only --tmpfs=/scratch", "touch /x 2>/dev/null || touch /scratch/x && echo refused", "refused"},
		{"seccomp", "", "grep Seccomp: /proc/self/status | cut -f2", "2"},
		{"privileged", "--privileged", "grep Seccomp: /proc/self/status | cut -f2", "0"},
		{"masked", "", "cat /proc/kcore | wc -c", "0"},
		{"own processes", "", "echo $$", "1"},
		{"hostname", "--hostname=harbour", "hostname", "harbour"},
	} {
		t.Run(c.name, func(t *testing.T) {
			options := append([]string{"--rm"}, strings.Fields(c.options)...)
			if got := e.cli.OK(t, e.runArgs(options, "sh", "-c", c.script)...); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func (e *engine) testTerminal(t *testing.T) {
	const script = `tty; trap "exit 9" INT; while :; do stty size; sleep 0.05; done`
	term := e.cli.Terminal(t, e.runArgs([]string{"--rm", "-it"}, "sh", "-c", script)...)
	term.Expect("/dev/pts/0")
	term.Expect("24 80")
	testenv.Eventually(t, "the new size", func() bool {
		term.Resize(100, 33) // again: the command line may not have listened yet
		term.Resize(101, 33)
		return strings.Contains(term.Screen(), "33 101")
	})
	term.Type("\x03")
	if code := term.Exit(); code != 9 {
		t.Errorf("exit code %d, want 9", code)
	}
}

// cgroupFile prints a control file of the container's memory or process limit,
// in whichever version of cgroups there is.
func cgroupFile(v1, v2 string) []string {
	return []string{"sh", "-c", "cat /sys/fs/cgroup/" + v1 + " 2>/dev/null || cat /sys/fs/cgroup/" + v2}
}

func (e *engine) testLimits(t *testing.T) {
	if got := e.cli.OK(t, e.runArgs([]string{"--rm", "--memory=48m"}, cgroupFile("memory/memory.limit_in_bytes", "memory.max")...)...); got != "50331648" {
		t.Errorf("memory limit %q", got)
	}
	if got := e.cli.OK(t, e.runArgs([]string{"--rm", "--pids-limit=33"}, cgroupFile("pids/pids.max", "pids.max")...)...); got != "33" {
		t.Errorf("limit of processes %q", got)
	}
	if r := e.cli.Try(t, e.runArgs([]string{"--rm", "--memory=16m", "--memory-swap=16m"}, "tail", "/dev/zero")...); r.Code != 137 {
		t.Errorf("out of memory: exit code %d, want 137\n%s", r.Code, r.All())
	}
	e.cli.Fails(t, 2, "can't fork", e.runArgs([]string{"--rm", "--pids-limit=6"}, "sh", "-c", "for i in 1 2 3 4 5 6 7 8; do sleep 9 & done")...)
}

func (e *engine) testLifecycle(t *testing.T) {
	const script = `trap "exit 3" TERM; echo up; while :; do sleep 0.05; done`
	const name = "subject"
	e.cli.OK(t, e.runArgs([]string{"-d", "--name", name, "--memory=64m"}, "sh", "-c", script)...)
	t.Cleanup(func() { e.cli.Try(t, "rm", "-f", name) })
	state := func(want string) {
		t.Helper()
		testenv.Eventually(t, want, func() bool {
			return e.cli.OK(t, "inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", name) == want
		})
	}
	up := func(times int) {
		t.Helper()
		testenv.Eventually(t, "the container to say that it is up", func() bool {
			return strings.Count(e.cli.OK(t, "logs", name), "up") == times
		})
	}
	up(1)
	e.cli.Fails(t, 4, "inside", "exec", name, "sh", "-c", "echo inside; exit 4")
	if got := e.cli.OKInput(t, strings.NewReader("in\n"), "exec", "-i", name, "cat"); got != "in" {
		t.Errorf("exec's input came out as %q", got)
	}
	if got := e.cli.OK(t, "exec", "--user", "app", name, "id", "-u"); got != "1000" {
		t.Errorf("exec as another user: %q", got)
	}
	term := e.cli.Terminal(t, "exec", "-it", name, "sh", "-c", "tty; exit 5")
	term.Expect("/dev/pts/")
	if code := term.Exit(); code != 5 {
		t.Errorf("exec with a terminal: exit code %d, want 5", code)
	}
	if got := e.cli.OK(t, "top", name); !strings.Contains(got, "sleep 0.05") {
		t.Errorf("top: %s", got)
	}
	e.cli.OK(t, "update", "--memory=32m", "--memory-swap=32m", name)
	if got := e.cli.OK(t, append([]string{"exec", name}, cgroupFile("memory/memory.limit_in_bytes", "memory.max")...)...); got != "33554432" {
		t.Errorf("updated memory limit %q", got)
	}
	e.cli.OK(t, "pause", name)
	state("paused 0")
	if r := e.cli.Try(t, "exec", name, "true"); r.Code == 0 {
		t.Error("exec in a paused container succeeds")
	}
	e.cli.OK(t, "unpause", name)
	state("running 0")
	e.cli.OK(t, "stop", "-t", "60", name)
	state("exited 3")
	e.cli.OK(t, "start", name)
	up(2)
	e.cli.OK(t, "kill", "-s", "KILL", name)
	state("exited 137")
	e.cli.OK(t, "start", name)
	up(3)
	e.cli.OK(t, "rm", "-f", name)
	if r := e.cli.Try(t, "inspect", name); r.Code == 0 {
		t.Error("a removed container is still there")
	}
}
