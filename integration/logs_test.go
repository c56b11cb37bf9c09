package integration

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/wherry-engine/wherry/internal/testenv"
)

func TestLogs(t *testing.T) {
	t.Parallel()
	d := shared(t)
	image := d.Image(t, "busybox")
	for _, driver := range []string{"json-file", "local"} {
		t.Run(driver, func(t *testing.T) {
			t.Parallel()
			d.Both(t, func(t *testing.T, cli testenv.CLI) {
				n := name(t)
				cli.OK(t, "run", "-d", "--name", n, "--log-driver", driver, image, "sh", "-c", "for i in 1 2 3 4 5; do echo line $i; done; echo bad >&2; sleep 1.2; echo late")
				defer cli.OK(t, "rm", "-f", n)
				cli.OK(t, "wait", n)
				r := cli.Try(t, "logs", n)
				equal(t, "stdout", r.Stdout, "line 1\nline 2\nline 3\nline 4\nline 5\nlate\n")
				equal(t, "stderr", r.Stderr, "bad\n")
				equal(t, "tail", cli.Try(t, "logs", "--tail", "1", n).Stdout, "late\n")
				equal(t, "tail 0", cli.Try(t, "logs", "--tail", "0", n).All(), "")
				lines := strings.Split(cli.OK(t, "logs", "-t", n), "\n")
				stamp, text, _ := strings.Cut(lines[len(lines)-1], " ")
				equal(t, "text after the stamp", text, "late")
				when, err := time.Parse(time.RFC3339Nano, stamp)
				if err != nil || time.Since(when) > time.Minute {
					t.Errorf("time stamp %q: %v", stamp, err)
				}
				equal(t, "since", cli.Try(t, "logs", "--since", stamp, n).Stdout, "late\n")
				equal(t, "until", strconv.Itoa(strings.Count(cli.Try(t, "logs", "--until", when.Add(-time.Millisecond*500).Format(time.RFC3339Nano), n).All(), "\n")), "6")
			})
		})
	}
}

func TestLogsFollow(t *testing.T) {
	t.Parallel()
	d := shared(t)
	image := d.Image(t, "busybox")
	d.Both(t, func(t *testing.T, cli testenv.CLI) {
		n := name(t)
		detached(t, cli, "--name", n, image, "sh", "-c", "echo first; while ! test -e /go; do sleep 0.05; done; echo second; exit 2")
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		cmd := cli.Command(ctx, "logs", "-f", n)
		var out safeBuffer
		cmd.Stdout = &out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		testenv.Eventually(t, "the first line", func() bool { return out.String() == "first\n" })
		cli.OK(t, "exec", n, "touch", "/go")
		if err := cmd.Wait(); err != nil { // following ends with the container
			t.Error(err)
		}
		equal(t, "followed", out.String(), "first\nsecond\n")
	})
}

// TestLogsAreCapped writes more than two files may hold.
func TestLogsAreCapped(t *testing.T) {
	t.Parallel()
	d := shared(t)
	image := d.Image(t, "busybox")
	cli := d.Docker(t)
	n := name(t)
	cli.OK(t, "run", "--name", n, "--log-opt", "max-size=64k", "--log-opt", "max-file=2", image, "sh", "-c", "i=0; while [ $i -lt 3000 ]; do i=$((i+1)); echo this is line number $i of three thousand; done; echo the end")
	defer cli.OK(t, "rm", n)
	path := cli.OK(t, "inspect", "-f", "{{.LogPath}}", n)
	files, err := filepath.Glob(path + "*")
	if err != nil || len(files) != 2 {
		t.Errorf("log files: %v %v", files, err)
	}
	for _, f := range files {
		if info, err := os.Stat(f); err != nil || info.Size() > 70<<10 {
			t.Errorf("%s: %v bytes %v", f, info.Size(), err)
		}
	}
	out := cli.OK(t, "logs", n)
	if !strings.HasSuffix(out, "\nthe end") || !strings.HasPrefix(out, "this is line number ") {
		t.Errorf("what is left of the log is not whole: %.60q … %.60q", out, out[max(0, len(out)-60):])
	}
}

// TestJSONFileFormat reads the file as other programs do.
func TestJSONFileFormat(t *testing.T) {
	t.Parallel()
	d := shared(t)
	image := d.Image(t, "busybox")
	cli := d.Docker(t)
	n := name(t)
	cli.OK(t, "run", "--name", n, "-l", "tier=quay", "--log-opt", "labels=tier", image, "sh", "-c", "echo '<a>&\"b\"'; printf partial")
	defer cli.OK(t, "rm", n)
	lines := strings.Split(strings.TrimSpace(read(t, cli.OK(t, "inspect", "-f", "{{.LogPath}}", n))), "\n")
	var got []string
	for _, line := range lines {
		var entry struct {
			Log, Stream, Time string
			Attrs             map[string]string
		}
		if err := json.Unmarshal([]byte(line), &entry); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		got = append(got, entry.Stream+" "+entry.Log+entry.Attrs["tier"])
		if _, err := time.Parse(time.RFC3339Nano, entry.Time); err != nil {
			t.Error(err)
		}
	}
	equal(t, "entries", strings.Join(got, ""), "stdout <a>&\"b\"\nquaystdout partialquay")
}

func TestDefaultLogCap(t *testing.T) {
	t.Parallel()
	d := shared(t)
	image := d.Image(t, "busybox")
	cli := d.Wherry(t)
	n := name(t)
	cli.OK(t, "create", "--name", n, image)
	defer cli.OK(t, "rm", n)
	equal(t, "driver", cli.OK(t, "inspect", "-f", "{{.HostConfig.LogConfig.Type}}", n), "json-file")
	cli.Fails(t, 125, "", "run", "--log-driver", "nosuch", image, "true")
	cli.Fails(t, 125, "", "run", "--log-opt", "nosuch=1", image, "true")
	equal(t, "none", cli.OK(t, "run", "--rm", "--log-driver", "none", image, "echo", "still attached"), "still attached")
}
