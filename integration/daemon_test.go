package integration

import (
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/wherry-engine/wherry/fixtures"
	"github.com/wherry-engine/wherry/internal/testenv"
)

// TestSideBySide runs two daemons; neither sees or disturbs the other.
func TestSideBySide(t *testing.T) {
	t.Parallel()
	testenv.NeedsRoot(t)
	a, b := testenv.Start(t, testenv.Options{}), testenv.Start(t, testenv.Options{})
	for _, d := range []*testenv.Daemon{a, b} {
		image := d.Image(t, "busybox")
		cli := d.Wherry(t)
		cli.OK(t, "run", "-d", "--name", "same-name", "-p", "127.0.0.1::80", image, "sh", "-c", answer)
		equal(t, "only its own", cli.OK(t, "ps", "--format", "{{.Names}}"), "same-name")
	}
	aCLI := a.Wherry(t)
	id := aCLI.OK(t, "ps", "-q", "--no-trunc")
	p := port(t, aCLI, id, "80/tcp", "4")
	b.Wherry(t).OK(t, "rm", "-f", "same-name")
	if err := b.Stop(); err != nil {
		t.Error(err)
	}
	equal(t, "the other one's port", say(t, "tcp", "127.0.0.1:"+p), id[:12])
	if len(a.Helpers()) == 0 {
		t.Error("no helper names its daemon's exec root in its command line")
	}
}

func TestSecondDaemonOnOneRoot(t *testing.T) {
	t.Parallel()
	testenv.NeedsRoot(t)
	a := testenv.Start(t, testenv.Options{})
	b, err := testenv.New(testenv.Options{DataRoot: a.DataRoot})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Launch(); err == nil {
		t.Error("a second daemon started on the same data root")
		_ = b.Kill()
	}
	contains(t, "why", b.LogTail(), a.DataRoot)
	a.API(t, 200, "GET", "/_ping", "")
	os.RemoveAll(b.Dir)
	os.RemoveAll(b.ExecRoot)
}

