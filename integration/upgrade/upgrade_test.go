package upgrade

import (
	"bufio"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wherry-engine/wherry/fixtures"
	"github.com/wherry-engine/wherry/internal/testenv"
)

func TestMain(m *testing.M) {
	code := m.Run()
	if os.Geteuid() == 0 {
		testenv.CloseRegistries()
	}
	os.Exit(code)
}

const module = "github.com/wherry-engine/wherry"

// programs are installed in a directory of their own, where newer ones can take
// their place as a package manager would put them there.
func install(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"wherry", "wherryd", "wherry-runtime"} {
		b, err := os.ReadFile(testenv.Bin(t, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("WHERRY_BIN", dir)
	return dir
}

// build makes daemon and runtime of a version in dir.
func build(t *testing.T, version string) string {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.Command("go", "build", "-o", dir+"/", "-ldflags",
		fmt.Sprintf("-s -w -X %s/internal/version.Version=%s -X %s/internal/version.Commit=newer", module, version, module),
		"./cmd/wherryd", "./cmd/wherry-runtime")
	cmd.Dir = testenv.SourceRoot()
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build version %s: %v\n%s", version, err, out)
	}
	return dir
}

// replace moves newer programs over those that run.
func replace(t *testing.T, dir, newer string) {
	t.Helper()
	for _, name := range []string{"wherryd", "wherry-runtime"} {
		if err := os.Rename(filepath.Join(newer, name), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
}

// runs tells whether a process executes the program that lies at path now.
func runs(t *testing.T, pid int, path string) bool {
	t.Helper()
	a, err1 := os.Stat("/proc/" + strconv.Itoa(pid) + "/exe")
	b, err2 := os.Stat(path)
	return err1 == nil && err2 == nil && os.SameFile(a, b)
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

const (
	counters = 200
	// counting writes lines until the file is there, then ends with a code of its own.
	counting = `i=0; while [ ! -e /ctl/stop ]; do i=$((i+1)); echo $i; sleep 0.3; done; echo end $i; exit $CODE`
	echoing  = `while read x; do echo "got:$x"; done; exit 7`
)

// session is a user at a terminal.
type session struct {
	name string
	*testenv.Terminal
	code int
}

func TestUpgrade(t *testing.T) {
	testenv.NeedsRoot(t)
	dir := install(t)
	addr := freePort(t)
	d := testenv.Start(t, testenv.Options{Args: []string{"-H", "tcp://" + addr, "--tls=false"}})
	image := d.Image(t, "busybox")
	docker, wherry := d.Docker(t), d.Wherry(t)
	tcp := func(c testenv.CLI) testenv.CLI { return c.With("DOCKER_HOST=tcp://" + addr) }

	ctl := t.TempDir()
	ids := make([]string, counters)
	parallel(8, counters, func(i int) {
		ids[i] = wherry.OK(t, "run", "-d", "--network", "none", "-v", ctl+":/ctl", "-e", fmt.Sprintf("CODE=%d", i%120+1), image, "sh", "-c", counting)
	})
	docker.OK(t, "network", "create", "quay")
	docker.OK(t, "run", "-d", "--name", "still", "--network", "quay", "-p", "[::1]::80", image, "sh", "-c", "nc -ll -p 80 -e cat & sleep 1000000")
	port := docker.OK(t, "port", "still", "80/tcp")
	var proxied net.Conn
	testenv.Eventually(t, "the container listens", func() bool {
		c, err := net.DialTimeout("tcp", port, 5*time.Second)
		if err != nil || echo(c, "before") != nil {
			return false
		}
		proxied = c
		return true
	})

	var sessions []session
	for _, c := range []struct {
		name string
		cli  testenv.CLI
		args []string
	}{
		{"docker run", docker, []string{"run", "--rm", "-it"}},
		{"wherry run", wherry, []string{"run", "--rm", "-it"}},
		{"docker run over TCP", tcp(docker), []string{"run", "--rm", "-it"}},
		{"wherry run over TCP", tcp(wherry), []string{"run", "--rm", "-i"}},
		{"docker exec", docker, []string{"exec", "-it"}},
		{"wherry exec over TCP", tcp(wherry), []string{"exec", "-it"}},
	} {
		target := image
		if c.args[0] == "exec" {
			target = "still"
		}
		s := session{c.name, c.cli.Terminal(t, append(c.args, target, "sh", "-c", "echo ready; "+echoing)...), 7}
		s.Expect("ready")
		sessions = append(sessions, s)
	}
	docker.OK(t, "run", "-dit", "--name", "attached", image, "sh", "-c", echoing)
	attached := session{"docker attach", docker.Terminal(t, "attach", "attached"), 7}
	testenv.Eventually(t, "attach", func() bool { attached.Type("try\r"); return strings.Contains(attached.Screen(), "got:try") })
	sessions = append(sessions, attached)
	say := func(word string) {
		for _, s := range sessions {
			s.Type(word + "\r")
		}
		for _, s := range sessions {
			s.Expect("got:" + word)
		}
	}
	say("first")
	waits := make(chan string, 2)
	for _, c := range []testenv.CLI{docker, tcp(docker)} {
		go func() { waits <- c.Try(t, "wait", ids[0], ids[1]).All() }()
	}

	keeper, supervisor, netHelper := d.Helper("keeper"), d.Helper("supervisor"), d.Helper("net")
	for i, version := range []string{"9.8.7", "9.8.8"} {
		newer := build(t, version)
		replace(t, dir, newer)
		if i == 0 {
			if err := d.Stop(); err != nil {
				t.Fatal(err)
			}
		} else if err := d.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := d.Launch(); err != nil {
			t.Fatalf("%v\n%s", err, d.LogTail())
		}
		if got := docker.OK(t, "version", "-f", "{{.Server.Version}}"); got != version {
			t.Errorf("the daemon says it is %s", got)
		}
		for face, pid := range map[string]int{"keeper": keeper, "supervisor": supervisor} {
			if now := d.Helper(face); now != pid || !runs(t, now, filepath.Join(dir, "wherry-runtime")) {
				t.Errorf("%s: the %s is process %d, first %d, and of the new build: %t", version, face, now, pid, runs(t, now, filepath.Join(dir, "wherry-runtime")))
			}
		}
		newNet := 0
		for _, pid := range d.Helpers() {
			if line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); strings.Contains(string(line), "\x00net\x00") && pid != netHelper {
				newNet = pid
			}
		}
		if newNet == 0 || !runs(t, newNet, filepath.Join(dir, "wherry-runtime")) {
			t.Errorf("%s: net is not of the new build (process %d)", version, newNet)
		}
		say(version)
		ping(t, proxied, version)
		fresh, err := net.DialTimeout("tcp", port, 5*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		ping(t, fresh, "new connection")
		_ = fresh.Close()
		if got := docker.OK(t, "run", "--rm", "--network", "quay", image, "nslookup", "still"); !strings.Contains(got, "Address") {
			t.Errorf("names: %s", got)
		}
	}

	for _, s := range sessions {
		s.Type("\x04")
		if code := s.Exit(); code != s.code {
			t.Errorf("%s ended with %d:\n%q", s.name, code, s.Screen())
		}
		if strings.Contains(s.Screen(), "cut") {
			t.Errorf("%s noticed:\n%q", s.name, s.Screen())
		}
	}
	_ = proxied.Close()
	if err := os.WriteFile(filepath.Join(ctl, "stop"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if got := <-waits; got != "1\n2\n" {
			t.Errorf("wait said %q", got)
		}
	}
	codes := strings.Fields(docker.OK(t, append([]string{"wait"}, ids...)...))
	lines := make([]int, counters)
	parallel(8, counters, func(i int) {
		if codes[i] != strconv.Itoa(i%120+1) {
			t.Errorf("container %d ended with %s", i, codes[i])
		}
		lines[i] = complete(t, i, wherry.OK(t, "logs", ids[i]))
	})
	t.Logf("%d containers, the first with %d lines", counters, lines[0])
	parallel(8, counters, func(i int) { wherry.OK(t, "rm", "-f", ids[i]) })
}

// complete wants every number once, and returns how many there are.
func complete(t *testing.T, container int, log string) int {
	t.Helper()
	lines := strings.Split(log, "\n")
	for i, line := range lines[:len(lines)-1] {
		if line != strconv.Itoa(i+1) {
			t.Errorf("container %d: line %d of its log is %q", container, i+1, line)
			return 0
		}
	}
	if last := lines[len(lines)-1]; last != fmt.Sprintf("end %d", len(lines)-1) {
		t.Errorf("container %d: its log ends with %q after %d lines", container, last, len(lines))
	}
	return len(lines)
}

func parallel(workers, n int, f func(int)) {
	next := make(chan int)
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for i := range next {
				f(i)
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	wg.Wait()
}

// ping wants to hear what it says.
func ping(t *testing.T, c net.Conn, text string) {
	t.Helper()
	if err := echo(c, text); err != nil {
		t.Errorf("a connection through the proxy, %s: %v", text, err)
	}
}

func echo(c net.Conn, text string) error {
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(c, text+"\n"); err != nil {
		return err
	}
	if got, err := bufio.NewReader(c).ReadString('\n'); err != nil || got != text+"\n" {
		return fmt.Errorf("answered by %q, %w", got, err)
	}
	return nil
}

// TestOverTLS: sessions that go through the daemon are taken up again by our
// own command line.
func TestOverTLS(t *testing.T) {
	testenv.NeedsRoot(t)
	install(t)
	certs := certificates(t)
	addr := freePort(t)
	d := testenv.Start(t, testenv.Options{Args: []string{
		"-H", "tcp://" + addr, "--tlsverify",
		"--tlscacert", certs + "/ca.pem", "--tlscert", certs + "/server-cert.pem", "--tlskey", certs + "/server-key.pem",
	}})
	image := d.Image(t, "busybox")
	docker := d.Docker(t)
	cli := d.Wherry(t).With("DOCKER_HOST=tcp://"+addr, "DOCKER_TLS_VERIFY=1", "DOCKER_CERT_PATH="+certs)
	docker.OK(t, "run", "-d", "--name", "still", image, "sleep", "1000000")
	tty := cli.Terminal(t, "run", "--rm", "-it", image, "sh", "-c", "echo ready; "+echoing)
	tty.Expect("ready")
	plain := cli.Terminal(t, "run", "-i", "--name", "plain", image, "sh", "-c", "echo ready; "+echoing)
	plain.Expect("ready")
	waited := make(chan string, 1)
	go func() { waited <- cli.Try(t, "wait", "plain").All() }() // well before the commands that follow are ready
	ended := cli.Terminal(t, "run", "--name", "ends", image, "sh", "-c", "echo ready; while [ ! -e /stop ]; do sleep 0.1; done; exit 9")
	ended.Expect("ready")
	execed := cli.Terminal(t, "exec", "still", "sh", "-c", "echo ready; sleep 3; exit 11")
	execed.Expect("ready")
	execTTY := cli.Terminal(t, "exec", "-it", "still", "sh", "-c", "echo ready; "+echoing)
	execTTY.Expect("ready")
	execPlain := cli.Terminal(t, "exec", "-i", "still", "sh", "-c", "echo ready; "+echoing)
	execPlain.Expect("ready")
	for _, end := range []func() error{d.Stop, d.Kill} {
		if err := end(); err != nil {
			t.Fatal(err)
		}
		if err := d.Launch(); err != nil {
			t.Fatalf("%v\n%s", err, d.LogTail())
		}
		for _, s := range []*testenv.Terminal{tty, plain, execTTY, execPlain} {
			n := strings.Count(s.Screen(), "got:again")
			testenv.Eventually(t, "the session goes on", func() bool {
				s.Type("again\r")
				return strings.Count(s.Screen(), "got:again") > n
			})
		}
	}
	plain.Expect("taken up again")
	execPlain.Expect("taken up again")
	docker.OK(t, "exec", "ends", "touch", "/stop")
	for _, s := range []struct {
		session
		end string
	}{{session{"a terminal", tty, 7}, "\x04"}, {session{"without a terminal", plain, 7}, "\x04"}, {session{"one that only waits", ended, 9}, ""}, {session{"exec", execed, 11}, ""}, {session{"exec with a terminal", execTTY, 7}, "\x04"}, {session{"exec with input", execPlain, 7}, "\x04"}} {
		if s.end != "" {
			s.Type(s.end)
		}
		if code := s.Exit(); code != s.code {
			t.Errorf("%s ended with %d:\n%q", s.name, code, s.Screen())
		}
	}
	if got := <-waited; got != "7\n" {
		t.Errorf("wait said %q", got)
	}
}

// certificates of a server at 127.0.0.1 and of a client.
func certificates(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	ca, err := fixtures.NewAuthority("engine")
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{"ca.pem": ca.PEM}
	for prefix, usage := range map[string]x509.ExtKeyUsage{"server-": x509.ExtKeyUsageServerAuth, "": x509.ExtKeyUsageClientAuth} {
		cert, key, err := ca.Issue("test", usage, "127.0.0.1", "localhost")
		if err != nil {
			t.Fatal(err)
		}
		files[prefix+"cert.pem"], files[prefix+"key.pem"] = cert, key
	}
	for name, b := range files {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}
