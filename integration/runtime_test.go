package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/wherry-engine/wherry/internal/testenv"
)

// withoutHybrid runs crun where the unified hierarchy beside those of version 1
// is not mounted: crun refuses such a layout.
const withoutHybrid = `#!/bin/sh
exec unshare --mount sh -c 'umount /sys/fs/cgroup/unified && exec "$@"' sh %s "$@"
`

// otherRuntimes are Debian's, by name, with what calls them.
func otherRuntimes(t *testing.T) map[string]string {
	t.Helper()
	runc, crun := testenv.NeedsProgram(t, "runc"), testenv.NeedsProgram(t, "crun")
	if _, err := os.Stat("/sys/fs/cgroup/unified/cgroup.procs"); err == nil {
		script := filepath.Join(t.TempDir(), "crun")
		if err := os.WriteFile(script, fmt.Appendf(nil, withoutHybrid, crun), 0o755); err != nil {
			t.Fatal(err)
		}
		crun = script
	}
	return map[string]string{"debian-runc": runc, "crun": crun}
}

// TestOtherRuntimes runs containers with Debian's runc and crun: whatever can
// be done with a container of ours can be done with one of theirs.
func TestOtherRuntimes(t *testing.T) {
	t.Parallel()
	testenv.NeedsRoot(t)
	runtimes := map[string]any{}
	paths := otherRuntimes(t)
	for name, path := range paths {
		runtimes[name] = map[string]any{"path": path}
	}
	d := testenv.Start(t, testenv.Options{Config: map[string]any{"runtimes": runtimes}})
	image := d.Image(t, "busybox")
	for name := range paths {
		t.Run(name, func(t *testing.T) {
			r := &otherRuntime{d: d, cli: d.Docker(t), name: name, image: image}
			t.Run("run", r.testRun)
			t.Run("terminal", r.testTerminal)
			t.Run("life", r.testLife)
			t.Run("policies", r.testPolicies)
			t.Run("survival", r.testSurvival)
		})
	}
	testenv.Eventually(t, "nothing to be left in the exec root", func() bool {
		left, err := os.ReadDir(filepath.Join(d.ExecRoot, "foreign"))
		return err == nil && len(left) == 0
	})
}

type otherRuntime struct {
	d           *testenv.Daemon
	cli         testenv.CLI
	name, image string
}

// args is a command for a new container.
func (r *otherRuntime) args(options string, command ...string) []string {
	args := append([]string{"run", "--runtime", r.name}, strings.Fields(options)...)
	return append(append(args, r.image), command...)
}

func (r *otherRuntime) testRun(t *testing.T) {
	cli := r.cli
	equal(t, "output", cli.OK(t, r.args("--rm", "echo", "hello")...), "hello")
	cli.Fails(t, 7, "", r.args("--rm", "sh", "-c", "exit 7")...)
	cli.Fails(t, 127, "executable file not found", r.args("--rm", "nosuch")...)
	cli.Fails(t, 127, "no such file", r.args("--rm --init", "nosuch")...)
	cli.Fails(t, 126, "permission denied", r.args("--rm", "/etc")...)
	cli.Fails(t, 125, "no matching entries in passwd file", r.args("--rm --user nobodyknows", "true")...)
	cli.Fails(t, 137, "", r.args("--rm --memory 16m --memory-swap 16m", "tail", "/dev/zero")...)
	equal(t, "input", cli.OKInput(t, strings.NewReader("in\n"), r.args("--rm -i", "cat")...), "in")
	equal(t, "user", cli.OK(t, r.args("--rm --user app:staff --group-add 77", "sh", "-c", "id; echo $HOME")...),
		"uid=1000(app) gid=50(staff) groups=50(staff),77\n/home/app")
	contains(t, "init", cli.OK(t, r.args("--rm --init", "ps")...), "1 root     wherry-init -- ps")
	equal(t, "read-only", cli.OK(t, r.args("--rm --read-only --tmpfs /scratch", "sh", "-c", "touch /x 2>/dev/null || touch /scratch/x && echo refused")...), "refused")
	equal(t, "working directory", cli.OK(t, r.args("--rm -w /made/for/it", "pwd")...), "/made/for/it")
	equal(t, "names", cli.OK(t, r.args("--rm --hostname harbour", "sh", "-c", "hostname; grep -c harbour /etc/hosts")...), "harbour\n1")
	equal(t, "filter", cli.OK(t, r.args("--rm", "sh", "-c", "grep Seccomp: /proc/self/status | cut -f2")...), "2")
	cli.OK(t, r.args("--rm --privileged", "true")...)
	server := detached(t, cli, "--runtime", r.name, r.image, "sleep", "600")
	equal(t, "shared network", cli.OK(t, r.args("--rm --network container:"+server, "hostname", "-i")...), cli.OK(t, "exec", server, "hostname", "-i"))
	contains(t, "shared processes", cli.OK(t, r.args("--rm --pid container:"+server, "ps")...), "sleep 600")
}