// TestContainersOutliveTheDaemon stops and kills the daemon under containers.
func TestContainersOutliveTheDaemon(t *testing.T) {
	t.Parallel()
	testenv.NeedsRoot(t)
	d := testenv.Start(t, testenv.Options{})
	image := d.Image(t, "busybox")
	cli := d.Docker(t)
	cli.OK(t, "network", "create", "net")
	web := cli.OK(t, "run", "-d", "--name", "web", "--network", "net", "-p", "127.0.0.1::80", image, "sh", "-c", answer)
	cli.OK(t, "run", "-d", "--name", "talker", "--network", "net", image, "sh", "-c", "i=0; while :; do i=$((i+1)); echo $i; sleep 0.1; done")
	cli.OK(t, "run", "-d", "--name", "ends", image, "sh", "-c", "while ! test -e /end; do sleep 0.05; done; exit 33")
	cli.OK(t, "run", "--rm", "-d", "--name", "vanishes", image, "sh", "-c", "sleep 1")
	p := port(t, cli, web, "80/tcp", "4")
	restarts := func() string { return cli.OK(t, "inspect", "-f", "{{.RestartCount}}", "again") }

	for _, how := range []struct {
		name string
		end  func() error
	}{{"stop", d.Stop}, {"kill -9", d.Kill}} {
		t.Run(how.name, func(t *testing.T) {
			// A new one each time: the pause before a restart doubles, and would outgrow the wait below.
			cli.OK(t, "run", "-d", "--name", "again", "--restart", "always", image, "sh", "-c", "sleep 0.3; exit 1")
			defer cli.OK(t, "rm", "-f", "again")
			testenv.Eventually(t, "a first restart", func() bool { return restarts() != "0" })
			before := restarts()
			mark := cli.OK(t, "logs", "--tail", "1", "talker")
			if err := how.end(); err != nil {
				t.Fatal(err)
			}
			equal(t, "published port without a daemon", say(t, "tcp", "127.0.0.1:"+p), web[:12])
			time.Sleep(1500 * time.Millisecond)
			if err := d.Launch(); err != nil {
				t.Fatal(err)
			}
			equal(t, "state", cli.OK(t, "inspect", "-f", "{{.State.Status}}", "web"), "running")
			equal(t, "name", strings.Fields(cli.OK(t, "run", "--rm", "--network", "net", image, "nc", "web", "80"))[0], web[:12])
			if after := restarts(); after == before {
				t.Errorf("no restart was counted while the daemon was away (%s)", after)
			}
			lines := cli.OK(t, "logs", "talker")
			inOrder(t, "numbers logged meanwhile", lines, []string{mark, next(mark, 1), next(mark, 2), next(mark, 5), next(mark, 10)})
			testenv.Eventually(t, "the --rm container is gone", func() bool { return cli.Try(t, "inspect", "vanishes").Code == 1 })
		})
	}
	cli.OK(t, "exec", "ends", "sh", "-c", "(sleep 0.5; touch /end) &")
	if err := d.Kill(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Second)
	if err := d.Launch(); err != nil {
		t.Fatal(err)
	}
	equal(t, "exit code of what ended meanwhile", cli.OK(t, "inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "ends"), "exited 33")
}

func next(number string, by int) string {
	var n int
	_, _ = fmt.Sscan(number, &n)
	return fmt.Sprint(n + by)
}

// TestSupervisorIsReplaced kills each helper in turn.
func TestHelpersAreReplaced(t *testing.T) {
	t.Parallel()
	testenv.NeedsRoot(t)
	d := testenv.Start(t, testenv.Options{})
	image := d.Image(t, "busybox")
	cli := d.Docker(t)
	cli.OK(t, "network", "create", "net")
	web := cli.OK(t, "run", "-d", "--name", "web", "--network", "net", "-p", "127.0.0.1::80", image, "sh", "-c", answer)
	p := port(t, cli, web, "80/tcp", "4")
	for _, face := range []string{"supervisor", "net", "keeper"} {
		t.Run(face, func(t *testing.T) {
			pid := d.Helper(face)
			if pid == 0 {
				t.Fatalf("no %s among the helpers", face)
			}
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			if face != "keeper" { // the keeper restarts the other two; nobody needs it until then
				testenv.Eventually(t, "it is back", func() bool { p := d.Helper(face); return p != 0 && p != pid })
			}
			equal(t, "port", say(t, "tcp", "127.0.0.1:"+p), web[:12])
			equal(t, "still running", cli.OK(t, "inspect", "-f", "{{.State.Status}}", "web"), "running")
			equal(t, "exec", cli.OK(t, "exec", "web", "echo", "ok"), "ok")
			contains(t, "names", cli.OK(t, "run", "--rm", "--network", "net", image, "nslookup", "web"), "Address")
		})
	}
	cli.OK(t, "stop", "-t", "0", "web")
	equal(t, "stopped", cli.OK(t, "inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "web"), "exited 137")
}

func TestTLS(t *testing.T) {
	t.Parallel()
	testenv.NeedsRoot(t)
	dir := t.TempDir()
	ca, err := fixtures.NewAuthority("engine")
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "ca.pem"), string(ca.PEM))
	for _, who := range []struct {
		file  string
		usage x509.ExtKeyUsage
	}{{"server", x509.ExtKeyUsageServerAuth}, {"", x509.ExtKeyUsageClientAuth}} {
		cert, key, err := ca.Issue(who.file, who.usage, "127.0.0.1", "localhost")
		if err != nil {
			t.Fatal(err)
		}
		prefix := filepath.Join(dir, strings.TrimPrefix(who.file+"-", "-"))
		if who.file == "" {
			prefix = dir + "/"
		}
		write(t, prefix+"cert.pem", string(cert))
		write(t, prefix+"key.pem", string(key))
	}
	addr := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	d := testenv.Start(t, testenv.Options{Args: []string{
		"-H", "tcp://" + addr, "--tlsverify",
		"--tlscacert", dir + "/ca.pem", "--tlscert", dir + "/server-cert.pem", "--tlskey", dir + "/server-key.pem",
	}})
	for _, cli := range []testenv.CLI{d.Docker(t), d.Wherry(t)} {
		with := cli.With("DOCKER_HOST=tcp://"+addr, "DOCKER_TLS_VERIFY=1", "DOCKER_CERT_PATH="+dir)
		contains(t, "with a certificate", with.OK(t, "version", "-f", "{{.Server.Version}}"), ".")
		image := d.Image(t, "busybox")
		equal(t, "run over TLS", with.OK(t, "run", "--rm", image, "echo", "ok"), "ok")
		equal(t, "stdin over TLS", with.OKInput(t, strings.NewReader("in"), "run", "--rm", "-i", image, "cat"), "in")
		if r := cli.With("DOCKER_HOST=tcp://"+addr).Try(t, "ps"); r.Code == 0 {
			t.Error("plain HTTP was answered on the TLS port")
		}
	}
}

// TestSocketActivation passes a listening socket as systemd does.
func TestSocketActivation(t *testing.T) {
	t.Parallel()
	testenv.NeedsRoot(t)
	d, err := testenv.New(testenv.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(d.Dir)
	socket := filepath.Join(d.Dir, "activated.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	file, err := l.(*net.UnixListener).File()
	if err != nil {
		t.Fatal(err)
	}
	notify, err := net.ListenPacket("unixgram", filepath.Join(d.Dir, "notify.sock"))
	if err != nil {
		t.Fatal(err)
	}
	args := d.Args()
	args[1] = "fd://" // in place of the unix socket
	// $$ is the pid that LISTEN_PID must name; exec keeps it.
	cmd := exec.Command("sh", append([]string{"-c", `LISTEN_PID=$$ LISTEN_FDS=1 exec "$@"`, "sh", testenv.Bin(t, "wherryd")}, args...)...)
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+filepath.Join(d.Dir, "notify.sock"))
	cmd.ExtraFiles = []*os.File{file}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 512)
	_ = notify.SetReadDeadline(time.Now().Add(20 * time.Second))
	n, _, err := notify.ReadFrom(buf)
	if err != nil || !strings.Contains(string(buf[:n]), "READY=1") {
		t.Errorf("readiness: %q %v", buf[:n], err)
	}
	d.Socket = socket
	d.API(t, 200, "GET", "/_ping", "")
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("the daemon's end: %v", err)
	}
	if _, err := os.Stat(socket); err != nil {
		t.Errorf("the daemon removed a socket that is not its own: %v", err)
	}
	if left := d.Helpers(); len(left) != 0 {
		t.Errorf("helpers are left: %v", left)
	}
}

func TestReload(t *testing.T) {
	t.Parallel()
	testenv.NeedsRoot(t)
	d := testenv.Start(t, testenv.Options{Config: map[string]any{"labels": []string{"first=1"}}})
	cli := d.Docker(t)
	contains(t, "before", cli.OK(t, "info", "-f", "{{.Labels}} {{.Debug}}"), "first=1")
	if err := d.WriteConfig(map[string]any{"labels": []string{"second=2"}, "debug": true}); err != nil {
		t.Fatal(err)
	}
	if err := d.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, "the new labels", func() bool {
		return cli.OK(t, "info", "-f", "{{.Labels}} {{.Debug}}") == "[second=2] true"
	})
	if err := os.WriteFile(filepath.Join(d.Dir, "daemon.json"), []byte("{broken"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := d.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, "a complaint", func() bool { return strings.Contains(d.LogTail(), "daemon.json") })
	contains(t, "it goes on", cli.OK(t, "info", "-f", "{{.Labels}}"), "second=2")
	_ = d.WriteConfig(nil)
}

func TestDaemonFlags(t *testing.T) {
	t.Parallel()
	testenv.NeedsRoot(t)
	wherryd := testenv.Bin(t, "wherryd")
	try := func(args ...string) (string, int) {
		cmd := exec.Command(wherryd, args...)
		out, _ := cmd.CombinedOutput()
		return string(out), cmd.ProcessState.ExitCode()
	}
	if out, code := try("--version"); code != 0 || !strings.Contains(out, "version") {
		t.Errorf("--version: %d %s", code, out)
	}
	if out, code := try("--help"); code != 0 || !strings.Contains(out, "--data-root") {
		t.Errorf("--help: %d", code)
	}
	if out, code := try("--no-such-flag"); code == 0 || !strings.Contains(out, "no-such-flag") {
		t.Errorf("an unknown flag: %d %s", code, out)
	}
	bad := filepath.Join(t.TempDir(), "daemon.json")
	write(t, bad, `{"no-such-key": 1}`)
	if out, code := try("--config-file", bad, "--validate"); code == 0 || !strings.Contains(out, "no-such-key") {
		t.Errorf("an unknown key: %d %s", code, out)
	}
	d := testenv.Start(t, testenv.Options{Args: []string{"--containerd", "/run/x.sock", "--userland-proxy=false", "--default-ulimit", "nofile=77:88"}})
	contains(t, "what is ignored is said", d.LogTail(), "containerd")
	image := d.Image(t, "busybox")
	equal(t, "default ulimit", d.Wherry(t).OK(t, "run", "--rm", image, "sh", "-c", "ulimit -n; ulimit -Hn"), "77\n88")
}

// TestFullDisk runs a daemon on a data root of a few megabytes.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	testenv.NeedsRoot(t)
	dir, err := os.MkdirTemp("/tmp", "wh-disk-")
	if err != nil {
		t.Fatal(err)
	}
	disk := filepath.Join(dir, "disk")
	mnt := filepath.Join(dir, "mnt")
	run := func(name string, args ...string) {
		t.Helper()
		if out, err := exec.Command(testenv.NeedsProgram(t, name), args...).CombinedOutput(); err != nil {
			t.Fatalf("%s %v: %v %s", name, args, err, out)
		}
	}
	run("truncate", "-s", "64M", disk)
	run("mkfs.ext4", "-q", "-O", "^has_journal", disk)
	if err := os.Mkdir(mnt, 0o755); err != nil {
		t.Fatal(err)
	}
	run("mount", "-o", "loop", disk, mnt)
	t.Cleanup(func() {
		run("umount", "-l", mnt)
		os.RemoveAll(dir)
	})
	d := testenv.Start(t, testenv.Options{DataRoot: filepath.Join(mnt, "data")})
	cli := d.Docker(t)
	image := d.Image(t, "busybox")
	cli.Fails(t, 1, "no space left on device", "pull", testenv.Registry(t).Addr()+"/debian")
	equal(t, "the engine still works", cli.OK(t, "run", "--rm", image, "echo", "ok"), "ok")
	cli.Fails(t, 1, "no space left on device", "run", "--name", "fills", image, "sh", "-c", "dd if=/dev/zero of=/big bs=1M")
	cli.Try(t, "run", "--rm", image, "echo", "anything") // may fail, must not break
	cli.OK(t, "rm", "-f", "fills")
	equal(t, "after making room", cli.OK(t, "run", "--rm", image, "echo", "ok"), "ok")
	equal(t, "images", cli.OK(t, "images", "--format", "{{.Repository}}"), "busybox")
}

