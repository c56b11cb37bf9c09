package testenv

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Options of a daemon; the zero value is a daemon with everything of its own.
type Options struct {
	// Args are added to the command line.
	Args []string
	// Config becomes daemon.json.
	Config map[string]any
	// Env is added to the environment.
	Env []string
	// DataRoot replaces the daemon's own, for tests of full disks and of two
	// daemons on one root.
	DataRoot string
	// KeepContainers leaves cleaning up to the test.
	KeepContainers bool
}

// Daemon is one running engine.
type Daemon struct {
	Dir      string // everything of it that lives on disk
	Socket   string
	DataRoot string
	ExecRoot string
	Pidfile  string
	Bridge   string
	Subnet   netip.Prefix // of the bridge
	Gateway  netip.Addr

	opts   Options
	logs   *os.File
	mu     sync.Mutex
	cmd    *exec.Cmd
	exited chan struct{}
	images map[string]bool
	before Snapshot
}

// Start runs a daemon until the test ends; then everything of it is removed
// and the machine is checked for what it left behind.
func Start(t testing.TB, opts Options) *Daemon {
	t.Helper()
	d, err := New(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Errorf("daemon: %v", err)
		}
	})
	Bin(t, "wherryd")
	if err := d.Launch(); err != nil {
		t.Fatalf("daemon: %v\n%s", err, d.LogTail())
	}
	return d
}

// New prepares a daemon without starting it. The caller calls Close.
func New(opts Options) (*Daemon, error) {
	dir, err := os.MkdirTemp("/tmp", "wh-") // short, for unix sockets end at 107 bytes
	if err != nil {
		return nil, err
	}
	key := filepath.Base(dir)[3:]
	subnet, err := freeSubnet()
	if err != nil {
		return nil, err
	}
	d := &Daemon{
		Dir: dir, Socket: filepath.Join(dir, "api.sock"), DataRoot: filepath.Join(dir, "data"),
		ExecRoot: "/run/wh-" + key, Pidfile: filepath.Join(dir, "pid"),
		Bridge: "wt" + key, Subnet: subnet, Gateway: subnet.Addr().Next(),
		opts: opts, images: map[string]bool{},
	}
	if len(d.Bridge) > 15 {
		d.Bridge = d.Bridge[:15]
	}
	if opts.DataRoot != "" {
		d.DataRoot = opts.DataRoot
	}
	if d.logs, err = os.OpenFile(filepath.Join(dir, "log"), os.O_CREATE|os.O_APPEND|os.O_RDWR, 0o600); err != nil {
		return nil, err
	}
	d.before = TakeSnapshot()
	return d, d.WriteConfig(opts.Config)
}

// WriteConfig replaces daemon.json; Signal(SIGHUP) makes the daemon read it.
func (d *Daemon) WriteConfig(config map[string]any) error {
	if config == nil {
		config = map[string]any{}
	}
	data, err := json.Marshal(config)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(d.Dir, "daemon.json"), data, 0o600)
}

// Args is the command line without the program.
func (d *Daemon) Args() []string {
	pool := netip.PrefixFrom(d.Subnet.Addr(), 20).Masked()
	return append([]string{
		"-H", "unix://" + d.Socket,
		"--data-root", d.DataRoot, "--exec-root", d.ExecRoot, "--pidfile", d.Pidfile,
		"--config-file", filepath.Join(d.Dir, "daemon.json"),
		"--bridge", d.Bridge, "--bip", netip.PrefixFrom(d.Gateway, d.Subnet.Bits()).String(),
		"--default-address-pool", fmt.Sprintf("base=%s,size=26", pool),
		"--log-level", "debug",
	}, d.opts.Args...)
}

// Launch starts the daemon (again) and waits until it answers.
func (d *Daemon) Launch() error {
	cmd := exec.Command(binary("wherryd"), d.Args()...)
	cmd.Env = append(os.Environ(), d.opts.Env...)
	cmd.Stdout, cmd.Stderr = d.logs, d.logs
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	exited := make(chan struct{})
	if err := cmd.Start(); err != nil {
		return err
	}
	go func() { _ = cmd.Wait(); close(exited) }()
	d.mu.Lock()
	d.cmd, d.exited = cmd, exited
	d.mu.Unlock()
	return d.ready(exited)
}

func (d *Daemon) ready(exited <-chan struct{}) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		if status, _, err := d.Request(ctx, "GET", "/_ping", nil); err == nil && status == 200 {
			return nil
		}
		select {
		case <-exited:
			return errors.New("it ended before it was ready")
		case <-ctx.Done():
			return errors.New("not ready after 30 seconds")
		case <-tick.C:
		}
	}
}

