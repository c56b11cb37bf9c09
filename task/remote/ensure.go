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
	// A keeper that runs starts a supervisor, or dies and has to be replaced. A
	// dying supervisor may have started one as well, which came before ours.
	for try := 0; ; try++ {
		c, err := await(ctx, opts)
		if !errors.Is(err, errNoKeeper) {
			return c, err
		}
		if c, err = start(ctx, opts); err == nil {
			return c, nil
		}
		other, runs := keeperOf(opts.ExecRoot)
		if !runs || try == maxTries {
			return nil, fmt.Errorf("start helpers: %w", err)
		}
		_ = other.Close()
	}
}

// maxTries bounds how often helpers are started in vain.
const maxTries = 5

// comeback is how long helpers may take to come up.
const comeback = 15 * time.Second

var errNoKeeper = errors.New("no keeper runs")

// await connects as soon as a supervisor listens; errNoKeeper if none will come.
func await(ctx context.Context, opts Options) (*Client, error) {
	pidfd, ok := keeperOf(opts.ExecRoot)
	if !ok {
		return nil, errNoKeeper
	}
	defer pidfd.Close()
	ctx, cancel := context.WithTimeout(ctx, comeback)
	defer cancel()
	w, err := watchSocket(opts)
	if err != nil {
		return nil, err
	}
	defer w.Close()
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		_ = waitPidfd(ctx, pidfd)
		w.wake()
	}()
	defer func() { cancel(); <-gone }()
	c, err := w.dial(ctx)
	if err != nil && ctx.Err() == nil {
		return nil, errNoKeeper
	}
	return c, err
}

// keeperOf finds the keeper that holds the lock of an exec root.
func keeperOf(execRoot string) (*os.File, bool) {
	f, err := os.OpenFile(filepath.Join(execRoot, "keeper.lock"), os.O_RDWR, 0)
	if err != nil {
		return nil, false
	}
	defer f.Close()
	lock := unix.Flock_t{Type: unix.F_WRLCK}
	if err := unix.FcntlFlock(f.Fd(), unix.F_GETLK, &lock); err != nil || lock.Type == unix.F_UNLCK || lock.Pid <= 0 {
		return nil, false
	}
	fd, err := unix.PidfdOpen(int(lock.Pid), unix.PIDFD_NONBLOCK)
	if err != nil {
		return nil, false
	}
	return os.NewFile(uintptr(fd), "keeper"), true
}

// socketWatch waits for the supervisor's socket.
type socketWatch struct {
	opts Options
	f    *os.File // inotify
}

func watchSocket(opts Options) (*socketWatch, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, err
	}
	w := &socketWatch{opts, os.NewFile(uintptr(fd), "inotify")}
	if _, err := unix.InotifyAddWatch(fd, opts.ExecRoot, unix.IN_MOVED_TO); err != nil {
		return nil, errors.Join(fmt.Errorf("watch %s: %w", opts.ExecRoot, err), w.f.Close())
	}
	return w, nil
}

func (w *socketWatch) Close() { _ = w.f.Close() }

// wake ends a dial after a last attempt.
func (w *socketWatch) wake() { _ = w.f.SetReadDeadline(time.Unix(1, 0)) }

// dial connects when the socket works; it fails when the context ends or after wake.
func (w *socketWatch) dial(ctx context.Context) (*Client, error) {
	stop := context.AfterFunc(ctx, w.wake)
	defer stop()
	buf := make([]byte, 4096)
	for last := false; ; {
		c, err := Dial(ctx, w.opts)
		if err == nil {
			return c, nil
		}
		if last {
			return nil, errors.Join(err, ctx.Err())
		}
		if _, rerr := w.f.Read(buf); rerr != nil {
			last = true
		}
	}
}

// start runs a keeper in a session of its own and waits for a supervisor. A
// pipe that only helpers hold tells of their failure.
func start(ctx context.Context, opts Options) (*Client, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	defer w.Close()
	socket, err := watchSocket(opts)
	if err != nil {
		return nil, err
	}
	defer socket.Close()
	logName := filepath.Join(opts.ExecRoot, logFile)
	pid, err := spawnKeeper(opts, logName, w)
	if err != nil {
		return nil, err
	}
	_ = w.Close()
	if opts.Scope != nil {
		if err := opts.Scope(ctx, pid); err != nil && opts.Logger != nil {
			opts.Logger.Warn("the helpers stay in the daemon's control group", "err", err)
		}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = r.Read(make([]byte, 16)) // "ready", or the end of all who could say so
		socket.wake()
	}()
	c, err := socket.dial(ctx)
	_ = r.Close()
	<-done
	if err != nil && ctx.Err() == nil {
		err = fmt.Errorf("the supervisor did not come up; %s ends: %s: %w", logName, tailOf(logName), errdefs.ErrUnavailable)
	}
	return c, err
}

func spawnKeeper(opts Options, logName string, ready *os.File) (pid int, err error) {
	logf, err := openLog(logName)
	if err != nil {
		return 0, err
	}
	defer logf.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		return 0, err
	}
	defer null.Close()
	argv := []string{filepath.Base(opts.Runtime), "keeper", "--exec-root", opts.ExecRoot, "--data-root", opts.DataRoot, "--ready-fd", "3"}
	p, err := os.StartProcess(opts.Runtime, argv, &os.ProcAttr{
		Dir: "/", Env: environment(), Files: []*os.File{null, logf, logf, ready}, Sys: &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return 0, fmt.Errorf("%s: %w: %w", opts.Runtime, err, errdefs.ErrUnavailable)
	}
	pid = p.Pid
	go func() { _, _ = p.Wait() }() // it outlives us, or we it
	return pid, nil
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
