package integration

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/wherry-engine/wherry/internal/testenv"
)

const trapTerm = "trap 'echo stopping; exit 0' TERM; echo ready; while :; do sleep 0.05; done"

func TestCreateStartStop(t *testing.T) {
	t.Parallel()
	d := shared(t)
	image := d.Image(t, "busybox")
	d.Both(t, func(t *testing.T, cli testenv.CLI) {
		n := name(t)
		cli.OK(t, "create", "--name", n, image, "sh", "-c", trapTerm)
		defer cli.OK(t, "rm", "-f", n)
		state := func() string { return cli.OK(t, "inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", n) }
		equal(t, "created", state(), "created 0")
		equal(t, "start", cli.OK(t, "start", n), n)
		equal(t, "started", state(), "running 0")
		cli.OK(t, "start", n) // already so
		cli.Fails(t, 1, "running", "rm", n)
		testenv.Eventually(t, "the trap is set", func() bool { return cli.OK(t, "logs", n) == "ready" })
		equal(t, "stop", cli.OK(t, "stop", n), n)
		equal(t, "stopped", state(), "exited 0")
		equal(t, "said", cli.OK(t, "logs", n), "ready\nstopping")
		cli.OK(t, "stop", n)
		cli.Fails(t, 1, "not running", "kill", n)
		cli.OK(t, "restart", "-t", "0", n)
		equal(t, "restarted", state(), "running 0")
		cli.OK(t, "kill", "-s", "KILL", n)
		testenv.Eventually(t, "killed", func() bool { return state() == "exited 137" })
		cli.OK(t, "start", n)
		if cli.Name == "wherry" { // old clients have no -s
			cli.OK(t, "stop", "-t", "0", "-s", "USR1", n)
		}
		cli.Fails(t, 1, "", "start", "nosuch")
	})
}

func TestStopTimeout(t *testing.T) {
	t.Parallel()
	d := shared(t)
	image := d.Image(t, "busybox")
	cli := d.Docker(t)
	n := name(t)
	detached(t, cli, "--name", n, "--stop-timeout", "1", image, "sh", "-c", "trap '' TERM; while :; do sleep 0.1; done")
	began := time.Now()
	cli.OK(t, "stop", n)
	if took := time.Since(began); took < 900*time.Millisecond || took > 9*time.Second { // without it, 10s
		t.Errorf("stop took %s with a timeout of 1s", took)
	}
	equal(t, "code", cli.OK(t, "inspect", "-f", "{{.State.ExitCode}}", n), "137")
}

func TestStopSignalOfImageAndContainer(t *testing.T) {
	t.Parallel()
	d := shared(t)
	image := d.Image(t, "busybox")
	cli := d.Docker(t)
	n := name(t)
	detached(t, cli, "--name", n, "--stop-signal", "USR2", image, "sh", "-c", "trap 'exit 12' USR2; echo ready; while :; do sleep 0.05; done")
	testenv.Eventually(t, "ready", func() bool { return cli.OK(t, "logs", n) == "ready" })
	cli.OK(t, "stop", n)
	equal(t, "code", cli.OK(t, "inspect", "-f", "{{.State.ExitCode}}", n), "12")
}

func TestPauseWaitRename(t *testing.T) {
	t.Parallel()
	d := shared(t)
	image := d.Image(t, "busybox")
	d.Both(t, func(t *testing.T, cli testenv.CLI) {
		n := name(t)
		detached(t, cli, "--name", n, image, "sh", "-c", "i=0; while :; do i=$((i+1)); echo $i >/count; sleep 0.02; done")
		count := func() string { return cli.OK(t, "cp", n+":/count", "-") }
		testenv.Eventually(t, "it counts", func() bool { return cli.Try(t, "exec", n, "test", "-s", "/count").Code == 0 })
		cli.OK(t, "pause", n)
		equal(t, "state", cli.OK(t, "inspect", "-f", "{{.State.Status}} {{.State.Paused}}", n), "paused true")
		before := count()
		time.Sleep(200 * time.Millisecond)
		equal(t, "frozen count", count(), before)
		cli.Fails(t, 1, "paused", "exec", n, "true")
		cli.Fails(t, 1, "already paused", "pause", n)
		cli.OK(t, "unpause", n)
		testenv.Eventually(t, "it counts again", func() bool { return count() != before })

		other := name(t)
		cli.OK(t, "rename", n, other)
		equal(t, "renamed", cli.OK(t, "inspect", "-f", "{{.Name}}", other), "/"+other)
		cli.Fails(t, 1, "no such", "inspect", n)

		done := make(chan string, 1)
		go func() { done <- strings.TrimSpace(cli.Try(t, "wait", other).Stdout) }()
		time.Sleep(100 * time.Millisecond)
		cli.OK(t, "kill", other)
		equal(t, "wait", <-done, "137")
	})
}

func TestTopStatsUpdate(t *testing.T) {
	t.Parallel()
	d := shared(t)
	image := d.Image(t, "busybox")
	d.Both(t, func(t *testing.T, cli testenv.CLI) {
		n := name(t)
		detached(t, cli, "--name", n, "-m", "64m", image, "sleep", "1000")
		top := cli.OK(t, "top", n)
		contains(t, "top", top, "PID")
		contains(t, "top", top, "sleep 1000")
		contains(t, "top with options", cli.OK(t, "top", n, "-o", "pid,comm"), "sleep")
		stats := cli.OK(t, "stats", "--no-stream", "--format", "{{.Name}} {{.MemUsage}} {{.PIDs}}", n)
		if !strings.HasPrefix(stats, n+" ") || !strings.HasSuffix(stats, "/ 64MiB 1") {
			t.Errorf("stats: %q", stats)
		}
		cli.OK(t, "update", "--memory", "96m", "--memory-swap", "96m", "--restart", "on-failure:3", n)
		equal(t, "updated", cli.OK(t, "inspect", "-f", "{{.HostConfig.Memory}} {{.HostConfig.RestartPolicy.Name}} {{.HostConfig.RestartPolicy.MaximumRetryCount}}", n), fmt.Sprintf("%d on-failure 3", 96<<20))
		equal(t, "limit", cli.OK(t, "exec", n, "sh", "-c", "cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max"), strconv.Itoa(96<<20))
	})
}