func (r *otherRuntime) testTerminal(t *testing.T) {
	term := r.cli.Terminal(t, r.args("--rm -it", "sh", "-c", `tty; trap "exit 9" INT; while :; do stty size; sleep 0.05; done`)...)
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

const obedient = `trap "exit 3" TERM; echo up; while :; do sleep 0.05; done`

// up starts a container that says when it is up.
func (r *otherRuntime) up(t *testing.T, options string) string {
	t.Helper()
	id := r.cli.OK(t, r.args("-d "+options, "sh", "-c", obedient)...)
	t.Cleanup(func() { r.cli.Try(t, "rm", "-fv", id) })
	r.said(t, id, 1)
	return id
}

// said waits until the container has said that it is up in that many lives.
func (r *otherRuntime) said(t *testing.T, id string, lives int) {
	t.Helper()
	testenv.Eventually(t, fmt.Sprintf("the container to be up for the %d. time", lives), func() bool {
		return strings.Count(r.cli.OK(t, "logs", id), "up") == lives
	})
}

func (r *otherRuntime) inspect(t *testing.T, id, format string) string {
	t.Helper()
	return r.cli.OK(t, "inspect", "-f", format, id)
}

func (r *otherRuntime) testLife(t *testing.T) {
	cli := r.cli
	id := r.up(t, "--memory 64m")
	state := filepath.Join(r.d.ExecRoot, "foreign", id, "state", id)
	if _, err := os.Stat(state); err != nil {
		t.Errorf("%s does not have the container: %v", r.name, err)
	}
	equal(t, "runtime", r.inspect(t, id, "{{.HostConfig.Runtime}}"), r.name)
	for code := range 20 { // each ends as soon as it has begun
		if got := cli.Try(t, "exec", id, "sh", "-c", fmt.Sprint("exit ", code)).Code; got != code {
			t.Errorf("exec: exit code %d, want %d", got, code)
		}
	}
	equal(t, "exec's input and user", cli.OKInput(t, strings.NewReader("in\n"), "exec", "-i", "-u", "app", id, "sh", "-c", "cat; id -u; echo $HOME"), "in\n1000\n/home/app")
	cli.Fails(t, 127, "executable file not found", "exec", id, "nosuch")
	// crun gives an exec's terminal no size; ours follows at once, but not before.
	term := cli.Terminal(t, "exec", "-it", id, "sh", "-c", `tty; trap "exit 5" INT; while :; do stty size; sleep 0.05; done`)
	term.Expect("/dev/pts/")
	term.Expect("24 80")
	term.Type("\x03")
	if code := term.Exit(); code != 5 {
		t.Errorf("exec on a terminal: exit code %d, want 5", code)
	}
	contains(t, "top", cli.OK(t, "top", id), "sleep 0.05")
	contains(t, "stats", cli.OK(t, "stats", "--no-stream", "--format", "{{.MemUsage}}", id), "64MiB")
	cli.OK(t, "update", "--memory", "32m", "--memory-swap", "32m", id)
	contains(t, "updated stats", cli.OK(t, "stats", "--no-stream", "--format", "{{.MemUsage}}", id), "32MiB")
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("copied\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cli.OK(t, "cp", file, id+":/file")
	equal(t, "copied in", cli.OK(t, "exec", id, "sh", "-c", "cat /file; echo more >>/file"), "copied")
	cli.OK(t, "cp", id+":/file", file)
	if data, err := os.ReadFile(file); err != nil || string(data) != "copied\nmore\n" {
		t.Errorf("copied out: %q, %v", data, err)
	}
	cli.OK(t, "pause", id)
	equal(t, "paused", r.inspect(t, id, "{{.State.Status}}"), "paused")
	cli.Fails(t, 1, "paused", "exec", id, "true")
	cli.OK(t, "unpause", id)
	cli.OK(t, "stop", "-t", "60", id)
	equal(t, "stopped", r.inspect(t, id, "{{.State.Status}} {{.State.ExitCode}}"), "exited 3")
	cli.OK(t, "start", id)
	r.said(t, id, 2)
	cli.OK(t, "pause", id)
	cli.OK(t, "kill", id) // a frozen process does not die
	testenv.Eventually(t, "its death", func() bool { return r.inspect(t, id, "{{.State.Status}} {{.State.ExitCode}}") == "exited 137" })
	cli.OK(t, "start", id)
	r.said(t, id, 3)
	cli.OK(t, "rm", "-f", id)
	testenv.Eventually(t, "nothing to be left", func() bool {
		_, err := os.Stat(filepath.Dir(filepath.Dir(state)))
		return os.IsNotExist(err)
	})
}

func (r *otherRuntime) testPolicies(t *testing.T) {
	cli := r.cli
	id := cli.OK(t, r.args("-d --restart on-failure:2", "false")...)
	testenv.Eventually(t, "two restarts", func() bool {
		return r.inspect(t, id, "{{.RestartCount}} {{.State.Status}} {{.State.ExitCode}}") == "2 exited 1"
	})
	cli.OK(t, "rm", id)
	id = cli.OK(t, r.args("-d --health-interval 100ms --health-cmd false --health-retries 1", "sleep", "600")...)
	testenv.Eventually(t, "the container to be unhealthy", func() bool { return r.inspect(t, id, "{{.State.Health.Status}}") == "unhealthy" })
	cli.OK(t, "rm", "-f", id)
	id = cli.OK(t, r.args("-d --memory 16m --memory-swap 16m", "tail", "/dev/zero")...)
	testenv.Eventually(t, "the end", func() bool { return r.inspect(t, id, "{{.State.OOMKilled}} {{.State.ExitCode}}") == "true 137" })
	cli.OK(t, "rm", id)
}

// testSurvival kills first the daemon, then the supervisor.
func (r *otherRuntime) testSurvival(t *testing.T) {
	cli := r.cli
	id, ends := r.up(t, ""), r.up(t, "--restart unless-stopped")
	if err := r.d.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := r.d.Launch(); err != nil {
		t.Fatal(err)
	}
	cli.Fails(t, 6, "", "exec", id, "sh", "-c", "exit 6")
	killSupervisor(t, r.d)
	for code := range 5 {
		if got := cli.Try(t, "exec", id, "sh", "-c", fmt.Sprint("exit ", code)).Code; got != code {
			t.Errorf("exec: exit code %d, want %d", got, code)
		}
	}
	cli.OK(t, "pause", id)
	cli.OK(t, "unpause", id)
	cli.Try(t, "exec", ends, "kill", "-TERM", "1") // it may not live to hear of its success
	r.said(t, ends, 2)                             // restarted
	cli.OK(t, "rm", "-f", ends)
	cli.OK(t, "stop", "-t", "60", id)
	equal(t, "exit code", r.inspect(t, id, "{{.State.Status}} {{.State.ExitCode}}"), "exited 3")
	cli.OK(t, "start", id)
	r.said(t, id, 2)
}

// killSupervisor waits for the next one.
func killSupervisor(t *testing.T, d *testenv.Daemon) {
	t.Helper()
	pid := d.Helper("supervisor")
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, "another supervisor", func() bool {
		next := d.Helper("supervisor")
		return next != 0 && next != pid
	})
}

// TestRuntimesConfigured tries what daemon.json and the API say of runtimes.
func TestRuntimesConfigured(t *testing.T) {
	t.Parallel()
	testenv.NeedsRoot(t)
	runc := testenv.NeedsProgram(t, "runc")
	shim := map[string]any{"runtimeType": "io.containerd.runc.v2", "options": map[string]any{"BinaryName": runc}}
	d := testenv.Start(t, testenv.Options{Config: map[string]any{"runtimes": map[string]any{"shim": shim, "absent": map[string]any{"path": "/nonexistent/runtime"}}}})
	image, cli := d.Image(t, "busybox"), d.Docker(t)
	equal(t, "by a shim's type", cli.OK(t, "run", "--rm", "--runtime", "shim", image, "echo", "one"), "one")
	cli.Fails(t, 127, "/nonexistent/runtime: no such file or directory", "run", "--rm", "--runtime", "absent", image, "true")
	cli.Fails(t, 125, "unknown or invalid runtime name: other", "run", "--rm", "--runtime", "other", image, "true")
	// What an image or a container says chooses no runtime.
	equal(t, "the default's", cli.OK(t, "run", "--rm", "--label", "runtime=absent", "--annotation", "run.oci.handler=absent", image, "echo", "two"), "two")

	var info struct {
		DefaultRuntime string
		Runtimes       map[string]struct{ Status map[string]string }
	}
	if err := json.Unmarshal([]byte(d.API(t, 200, "GET", "/info", "")), &info); err != nil {
		t.Fatal(err)
	}
	for name, known := range map[string]bool{"wherry": true, "runc": true, "shim": true, "absent": false} {
		var features struct{ OCIVersionMin string }
		text := info.Runtimes[name].Status["org.opencontainers.runtime-spec.features"]
		if known && (json.Unmarshal([]byte(text), &features) != nil || features.OCIVersionMin == "") || !known && text != "" {
			t.Errorf("%s has the features %q", name, text)
		}
	}
	equal(t, "default", info.DefaultRuntime, "wherry")

	id := cli.OK(t, "create", "--runtime", "shim", image, "true")
	if err := d.WriteConfig(map[string]any{
		"default-runtime": "fresh", "runtimes": map[string]any{"fresh": map[string]any{"path": runc, "runtimeArgs": []string{"--debug"}}},
	}); err != nil {
		t.Fatal(err)
	}
	if err := d.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, "the new default", func() bool { return cli.OK(t, "info", "-f", "{{.DefaultRuntime}}") == "fresh" })
	cli.Fails(t, 1, "unknown or invalid runtime name: shim", "start", id)
	fresh := detached(t, cli, image, "sleep", "600")
	equal(t, "runtime by default", cli.OK(t, "inspect", "-f", "{{.HostConfig.Runtime}}", fresh), "fresh")
	if _, err := os.Stat(filepath.Join(d.ExecRoot, "foreign", fresh)); err != nil {
		t.Error(err)
	}
	equal(t, "ours by its name", cli.OK(t, "run", "--rm", "--runtime", "wherry", image, "echo", "three"), "three")
}

