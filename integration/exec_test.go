package integration

import (
	"strings"
	"testing"

	"github.com/wherry-engine/wherry/internal/testenv"
)

func TestExec(t *testing.T) {
	t.Parallel()
	d := shared(t)
	image := d.Image(t, "busybox")
	d.Both(t, func(t *testing.T, cli testenv.CLI) {
		n := name(t)
		detached(t, cli, "--name", n, "-e", "FROM=run", "-w", "/tmp", image, "sleep", "1000")
		equal(t, "plain", cli.OK(t, "exec", n, "echo", "hi"), "hi")
		equal(t, "env and dir", cli.OK(t, "exec", "-e", "B=2", n, "sh", "-c", "echo $FROM $B; pwd"), "run 2\n/tmp")
		equal(t, "other dir", cli.OK(t, "exec", "-w", "/etc", n, "pwd"), "/etc")
		equal(t, "user", cli.OK(t, "exec", "-u", "app:video", n, "sh", "-c", "id -u; id -g"), "1000\n44")
		if out := cli.OK(t, "exec", "--privileged", n, "grep", "CapEff", "/proc/self/status"); out <= "CapEff:\t000000ff" {
			t.Errorf("capabilities of a privileged exec: %s", out)
		}
		equal(t, "caps", cli.OK(t, "exec", n, "grep", "CapEff", "/proc/self/status"), "CapEff:\t00000000a80425fb")
		equal(t, "stdin", cli.OKInput(t, strings.NewReader("in"), "exec", "-i", n, "cat"), "in")
		cli.Fails(t, 9, "", "exec", n, "sh", "-c", "exit 9")
		cli.Fails(t, 127, "no such file", "exec", n, "/no/such")
		cli.Fails(t, 126, "permission denied", "exec", n, "/etc/passwd")
		cli.OK(t, "exec", "-d", n, "touch", "/tmp/made")
		testenv.Eventually(t, "the detached exec ran", func() bool { return cli.Try(t, "exec", n, "test", "-e", "/tmp/made").Code == 0 })
		contains(t, "namespaces", cli.OK(t, "exec", n, "ps"), "sleep 1000")

		term := cli.Terminal(t, "exec", "-it", n, "sh")
		term.Expect("#")
		term.Type("stty size; test -t 1 && echo a-$((40+2))-terminal\r")
		term.Expect("24 80")
		term.Expect("a-42-terminal")
		term.Type("exit 4\r")
		if code := term.Exit(); code != 4 {
			t.Errorf("exit code of the terminal: %d, want 4", code)
		}
		cli.OK(t, "stop", "-t", "0", n)
		cli.Fails(t, 1, "is not running", "exec", n, "true")
		cli.Fails(t, 1, "no such container", "exec", "nosuch", "true")
	})
}

func TestExecOutlivesNothing(t *testing.T) {
	t.Parallel()
	d := shared(t)
	image := d.Image(t, "busybox")
	cli := d.Docker(t)
	id := detached(t, cli, image, "sleep", "1000")
	cli.OK(t, "exec", "-d", id, "sleep", "2000")
	testenv.Eventually(t, "the exec runs", func() bool { return strings.Contains(cli.OK(t, "top", id), "sleep 2000") })
	cli.OK(t, "kill", id)
	cli.Fails(t, 1, "", "top", id)
}
