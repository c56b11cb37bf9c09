package integration

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/internal/testenv"
)

func TestStandardStreams(t *testing.T) {
	t.Parallel()
	d := shared(t)
	image := d.Image(t, "busybox")
	d.Both(t, func(t *testing.T, cli testenv.CLI) {
		equal(t, "stdin", cli.OKInput(t, strings.NewReader("to the container"), "run", "--rm", "-i", image, "cat"), "to the container")
		r := cli.Try(t, "run", "--rm", image, "sh", "-c", "echo out; echo err >&2")
		equal(t, "stdout", r.Stdout, "out\n")
		equal(t, "stderr", r.Stderr, "err\n")
		r = cli.Try(t, "run", "--rm", "-a", "stderr", image, "sh", "-c", "echo out; echo err >&2")
		equal(t, "only stderr", r.Stdout+"|"+r.Stderr, "|err\n")
	})
}

// TestStreamsAreComplete sends much data both ways at once.
func TestStreamsAreComplete(t *testing.T) {
	t.Parallel()
	d := shared(t)
	image := d.Image(t, "busybox")
	data := bytes.Repeat([]byte("0123456789abcde\n"), 1<<20) // 16 MiB
	want := fmt.Sprintf("%x", sha256.Sum256(data))
	d.Both(t, func(t *testing.T, cli testenv.CLI) {
		r := cli.TryInput(t, bytes.NewReader(data), "run", "--rm", "-i", image, "cat")
		equal(t, "sum of what came back", fmt.Sprintf("%x", sha256.Sum256([]byte(r.Stdout))), want)
		r = cli.TryInput(t, bytes.NewReader(data), "run", "--rm", "-i", image, "sha256sum")
		equal(t, "sum inside", strings.Fields(r.Stdout + " -")[0], want)
	})
}

func TestTerminal(t *testing.T) {
	t.Parallel()
	d := shared(t)
	image := d.Image(t, "busybox")
	d.Both(t, func(t *testing.T, cli testenv.CLI) {
		term := cli.Terminal(t, "run", "--rm", "-it", image, "sh")
		term.Expect("#")
		term.Type("tty; stty size; echo TERM=$TERM\r")
		term.Expect("/dev/pts/0")
		term.Expect("24 80")
		term.Expect("TERM=xterm")
		term.Resize(133, 43)
		deadline := time.Now().Add(5 * time.Second)
		for !strings.Contains(term.Screen(), "43 133") && time.Now().Before(deadline) {
			term.Type("stty size\r")
			time.Sleep(100 * time.Millisecond)
		}
		term.Expect("43 133")
		term.Type("echo nap''time; sleep 100\r")
		term.Expect("naptime")
		time.Sleep(200 * time.Millisecond)
		term.Type("\x03") // interrupts sleep, not the shell
		term.Expect("^C")
		term.Type("exit 7\r")
		if code := term.Exit(); code != 7 {
			t.Errorf("exit code %d, want 7", code)
		}
	})
}

func TestDetachAndAttach(t *testing.T) {
	t.Parallel()
	d := shared(t)
	image := d.Image(t, "busybox")
	d.Both(t, func(t *testing.T, cli testenv.CLI) {
		n := name(t)
		term := cli.Terminal(t, "run", "-it", "--name", n, image, "sh")
		defer cli.OK(t, "rm", "-f", n)
		term.Expect("#")
		term.Type("X=kept\r")
		term.Type("\x10\x11") // ctrl-p ctrl-q
		term.Exit()
		equal(t, "state", cli.OK(t, "inspect", "-f", "{{.State.Running}}", n), "true")
		term = cli.Terminal(t, "attach", "--detach-keys", "ctrl-x", n)
		term.Type("echo it is $X\r")
		term.Expect("it is kept")
		term.Type("\x18")
		term.Exit()
		equal(t, "state", cli.OK(t, "inspect", "-f", "{{.State.Running}}", n), "true")
	})
}

func TestSignalProxy(t *testing.T) {
	t.Parallel()
	d := shared(t)
	image := d.Image(t, "busybox")
	d.Both(t, func(t *testing.T, cli testenv.CLI) {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		n := name(t)
		cmd := cli.Command(ctx, "run", "--rm", "--name", n, image, "sh", "-c",
			"for s in HUP INT QUIT USR1 USR2 PWR VTALRM; do trap \"echo $s\" $s; done; trap 'echo caught; exit 3' TERM; echo ready; while :; do sleep 0.1; done")
		var out safeBuffer
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		testenv.Eventually(t, "the container is ready", func() bool { return strings.Contains(out.String(), "ready") })
		all := "ready\n"
		for _, sig := range []syscall.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGPWR, syscall.SIGVTALRM} {
			all += strings.TrimPrefix(unix.SignalName(sig), "SIG") + "\n"
			if err := cmd.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
			testenv.Eventually(t, "output ends with "+all, func() bool { return out.String() == all })
		}
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		equal(t, "output", out.String(), all+"caught\n")
		if code := cmd.ProcessState.ExitCode(); code != 3 {
			t.Errorf("exit code %d, want 3", code)
		}
	})
}

func TestStartAttached(t *testing.T) {
	t.Parallel()
	d := shared(t)
	image := d.Image(t, "busybox")
	d.Both(t, func(t *testing.T, cli testenv.CLI) {
		n := name(t)
		cli.OK(t, "create", "-i", "--name", n, image, "sh", "-c", "read line; echo got $line; exit 5")
		defer cli.OK(t, "rm", "-f", n)
		r := cli.TryInput(t, strings.NewReader("words\n"), "start", "-ai", n)
		equal(t, "output", r.Stdout, "got words\n")
		if r.Code != 5 {
			t.Errorf("exit code %d, want 5", r.Code)
		}
	})
}
