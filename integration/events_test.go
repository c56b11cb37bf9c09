package integration

import (
	"context"
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
