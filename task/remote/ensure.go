package remote

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

const (
	startLock = "start.lock"
	logFile   = "helpers.log"
	maxLog    = 1 << 20
	// logExcerpt is how much of the helpers' log an error quotes (bytes).
	logExcerpt = 600
)

// Ensure connects to the supervisor of an exec root, starting the helpers if
// none answers. Of several callers one starts them.
func Ensure(ctx context.Context, opts Options) (*Client, error) {
	if c, err := Dial(ctx, opts); err == nil {
		return c, nil
	}
	if err := os.MkdirAll(opts.ExecRoot, 0o711); err != nil {
		return nil, err
	}
	lock, err := os.OpenFile(filepath.Join(opts.ExecRoot, startLock), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return nil, fmt.Errorf("lock %s: %w", opts.ExecRoot, err)
	}
	if c, err := Dial(ctx, opts); err == nil {
		return c, nil
	}
	if keeperRuns(opts.ExecRoot) {
		return awaitSupervisor(ctx, opts)
	}
	if err := start(ctx, opts); err != nil {
		return nil, fmt.Errorf("start helpers: %w", err)
	}
	return Dial(ctx, opts)
}

// comeback is how long a keeper may take to start a supervisor again.
const comeback = 15 * time.Second

// keeperRuns tells whether a keeper holds its lock. Then a supervisor comes.
func keeperRuns(execRoot string) bool {
	f, err := os.OpenFile(filepath.Join(execRoot, "keeper.lock"), os.O_RDWR, 0)
	if err != nil {
		return false
	}
	defer f.Close()
	return errors.Is(unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB), unix.EWOULDBLOCK)
}

// awaitSupervisor connects as soon as a supervisor listens.
func awaitSupervisor(ctx context.Context, opts Options) (*Client, error) {
	ctx, cancel := context.WithTimeout(ctx, comeback)
	defer cancel()
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "inotify")
	defer f.Close()
	stop := context.AfterFunc(ctx, func() { _ = f.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := unix.InotifyAddWatch(fd, opts.ExecRoot, unix.IN_MOVED_TO); err != nil {
		return nil, fmt.Errorf("watch %s: %w", opts.ExecRoot, err)
	}
	buf := make([]byte, 4096)
	for {
		c, err := Dial(ctx, opts)
		if err == nil {
			return c, nil
		}
		if _, rerr := f.Read(buf); rerr != nil {
			return nil, fmt.Errorf("the keeper runs, but no supervisor came: %w", err)
		}
	}
}

// start runs a keeper in a session of its own and waits until its supervisor
// reports through a pipe.
func start(ctx context.Context, opts Options) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	defer w.Close()
	logf, err := openLog(filepath.Join(opts.ExecRoot, logFile))
	if err != nil {
		return err
	}
	defer logf.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	defer null.Close()
	argv := []string{filepath.Base(opts.Runtime), "keeper", "--exec-root", opts.ExecRoot, "--data-root", opts.DataRoot, "--ready-fd", "3"}
	p, err := os.StartProcess(opts.Runtime, argv, &os.ProcAttr{
		Dir: "/", Env: environment(), Files: []*os.File{null, logf, logf, w}, Sys: &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return fmt.Errorf("%s: %w: %w", opts.Runtime, err, errdefs.ErrUnavailable)
	}
	go func() { _, _ = p.Wait() }() // it outlives us, or we it
	_ = w.Close()
	if opts.Scope != nil {
		if err := opts.Scope(ctx, p.Pid); err != nil && opts.Logger != nil {
			opts.Logger.Warn("the helpers stay in the daemon's control group", "err", err)
		}
	}
	return awaitReady(ctx, r, logf.Name())
}

// awaitReady reads the report; without one the pipe's end tells of a failure.
func awaitReady(ctx context.Context, r *os.File, logName string) error {
	stop := context.AfterFunc(ctx, func() { _ = r.Close() })
	defer stop()
	buf := make([]byte, 16)
	n, err := r.Read(buf)
	if n > 0 {
		return nil
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return fmt.Errorf("the supervisor did not come up (%w); %s ends: %s: %w", err, logName, tailOf(logName), errdefs.ErrUnavailable)
}

func tailOf(name string) string {
	b, err := os.ReadFile(name)
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(b[max(0, len(b)-logExcerpt):]))
}

// openLog opens the helpers' log, emptied if it has grown.
func openLog(name string) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	if fi, err := f.Stat(); err == nil && fi.Size() > maxLog {
		if err := f.Truncate(0); err != nil {
			return nil, errors.Join(err, f.Close())
		}
	}
	return f, nil
}

// environment is what helpers need of ours; notification sockets and the like
// are the daemon's own.
func environment() []string {
	var env []string
	for _, e := range os.Environ() {
		k, _, _ := strings.Cut(e, "=")
		switch {
		case k == "NOTIFY_SOCKET", k == "WATCHDOG_USEC", k == "WATCHDOG_PID", strings.HasPrefix(k, "LISTEN_"):
		default:
			env = append(env, e)
		}
	}
	return env
}
