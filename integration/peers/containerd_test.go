package peers

import (
	"strings"
	"testing"

	"github.com/wherry-engine/wherry/internal/testenv"
)

// TestContainerd drives containerd's shim through ctr; the containerd is that
// of a dockerd.
func TestContainerd(t *testing.T) {
	testenv.NeedsRoot(t)
	runtime, program := testenv.Bin(t, "wherry-runtime"), testenv.NeedsProgram(t, "ctr")
	dir, cgroup := workspace(t)
	_, socket := dockerd(t, dir, cgroup)
	ctr := testenv.ForeignCLI(program, []string{"-a", socket, "-n", "wherry"}, nil)
	image := testenv.Registry(t).Addr() + "/busybox:latest"
	ctr.OK(t, "image", "pull", "--plain-http", image)
	run := func(options []string, id string, command ...string) []string {
		args := append([]string{"run", "--runc-binary", runtime, "--cgroup", cgroup + "/" + id}, options...)
		return append(append(args, image, id), command...)
	}
	if got := ctr.OK(t, run([]string{"--rm"}, "one", "echo", "hello")...); got != "hello" {
		t.Errorf("output %q", got)
	}
	if r := ctr.Try(t, run([]string{"--rm"}, "two", "sh", "-c", "exit 5")...); r.Code != 5 {
		t.Errorf("exit code %d, want 5\n%s", r.Code, r.All())
	}
	term := ctr.Terminal(t, run([]string{"--rm", "-t"}, "three", "tty")...)
	term.Expect("/dev/pts/0")
	if code := term.Exit(); code != 0 {
		t.Errorf("with a terminal: exit code %d", code)
	}
	ctr.OK(t, run([]string{"-d"}, "four", "sh", "-c", `trap "exit 3" TERM; touch /ready; while :; do sleep 0.05; done`)...)
	status := func(want string) {
		t.Helper()
		testenv.Eventually(t, want, func() bool { return strings.Contains(ctr.OK(t, "task", "ls"), want) })
	}
	testenv.Eventually(t, "exec to find what the container makes", func() bool {
		return ctr.Try(t, "task", "exec", "--exec-id", "e", "four", "test", "-e", "/ready").Code == 0
	})
	ctr.OK(t, "task", "pause", "four")
	status("PAUSED")
	ctr.OK(t, "task", "resume", "four")
	status("RUNNING")
	ctr.OK(t, "task", "kill", "-s", "TERM", "four")
	status("STOPPED")
	if r := ctr.Try(t, "task", "rm", "four"); r.Code != 0 && !strings.Contains(r.All(), "exit code 3") {
		t.Errorf("task rm: %s", r.All())
	}
	ctr.OK(t, "container", "rm", "four")
}