// TestRuntimeUninstalled: a container can be removed although its runtime is gone.
func TestRuntimeUninstalled(t *testing.T) {
	t.Parallel()
	testenv.NeedsRoot(t)
	script := filepath.Join(t.TempDir(), "runtime")
	if err := os.WriteFile(script, fmt.Appendf(nil, "#!/bin/sh\nexec %s \"$@\"\n", testenv.NeedsProgram(t, "runc")), 0o755); err != nil {
		t.Fatal(err)
	}
	d := testenv.Start(t, testenv.Options{Config: map[string]any{"runtimes": map[string]any{"gone": map[string]any{"path": script}}}})
	image, cli := d.Image(t, "busybox"), d.Docker(t)
	id := detached(t, cli, "--runtime", "gone", image, "sleep", "600")
	pid := cli.OK(t, "inspect", "-f", "{{.State.Pid}}", id)
	if err := os.Remove(script); err != nil {
		t.Fatal(err)
	}
	cli.Fails(t, 127, "no such file", "exec", id, "true")
	cli.OK(t, "rm", "-f", id)
	testenv.Eventually(t, "nothing to be left", func() bool {
		_, err := os.Stat("/proc/" + pid)
		left, _ := os.ReadDir(filepath.Join(d.ExecRoot, "foreign"))
		groups, _ := filepath.Glob("/sys/fs/cgroup/*/wherry/" + id)
		return os.IsNotExist(err) && len(left)+len(groups) == 0
	})
}