// Pid of the daemon, 0 if it does not run.
func (d *Daemon) Pid() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.cmd == nil {
		return 0
	}
	select {
	case <-d.exited:
		return 0
	default:
		return d.cmd.Process.Pid
	}
}

// Signal sends a signal to the daemon.
func (d *Daemon) Signal(sig syscall.Signal) error {
	if pid := d.Pid(); pid != 0 {
		return syscall.Kill(pid, sig)
	}
	return os.ErrProcessDone
}

// Kill ends the daemon at once, as a crash would.
func (d *Daemon) Kill() error {
	err := d.Signal(syscall.SIGKILL)
	d.await(10 * time.Second)
	return err
}

// Stop ends the daemon gracefully.
func (d *Daemon) Stop() error {
	if err := d.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	if !d.await(30 * time.Second) {
		return errors.Join(errors.New("did not end within 30 seconds of SIGTERM"), d.Kill())
	}
	return nil
}

func (d *Daemon) await(limit time.Duration) bool {
	d.mu.Lock()
	exited := d.exited
	d.mu.Unlock()
	if exited == nil {
		return true
	}
	select {
	case <-exited:
		return true
	case <-time.After(limit):
		return false
	}
}

// LogTail is the end of what the daemon logged; of another engine, which is
// nil, nothing.
func (d *Daemon) LogTail() string {
	if d == nil {
		return ""
	}
	data, err := os.ReadFile(filepath.Join(d.Dir, "log"))
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	return "daemon log:\n\t" + strings.Join(lines[max(0, len(lines)-25):], "\n\t")
}

// Close removes all containers and networks, stops the daemon, checks that
// nothing is left and removes its directories.
func (d *Daemon) Close() error {
	var errs []error
	if d.cmd != nil {
		if d.Pid() == 0 {
			errs = append(errs, d.Launch()) // only a daemon can clean up after one that was killed
		}
		if !d.opts.KeepContainers {
			errs = append(errs, d.RemoveAll())
		}
		if d.Pid() != 0 {
			errs = append(errs, d.Stop())
		}
		errs = append(errs, d.checkGone())
	}
	errs = append(errs, d.logs.Close(), os.RemoveAll(d.ExecRoot))
	if err := errors.Join(errs...); err != nil && os.Getenv("WHERRY_TEST_KEEP") != "" {
		return fmt.Errorf("%w (kept %s)", err, d.Dir)
	} else if err != nil {
		tail := d.LogTail()
		return errors.Join(err, errors.New(tail), os.RemoveAll(d.Dir))
	}
	return os.RemoveAll(d.Dir)
}

// RemoveAll removes every container and every user-defined network.
func (d *Daemon) RemoveAll() error {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	var containers []struct{ ID string }
	if err := d.get(ctx, "/containers/json?all=1", &containers); err != nil {
		return err
	}
	var errs []error
	for _, c := range containers {
		status, body, err := d.Request(ctx, "DELETE", "/containers/"+c.ID+"?force=1&v=1", nil)
		if err != nil {
			errs = append(errs, err)
		} else if status != 204 && status != 404 {
			errs = append(errs, fmt.Errorf("remove container %.12s: %d %s", c.ID, status, body))
		}
	}
	var networks []struct{ ID, Name string }
	if err := d.get(ctx, "/networks", &networks); err != nil {
		return errors.Join(append(errs, err)...)
	}
	for _, n := range networks {
		if n.Name == "bridge" || n.Name == "host" || n.Name == "none" {
			continue
		}
		if status, body, err := d.Request(ctx, "DELETE", "/networks/"+n.ID, nil); err != nil || status != 204 {
			errs = append(errs, fmt.Errorf("remove network %s: %d %s %w", n.Name, status, body, err))
		}
	}
	return errors.Join(errs...)
}

func (d *Daemon) get(ctx context.Context, path string, into any) error {
	status, body, err := d.Request(ctx, "GET", path, nil)
	if err != nil {
		return err
	}
	if status != 200 {
		return fmt.Errorf("GET %s: %d %s", path, status, body)
	}
	return json.Unmarshal(body, into)
}

// binary is Bin without a test.
func binary(name string) string {
	if dir := os.Getenv("WHERRY_BIN"); dir != "" {
		return filepath.Join(dir, name)
	}
	return filepath.Join(SourceRoot(), "bin", name)
}

// freeSubnet picks a /24 at the start of a /20 of 10.128.0.0/9 that no
// interface of this machine touches.
func freeSubnet() (netip.Prefix, error) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return netip.Prefix{}, err
	}
next:
	for range 1000 {
		block := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(128 + rand.N(110)), byte(rand.N(16) * 16), 0}), 20)
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil && p.Masked().Overlaps(block) {
				continue next
			}
		}
		return netip.PrefixFrom(block.Addr(), 24), nil
	}
	return netip.Prefix{}, errors.New("no free subnet found")
}