func TestRestartPolicies(t *testing.T) {
	t.Parallel()
	d := shared(t)
	image := d.Image(t, "busybox")
	d.Both(t, func(t *testing.T, cli testenv.CLI) {
		inspect := func(n, format string) string { return cli.OK(t, "inspect", "-f", format, n) }
		failing := name(t)
		detached(t, cli, "--name", failing, "--restart", "on-failure:2", image, "sh", "-c", "echo try; exit 3")
		testenv.Eventually(t, "it gave up", func() bool {
			return inspect(failing, "{{.State.Status}} {{.State.ExitCode}} {{.RestartCount}}") == "exited 3 2"
		})
		equal(t, "tries", cli.OK(t, "logs", failing), "try\ntry\ntry")

		succeeding := name(t)
		detached(t, cli, "--name", succeeding, "--restart", "on-failure", image, "true")
		testenv.Eventually(t, "it ended", func() bool { return inspect(succeeding, "{{.State.Status}} {{.RestartCount}}") == "exited 0" })

		always := name(t)
		detached(t, cli, "--name", always, "--restart", "always", image, "sh", "-c", "sleep 0.1; exit 0")
		testenv.Eventually(t, "it was restarted", func() bool { return inspect(always, "{{.RestartCount}}") >= "2" })
		cli.OK(t, "stop", "-t", "0", always)
		equal(t, "stopped", inspect(always, "{{.State.Running}}"), "false")
		time.Sleep(500 * time.Millisecond)
		equal(t, "still stopped", inspect(always, "{{.State.Running}} {{.State.Restarting}}"), "false false")

		removed := name(t)
		detached(t, cli, "--name", removed, "--restart", "always", image, "false")
		cli.OK(t, "rm", "-f", removed)
		cli.Fails(t, 1, "no such", "inspect", removed)
		cli.Fails(t, 125, "", "run", "--rm", "--restart", "always", image, "true")
	})
}

func TestHealth(t *testing.T) {
	t.Parallel()
	d := shared(t)
	image := d.Image(t, "busybox")
	d.Both(t, func(t *testing.T, cli testenv.CLI) {
		n := name(t)
		detached(t, cli, "--name", n, "--health-cmd", "test -e /healthy && echo fine", "--health-interval", "200ms",
			"--health-timeout", "5s", "--health-retries", "2", image, "sleep", "1000")
		health := func() string { return cli.OK(t, "inspect", "-f", "{{.State.Health.Status}}", n) }
		testenv.Eventually(t, "unhealthy", func() bool { return health() == "unhealthy" })
		contains(t, "ps", cli.OK(t, "ps", "--filter", "name="+n, "--format", "{{.Status}}"), "(unhealthy)")
		equal(t, "filter", cli.OK(t, "ps", "--filter", "name="+n, "--filter", "health=unhealthy", "--format", "{{.Names}}"), n)
		cli.OK(t, "exec", n, "touch", "/healthy")
		testenv.Eventually(t, "healthy", func() bool { return health() == "healthy" })
		var log []struct {
			ExitCode int
			Output   string
		}
		if err := json.Unmarshal([]byte(cli.OK(t, "inspect", "-f", "{{json .State.Health.Log}}", n)), &log); err != nil || len(log) == 0 {
			t.Fatalf("health log: %v %v", log, err)
		}
		equal(t, "last output", log[len(log)-1].Output, "fine\n")

		none := name(t)
		detached(t, cli, "--name", none, "--no-healthcheck", image, "sleep", "1000")
		equal(t, "no health", cli.OK(t, "inspect", "-f", "{{.State.Health}}", none), "<nil>")
	})
}

func TestContainerPrune(t *testing.T) {
	t.Parallel()
	d := testenv.Start(t, testenv.Options{})
	image := d.Image(t, "busybox")
	cli := d.Wherry(t)
	cli.OK(t, "run", "--name", "ended", image, "true")
	cli.OK(t, "run", "-d", "--name", "running", image, "sleep", "1000")
	contains(t, "prune", cli.OK(t, "container", "prune", "-f"), "Total reclaimed space")
	equal(t, "left", cli.OK(t, "ps", "-a", "--format", "{{.Names}}"), "running")
	contains(t, "df", cli.OK(t, "system", "df"), "Containers")
	contains(t, "info", cli.OK(t, "info"), "Containers: 1")
}

// TestRemoveReleasesAtOnce takes name, port and address again without a pause.
func TestRemoveReleasesAtOnce(t *testing.T) {
	t.Parallel()
	d := shared(t)
	image := d.Image(t, "busybox")
	d.Both(t, func(t *testing.T, cli testenv.CLI) {
		n, p := name(t), freePort(t)
		net := network(t, cli, "--subnet", fmt.Sprintf("10.126.%d.0/29", counter.Add(1)%250))
		for range 8 { // more often than the subnet has addresses
			id := cli.OK(t, "run", "-d", "--name", n, "--network", net, "-p", fmt.Sprintf("127.0.0.1:%d:80", p), image, "sh", "-c", answer)
			equal(t, "answer", say(t, "tcp", fmt.Sprintf("127.0.0.1:%d", p)), id[:12])
			cli.OK(t, "rm", "-f", n)
		}
	})
}