// TestRuntimeStartKilled kills the supervisor while another runtime creates a
// container: that ends, and the container starts, be it at the second attempt.
func TestRuntimeStartKilled(t *testing.T) {
	t.Parallel()
	testenv.NeedsRoot(t)
	runc, dir := testenv.NeedsProgram(t, "runc"), t.TempDir()
	begun, script := filepath.Join(dir, "begun"), filepath.Join(dir, "slow")
	const text = `#!/bin/sh
case "$*" in *" create "*)
	if [ ! -e %[1]s ]; then echo $$ >%[1]s; exec sleep 600; fi
esac
exec %[2]s "$@"
`
	if err := os.WriteFile(script, fmt.Appendf(nil, text, begun, runc), 0o755); err != nil {
		t.Fatal(err)
	}
	d := testenv.Start(t, testenv.Options{Config: map[string]any{"runtimes": map[string]any{"slow": map[string]any{"path": script}}}})
	image, cli := d.Image(t, "busybox"), d.Docker(t)
	id := cli.OK(t, "create", "--runtime", "slow", image, "echo", "at last")
	started := make(chan testenv.Result, 1)
	go func() { started <- cli.Try(t, "start", id) }()
	var pid string
	testenv.Eventually(t, "the runtime to begin", func() bool {
		data, _ := os.ReadFile(begun)
		pid = strings.TrimSpace(string(data))
		return pid != ""
	})
	killSupervisor(t, d)
	testenv.Eventually(t, "the runtime to end", func() bool {
		_, err := os.Stat("/proc/" + pid)
		return os.IsNotExist(err)
	})
	if r := <-started; r.Code != 0 {
		cli.OK(t, "start", id)
	}
	testenv.Eventually(t, "its end", func() bool {
		return cli.OK(t, "inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", id) == "exited 0"
	})
	equal(t, "output", cli.OK(t, "logs", id), "at last")
	testenv.Eventually(t, "nothing to be left in the exec root", func() bool {
		left, err := os.ReadDir(filepath.Join(d.ExecRoot, "foreign"))
		return err == nil && len(left) == 0
	})
}