// TestNoRules asks for no firewall rules, and gets none.
func TestNoRules(t *testing.T) {
	t.Parallel()
	testenv.NeedsRoot(t)
	rules := func(d *testenv.Daemon) bool {
		out, err := exec.Command(testenv.NeedsProgram(t, "nft"), "list", "ruleset").Output()
		if err != nil {
			t.Fatal(err)
		}
		return strings.Contains(string(out), d.Bridge)
	}
	with := testenv.Start(t, testenv.Options{})
	without := testenv.Start(t, testenv.Options{Args: []string{"--iptables=false", "--ip6tables=false"}})
	for _, d := range []*testenv.Daemon{with, without} {
		image := d.Image(t, "busybox")
		cli := d.Wherry(t)
		id := cli.OK(t, "run", "-d", "-p", "127.0.0.1::80", image, "sh", "-c", answer)
		if d == with {
			equal(t, "published", say(t, "tcp", "127.0.0.1:"+port(t, cli, id, "80/tcp", "4")), id[:12])
		}
		contains(t, "the gateway answers", cli.OK(t, "exec", id, "ping", "-c", "1", "-W", "2", d.Gateway.String()), "1 packets received")
	}
	if !rules(with) || rules(without) {
		t.Errorf("rules: %t with, %t without", rules(with), rules(without))
	}
}

// TestUnderTheOtherName calls our command line docker.
func TestUnderTheOtherName(t *testing.T) {
	t.Parallel()
	d := shared(t)
	image := d.Image(t, "busybox")
	link := filepath.Join(t.TempDir(), "docker")
	if err := os.Symlink(testenv.Bin(t, "wherry"), link); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(link, "-H", "unix://"+d.Socket, "run", "--rm", image, "echo", "same")
	out, err := cmd.CombinedOutput()
	if err != nil || string(out) != "same\n" {
		t.Errorf("%v %s", err, out)
	}
	out, err = exec.Command(link, "--version").CombinedOutput()
	if err != nil || !strings.HasPrefix(string(out), "Docker version ") {
		t.Errorf("%v %s", err, out)
	}
}
