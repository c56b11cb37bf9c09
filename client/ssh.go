package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"

	"github.com/wherry-engine/wherry/internal/timerslack"
)

// setSSH dials by running ssh, whose remote end connects its standard input
// and output with the daemon's socket there.
func (c *Client) setSSH() error {
	args, err := sshArgs(c.opts.Host)
	if err != nil {
		return err
	}
	remote := c.opts.RemoteCommands
	if len(remote) == 0 {
		remote = []string{"wherry system dial-stdio", "docker system dial-stdio"}
	}
	args = append(args, strings.Join(remote, " || "))
	if len(remote) == 2 && len(c.opts.RemoteCommands) == 0 {
		args[len(args)-1] = "if command -v wherry >/dev/null 2>&1; then exec " + remote[0] + "; else exec " + remote[1] + "; fi"
	}
	c.dial = func(context.Context) (net.Conn, error) { return dialCommand("ssh", args...) }
	return nil
}

// sshArgs turns ssh://user@host:port[/socket] into arguments of ssh.
func sshArgs(host string) ([]string, error) {
	u, err := url.Parse(host)
	switch {
	case err != nil || u.Hostname() == "":
		return nil, fmt.Errorf("invalid ssh host %q: no host specified: %w", host, errdefs.ErrInvalidArgument)
	case strings.HasPrefix(u.Hostname(), "-") || (u.User != nil && strings.HasPrefix(u.User.Username(), "-")):
		return nil, fmt.Errorf("invalid ssh host %q: names must not begin with a dash: %w", host, errdefs.ErrInvalidArgument)
	case u.RawQuery != "" || u.Fragment != "":
		return nil, fmt.Errorf("invalid ssh host %q: no query or fragment is allowed: %w", host, errdefs.ErrInvalidArgument)
	case u.Path != "" && u.Path != "/":
		return nil, fmt.Errorf("invalid ssh host %q: a path is not supported: %w", host, errdefs.ErrNotImplemented)
	}
	if u.User != nil {
		if _, has := u.User.Password(); has {
			return nil, fmt.Errorf("invalid ssh host: plain-text passwords are not supported: %w", errdefs.ErrInvalidArgument)
		}
	}
	args := []string{"-o", "ConnectTimeout=30", "-T"}
	if u.User != nil {
		args = append(args, "-l", u.User.Username())
	}
	if p := u.Port(); p != "" {
		args = append(args, "-p", p)
	}
	return append(args, "--", u.Hostname()), nil
}

// commandConn is a net.Conn over a child's standard input and output.
type commandConn struct {
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	stdout io.ReadCloser
	stderr *tail
	wait   func() error // collects the child, once
}

// lastWords bounds the wait for a child that has closed its output.
const lastWords = 2 * time.Second

func dialCommand(name string, args ...string) (net.Conn, error) {
	c := &commandConn{cmd: exec.Command(name, args...), stderr: &tail{}} //nolint:noctx // lives as long as the connection
	c.cmd.Stderr = c.stderr
	c.cmd.WaitDelay = lastWords
	c.wait = sync.OnceValue(c.cmd.Wait)
	var err error
	if c.stdin, err = c.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if c.stdout, err = c.cmd.StdoutPipe(); err != nil {
		return nil, err
	}
	if err := timerslack.Start(c.cmd.Start); err != nil {
		return nil, err
	}
	return c, nil
}

// Read returns what the child prints. If it fails, the end of the stream is an
// error with what it said.
func (c *commandConn) Read(p []byte) (int, error) {
	n, err := c.stdout.Read(p)
	if n > 0 || !errors.Is(err, io.EOF) {
		return n, err
	}
	ended := make(chan error, 1)
	go func() { ended <- c.wait() }()
	select {
	case failed := <-ended:
		if msg := c.stderr.String(); failed != nil && msg != "" {
			return 0, fmt.Errorf("%s ended: %s", filepath.Base(c.cmd.Path), msg)
		}
	case <-time.After(lastWords):
	}
	return 0, err
}

func (c *commandConn) Write(p []byte) (int, error) { return c.stdin.Write(p) }

// CloseWrite ends the child's input.
func (c *commandConn) CloseWrite() error { return c.stdin.Close() }

// Close ends the child and collects it.
func (c *commandConn) Close() error {
	_ = c.stdin.Close()
	_ = c.cmd.Process.Signal(os.Interrupt) // no error if it is gone
	_ = c.stdout.Close()
	kill := time.AfterFunc(lastWords, func() { _ = c.cmd.Process.Kill() })
	defer kill.Stop()
	_ = c.wait()
	return nil
}

func (c *commandConn) LocalAddr() net.Addr              { return commandAddr(c.cmd.Path) }
func (c *commandConn) RemoteAddr() net.Addr             { return commandAddr(c.cmd.Path) }
func (c *commandConn) SetDeadline(time.Time) error      { return errors.ErrUnsupported }
func (c *commandConn) SetReadDeadline(time.Time) error  { return errors.ErrUnsupported }
func (c *commandConn) SetWriteDeadline(time.Time) error { return errors.ErrUnsupported }

type commandAddr string

func (commandAddr) Network() string  { return "exec" }
func (a commandAddr) String() string { return string(a) }

// tail keeps the last bytes that a child wrote to its standard error.
type tail struct {
	mu  sync.Mutex
	buf []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, p...)
	if over := len(t.buf) - 4096; over > 0 {
		t.buf = t.buf[over:]
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.TrimSpace(string(t.buf))
}
