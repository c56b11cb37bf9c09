package crash

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/wherry-engine/wherry/internal/testenv"
)

// TestSupervisorKilledUnderSessions: containers live and exit codes are known;
// what is lost is said, and our own command line attaches again.
func TestSupervisorKilledUnderSessions(t *testing.T) {
	testenv.NeedsRoot(t)
	d := testenv.Start(t, testenv.Options{})
	image := d.Image(t, "busybox")
	docker, wherry := d.Docker(t), d.Wherry(t)
	const echoing = `echo ready; while read x; do echo "got:$x"; done; exit 7`
	s := wherry.Terminal(t, "run", "--rm", "-i", image, "sh", "-c", echoing)
	s.Expect("ready")
	docker.OK(t, "run", "-d", "--name", "counts", image, "sh", "-c", "i=0; while [ $i -lt 200 ]; do i=$((i+1)); echo $i; usleep 10000; done; exit 6")
	docker.OK(t, "run", "-d", "--name", "queued", "--log-opt", "mode=non-blocking", image, "sleep", "1000000")
	waited := make(chan string, 1)
	go func() { waited <- docker.Try(t, "wait", "counts").All() }()
	for range 2 {
		pid := d.Helper("supervisor")
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		testenv.Eventually(t, "another supervisor", func() bool { now := d.Helper("supervisor"); return now != 0 && now != pid })
		n := strings.Count(s.Screen(), "got:again")
		testenv.Within(t, 20*time.Second, "the session goes on", func() bool {
			s.Type("again\r")
			return strings.Count(s.Screen(), "got:again") > n
		})
	}
	s.Expect("taken up again")
	s.Type("\x04")
	if code := s.Exit(); code != 7 {
		t.Errorf("the session ended with %d:\n%q", code, s.Screen())
	}
	if got := <-waited; got != "6\n" {
		t.Errorf("wait: %q", got)
	}
	checkLog(t, docker.OK(t, "logs", "counts"))
	contains(t, docker.Try(t, "logs", "queued").All(), "the supervisor was killed")
	contains(t, daemonLog(d), "the supervisor was killed and another goes on in its place")
	contains(t, docker.OK(t, "events", "--since", "1h", "--until", "0s", "--filter", "type=daemon"), "supervisor-replaced")
}

// TestBothHelpersKilled: what cannot be known is reported as unknown, and
// everything answers.
func TestBothHelpersKilled(t *testing.T) {
	testenv.NeedsRoot(t)
	d := testenv.Start(t, testenv.Options{})
	image := d.Image(t, "busybox")
	cli := d.Docker(t)
	ctl := t.TempDir()
	for name, cmd := range map[string]string{"lives": "sleep 1000000", "ends": "while [ ! -e /ctl/end ]; do sleep 0.1; done; exit 9", "later": "while [ ! -e /stop ]; do sleep 0.1; done; exit 8", "removed": "sleep 1000000"} {
		cli.OK(t, "run", "-d", "--name", name, "-v", ctl+":/ctl", image, "sh", "-c", cmd)
	}
	cli.OK(t, "run", "-d", "--name", "always", "--restart", "always", image, "sleep", "1000000")
	cli.OK(t, "network", "create", "quay")
	serves := cli.OK(t, "run", "-d", "--name", "serves", "--network", "quay", "-p", "127.0.0.1::80", image, "sh", "-c", "nc -ll -p 80 -e hostname & sleep 1000000")
	port := cli.OK(t, "port", "serves", "80/tcp")
	testenv.Eventually(t, "the published port answers", func() bool { return ask(port) == serves[:12] })
	waits := make(chan testenv.Result, 2)
	for _, name := range []string{"ends", "later"} {
		go func() { waits <- cli.Try(t, "wait", name) }()
	}
	supervisor, keeper := d.Helper("supervisor"), d.Helper("keeper")
	pid, err := strconv.Atoi(cli.OK(t, "inspect", "-f", "{{.State.Pid}}", "ends"))
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Kill(); err != nil { // so that one ends while there is nobody
		t.Fatal(err)
	}
	_ = syscall.Kill(keeper, syscall.SIGSTOP) // or it would start another supervisor in between
	_ = syscall.Kill(supervisor, syscall.SIGKILL)
	_ = syscall.Kill(keeper, syscall.SIGKILL)
	if err := os.WriteFile(filepath.Join(ctl, "end"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, "the end of one", func() bool { return syscall.Kill(pid, 0) != nil })
	if err := d.Launch(); err != nil {
		t.Fatal(err)
	}
	testenv.Within(t, 20*time.Second, "other helpers", func() bool {
		s, k := d.Helper("supervisor"), d.Helper("keeper")
		return s != 0 && k != 0 && s != supervisor && k != keeper
	})
	running := func(name string) string { return cli.OK(t, "inspect", "-f", "{{.State.Status}}", name) }
	testenv.Eventually(t, "the helpers are found", func() bool { return cli.Try(t, "exec", "lives", "true").Code == 0 })
	for _, name := range []string{"lives", "later", "always", "removed"} {
		if got := running(name); got != "running" {
			t.Errorf("%s is %s", name, got)
		}
	}
	for range 2 {
		if got := ask(port); got != serves[:12] {
			t.Errorf("the published port answers %q\n%s", got, d.LogTail())
		}
		contains(t, cli.OK(t, "run", "--rm", "--network", "quay", image, "nslookup", "serves"), "Address")
		if err := errors.Join(d.Kill(), d.Launch()); err != nil {
			t.Fatal(err)
		}
	}
	contains(t, cli.Try(t, "logs", "lives").All(), "supervisor and keeper were killed")
	contains(t, cli.OK(t, "inspect", "-f", "{{.State.Error}}", "lives"), "supervisor and keeper were killed")
	cli.OK(t, "rm", "-f", "removed")
	cli.OK(t, "exec", "later", "touch", "/stop")
	for _, c := range []struct {
		name string
		code string
	}{{"ends", "255"}, {"later", "8"}} {
		testenv.Within(t, 20*time.Second, c.name+" has ended", func() bool { return running(c.name) == "exited" })
		got := cli.OK(t, "inspect", "-f", "{{.State.ExitCode}} {{.State.Error}}", c.name)
		code, text, _ := strings.Cut(got, " ")
		// A kernel before 6.15 tells nobody but the parent how a process ended.
		if unknown := code == "255" && strings.Contains(text, "unknown"); code != c.code && !unknown || c.code == "255" && !unknown {
			t.Errorf("%s: %q", c.name, got)
		}
		t.Logf("%s: %s", c.name, got)
	}
	for range 2 { // those who waited were connected to helpers that are gone
		select {
		case <-waits:
		case <-time.After(20 * time.Second):
			t.Fatal("a wait hangs")
		}
	}
	if got := cli.OK(t, "ps", "-q"); len(strings.Fields(got)) != 3 {
		t.Errorf("ps: %q", got)
	}
	cli.OK(t, "stop", "-t", "0", "lives")
	cli.OK(t, "rm", "-f", "always", "lives", "ends", "later", "serves")
}
