package testenv

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// CLI is a command line connected to a daemon.
type CLI struct {
	Name string // "docker" or "wherry"
	path string
	args []string // before those of each command
	env  []string
	d    *Daemon
}

// ForeignCLI is the command line of another engine: a program, what goes
// before the arguments of each command, and what to add to the environment.
func ForeignCLI(path string, args, env []string) CLI {
	return CLI{Name: filepath.Base(path), path: path, args: args, env: append(os.Environ(), env...)}
}

// Docker is the stock command line.
func (d *Daemon) Docker(t testing.TB) CLI {
	t.Helper()
	return d.cli("docker", NeedsProgram(t, "docker"))
}

// Wherry is our own.
func (d *Daemon) Wherry(t testing.TB) CLI {
	t.Helper()
	return d.cli("wherry", Bin(t, "wherry"))
}

func (d *Daemon) cli(name, path string) CLI {
	config := d.Dir + "/config-" + name
	_ = os.MkdirAll(config, 0o700)
	env := []string{"DOCKER_HOST=unix://" + d.Socket, "DOCKER_CONFIG=" + config, "HOME=" + config, "TERM=xterm"}
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "DOCKER_") && !strings.HasPrefix(v, "HOME=") && !strings.HasPrefix(v, "TERM=") {
			env = append(env, v)
		}
	}
	return CLI{Name: name, path: path, env: env, d: d}
}

// With returns the same command line with more in its environment.
func (c CLI) With(env ...string) CLI {
	c.env = append(append([]string{}, c.env...), env...)
	return c
}

// Both runs a subtest with each of the two command lines, in parallel.
func (d *Daemon) Both(t *testing.T, test func(t *testing.T, cli CLI)) {
	t.Helper()
	docker, wherry := d.Docker(t), d.Wherry(t)
	for _, cli := range []CLI{docker, wherry} {
		t.Run(cli.Name, func(t *testing.T) {
			t.Parallel()
			test(t, cli)
		})
	}
}

// Result of a command.
type Result struct {
	Stdout, Stderr string
	Code           int
}

// All is both streams.
func (r Result) All() string { return r.Stdout + r.Stderr }

// Command prepares a command without starting it.
func (c CLI) Command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, c.path, slices.Concat(c.args, args)...)
	cmd.Env = c.env
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// Try runs a command and returns how it ended, whatever that is. It is killed
// after two minutes.
func (c CLI) Try(t testing.TB, args ...string) Result {
	t.Helper()
	return c.TryInput(t, nil, args...)
}

// TryInput is Try with standard input.
func (c CLI) TryInput(t testing.TB, stdin io.Reader, args ...string) Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	cmd := c.Command(ctx, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, &stdout, &stderr
	err := cmd.Run()
	if ctx.Err() != nil {
		t.Fatalf("%s %s: still running after two minutes\n%s%s\n%s", c.Name, strings.Join(args, " "), stdout.String(), stderr.String(), c.d.LogTail())
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("%s %s: %v", c.Name, strings.Join(args, " "), err)
	}
	return Result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// OK runs a command that must succeed and returns its standard output without
// the white space around it.
func (c CLI) OK(t testing.TB, args ...string) string {
	t.Helper()
	return c.OKInput(t, nil, args...)
}

// OKInput is OK with standard input.
func (c CLI) OKInput(t testing.TB, stdin io.Reader, args ...string) string {
	t.Helper()
	r := c.TryInput(t, stdin, args...)
	if r.Code != 0 {
		t.Fatalf("%s %s: exit code %d\nstdout: %s\nstderr: %s\n%s", c.Name, strings.Join(args, " "), r.Code, r.Stdout, r.Stderr, c.d.LogTail())
	}
	return strings.TrimSpace(r.Stdout)
}

// Fails runs a command that must end with the exit code and say text on one
// of its streams, in any case of letters.
func (c CLI) Fails(t testing.TB, code int, text string, args ...string) Result {
	t.Helper()
	r := c.Try(t, args...)
	if r.Code != code {
		t.Errorf("%s %s: exit code %d, want %d\n%s\n%s", c.Name, strings.Join(args, " "), r.Code, code, r.All(), c.d.LogTail())
	}
	if !strings.Contains(strings.ToLower(r.All()), strings.ToLower(text)) {
		t.Errorf("%s %s: does not say %q but:\n%s", c.Name, strings.Join(args, " "), text, r.All())
	}
	return r
}

// Image pulls a fixture image once and gives it its plain name.
func (d *Daemon) Image(t testing.TB, name string) string {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.images[name] {
		return name
	}
	cli := d.Docker(t)
	ref := Registry(t).Addr() + "/" + name
	cli.OK(t, "pull", "-q", ref)
	cli.OK(t, "tag", ref, name)
	cli.OK(t, "rmi", ref)
	d.images[name] = true
	return name
}

// HTTP returns a client whose connections go to the daemon's socket.
func (d *Daemon) HTTP() *http.Client {
	return &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var dialer net.Dialer
			return dialer.DialContext(ctx, "unix", d.Socket)
		},
	}}
}

// Request sends one API request; a nil body sends none.
func (d *Daemon) Request(ctx context.Context, method, path string, body []byte) (int, []byte, error) {
	var r io.Reader
	if body != nil {
		r = bytes.NewReader(body)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://engine"+path, r)
	if err != nil {
		return 0, nil, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := d.HTTP().Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	return resp.StatusCode, data, err
}

// API sends one request and fails the test unless it is answered with the status.
func (d *Daemon) API(t testing.TB, want int, method, path, body string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var data []byte
	if body != "" {
		data = []byte(body)
	}
	status, answer, err := d.Request(ctx, method, path, data)
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", method, path, err, d.LogTail())
	}
	if status != want {
		t.Errorf("%s %s: status %d, want %d: %s", method, path, status, want, bytes.TrimSpace(answer))
	}
	return string(answer)
}

// Eventually waits until the condition is true, for at most ten seconds.
func Eventually(t testing.TB, what string, condition func() bool) {
	t.Helper()
	Within(t, 10*time.Second, what, condition)
}

// Within waits until the condition is true, for at most limit.
func Within(t testing.TB, limit time.Duration, what string, condition func() bool) {
	t.Helper()
	deadline := time.Now().Add(limit)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", limit, what)
		}
		<-tick.C
	}
}
