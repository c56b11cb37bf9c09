package integration

import (
	"context"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/wherry-engine/wherry/internal/testenv"
)

func TestEvents(t *testing.T) {
	t.Parallel()
	d := shared(t)
	image := d.Image(t, "busybox")
	d.Both(t, func(t *testing.T, cli testenv.CLI) {
		n := name(t)
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		live := cli.Command(ctx, "events", "--filter", "container="+n, "--format", "{{.Action}}")
		var out safeBuffer
		live.Stdout = &out
		if err := live.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(300 * time.Millisecond) // the stream says nothing when it is ready
		began := time.Now().Add(-time.Second)
		cli.OK(t, "run", "-d", "--name", n, image, "sleep", "1000")
		cli.OK(t, "pause", n)
		cli.OK(t, "unpause", n)
		cli.OK(t, "exec", n, "true")
		cli.OK(t, "kill", n)
		cli.OK(t, "wait", n)
		cli.OK(t, "rm", n)
		want := []string{"create", "start", "pause", "unpause", "exec_create: true", "exec_start: true", "exec_die", "kill", "die", "destroy"}
		testenv.Eventually(t, "the last event", func() bool { return strings.Contains(out.String(), "destroy") })
		cancel()
		_ = live.Wait()
		inOrder(t, "live", out.String(), want)
		past := cli.OK(t, "events", "--since", began.Format(time.RFC3339Nano), "--until", time.Now().Format(time.RFC3339Nano), "--filter", "container="+n, "--format", "{{.Action}}")
		inOrder(t, "past", past, want)
		contains(t, "attributes", cli.OK(t, "events", "--since", began.Format(time.RFC3339Nano), "--until", time.Now().Format(time.RFC3339Nano), "--filter", "container="+n, "--filter", "event=die"), "exitCode=137")
	})
}

// TestEventsTiming: the time of an operation is told to those who ask, part by
// part, down to what the init does.
func TestEventsTiming(t *testing.T) {
	t.Parallel()
	d := shared(t)
	image := d.Image(t, "busybox")
	cli := d.Wherry(t)
	n := name(t)
	began := time.Now().Add(-time.Second)
	cli.OK(t, "run", "--rm", "--name", n, image, "true")
	past := func(options ...string) string {
		return cli.OK(t, append([]string{"events", "--since", began.Format(time.RFC3339Nano), "--until", time.Now().Format(time.RFC3339Nano), "--filter", "container=" + n}, options...)...)
	}
	testenv.Eventually(t, "the last event", func() bool { return strings.Contains(past(), "destroy") })
	table := past("--timing")
	for _, phase := range []string{"writable layer", "network and volumes", "root", "clone", "start of init", "init: mounts", "init: pivot", "exec"} {
		if !regexp.MustCompile(`(?m)^ +` + phase + ` +[0-9]+\.[0-9]{3} ms$`).MatchString(table) {
			t.Errorf("no phase %q:\n%s", phase, table)
		}
	}
	if out := past("--format", "json"); strings.Contains(out, `"timing":`) {
		t.Errorf("timing without being asked for:\n%s", out)
	}
}

// inOrder checks that the lines contain all wanted ones in this order.
func inOrder(t *testing.T, what, lines string, want []string) {
	t.Helper()
	rest := strings.Split(strings.TrimSpace(lines), "\n")
	for _, w := range want {
		found := false
		for i, line := range rest {
			if strings.TrimSpace(line) == w {
				rest, found = rest[i+1:], true
				break
			}
		}
		if !found {
			t.Errorf("%s events: %q is missing or in the wrong place:\n%s", what, w, lines)
			return
		}
	}
}
