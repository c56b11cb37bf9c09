// Package daemon is the life of the daemon process: from listening sockets to
// the last answer, with what signals do in between. What it serves is made
// elsewhere (cmd/wherryd).
package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/daemon/notify"
)

// Server answers on listeners; api.Server implements it.
type Server interface {
	Serve(l net.Listener)
	// Shutdown ends streams and waits for other requests until ctx ends.
	Shutdown(ctx context.Context)
}

// Options for Run. All fields are required.
type Options struct {
	Server    Server
	Listeners []net.Listener
	// Reload reads the configuration again and applies what it can.
	Reload func(ctx context.Context) error
	// Close ends the engine after the last request. What runs may go on.
	Close func(ctx context.Context) error
	// DumpDir receives the stacks that SIGUSR1 asks for.
	DumpDir string
	Logger  *slog.Logger
}

// requestGrace is how long a shutdown waits for requests under way.
const requestGrace = 5 * time.Second

// Run serves until a signal ends it, and returns when everything is closed.
// A third signal to end exits at once.
func Run(ctx context.Context, o Options) error {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGUSR1)
	defer signal.Stop(signals)
	signal.Ignore(unix.SIGPIPE)

	for _, l := range o.Listeners {
		o.Logger.Info("API listens", "address", l.Addr().Network()+"://"+l.Addr().String())
		o.Server.Serve(l)
	}
	warn(o.Logger, notify.Ready())
	o.Logger.Info("daemon is ready")
	// What starting needed goes back to the system.
	trim()
	quiet, stop := context.WithCancel(ctx)
	trimming := make(chan struct{})
	go func() {
		defer close(trimming)
		trimWhenQuiet(quiet)
	}()
	defer func() { stop(); <-trimming }()

	for {
		select {
		case <-ctx.Done():
			return o.stop(ctx, signals)
		case sig := <-signals:
			switch sig {
			case unix.SIGHUP:
				o.reload(ctx)
			case unix.SIGUSR1:
				o.dump()
			default:
				o.Logger.Info("shutting down", "signal", sig.String())
				return o.stop(ctx, signals)
			}
		}
	}
}

func (o Options) reload(ctx context.Context) {
	warn(o.Logger, notify.Reloading())
	if err := o.Reload(ctx); err != nil {
		o.Logger.Error("reload configuration", "err", err)
	}
	warn(o.Logger, notify.Ready())
}

func (o Options) stop(ctx context.Context, signals <-chan os.Signal) error {
	warn(o.Logger, notify.Stopping())
	done := make(chan struct{})
	defer close(done)
	go forceExit(signals, done)

	ctx = context.WithoutCancel(ctx)
	grace, cancel := context.WithTimeout(ctx, requestGrace)
	defer cancel()
	o.Server.Shutdown(grace)
	return o.Close(ctx)
}

// forceExit ends the process when somebody insists.
func forceExit(signals <-chan os.Signal, done <-chan struct{}) {
	for more := 2; more > 0; {
		select {
		case <-done:
			return
		case sig := <-signals:
			if sig == syscall.SIGTERM || sig == syscall.SIGINT {
				more--
			}
		}
	}
	os.Exit(1)
}

// dump writes all stacks to a file, and says where.
func (o Options) dump() {
	buf := make([]byte, 64<<10)
	for {
		n := runtime.Stack(buf, true)
		if n < len(buf) {
			buf = buf[:n]
			break
		}
		buf = make([]byte, 2*len(buf))
	}
	path := filepath.Join(o.DumpDir, fmt.Sprintf("goroutine-stacks-%s.log", time.Now().UTC().Format("2006-01-02T150405Z")))
	if err := os.WriteFile(path, buf, 0o600); err != nil {
		o.Logger.Error("write goroutine stacks", "err", err)
		return
	}
	o.Logger.Info("goroutine stacks written", "path", path)
}

func warn(log *slog.Logger, err error) {
	if err != nil {
		log.Warn("service manager was not told", "err", err)
	}
}
