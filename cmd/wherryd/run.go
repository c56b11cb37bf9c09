package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime/debug"

	"github.com/wherry-engine/wherry/daemon"
	"github.com/wherry-engine/wherry/daemon/config"
	"github.com/wherry-engine/wherry/daemon/dataroot"
	"github.com/wherry-engine/wherry/daemon/listen"
	"github.com/wherry-engine/wherry/daemon/pidfile"
	"github.com/wherry-engine/wherry/internal/logbridge"
	"github.com/wherry-engine/wherry/internal/timerslack"
	"github.com/wherry-engine/wherry/internal/version"
)

// exitUsage is what a mistake on the command line ends with.
const exitUsage = 125

// run does what the command line asks for and returns the exit status.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	cfg, err := config.Load(args)
	var usage *config.UsageError
	switch {
	case errors.As(err, &usage):
		fmt.Fprintf(stderr, "%v\nSee 'wherryd --help'.\n", err)
		return exitUsage
	case err != nil:
		fmt.Fprintln(stderr, err)
		return 1
	case cfg.Help:
		fmt.Fprint(stdout, config.Usage())
		return 0
	case cfg.Version:
		fmt.Fprintf(stdout, "Wherry version %s, build %s\n", version.Version, version.Commit)
		return 0
	case cfg.Validate:
		fmt.Fprintln(stderr, "configuration OK")
		return 0
	}
	level := new(slog.LevelVar)
	level.Set(logLevel(cfg.Config))
	log := newLogger(stderr, cfg.LogFormat, level)
	logbridge.Install(log)
	for _, w := range cfg.Warnings {
		log.Warn(w)
	}
	ready, err := serve(ctx, args, cfg.Config, level, log)
	if err != nil && ready {
		log.Error("shutdown was not clean", "err", err)
		return 1
	}
	if err != nil {
		fmt.Fprintf(stderr, "failed to start daemon: %v\n", err)
		return 1
	}
	return 0
}

// serve takes possession of the directories, sockets and the pid file, builds
// the engine and answers until the end. All is given back on the way out.
// ready tells whether it ever came to answering.
func serve(ctx context.Context, args []string, cfg *config.Config, level *slog.LevelVar, log *slog.Logger) (ready bool, err error) {
	if os.Geteuid() != 0 {
		return false, errors.New("wherryd needs to be started with root privileges")
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(50) // memory is dearer than the collector's time here
	}
	timerslack.Relax()
	applyProxies(cfg.Proxies)
	root, err := dataroot.Open(cfg.DataRoot)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	execRoot, err := dataroot.LockExecRoot(cfg.ExecRoot)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, execRoot.Close()) }()
	if cfg.Pidfile != "" {
		if err := pidfile.Write(cfg.Pidfile); err != nil {
			return false, err
		}
		defer func() { err = errors.Join(err, pidfile.Remove(cfg.Pidfile)) }()
	}
	listeners, err := openListeners(cfg, log)
	if err != nil {
		return false, err
	}
	e, err := wire(ctx, args, cfg, level, log)
	if err != nil {
		return false, errors.Join(err, closeAll(listeners))
	}
	return true, daemon.Run(ctx, daemon.Options{
		Server: e.server, Listeners: listeners, Logger: log, DumpDir: cfg.ExecRoot,
		Reload: e.reload, Close: e.close,
	})
}

func openListeners(cfg *config.Config, log *slog.Logger) ([]net.Listener, error) {
	opts := listen.Options{Hosts: cfg.Hosts, Group: cfg.Group, GroupRequired: cfg.Group != config.DefaultGroup, Logger: log}
	if cfg.TLS.Enabled {
		t, err := listen.LoadTLS(cfg.TLS.CA, cfg.TLS.Cert, cfg.TLS.Key, cfg.TLS.Verify)
		if err != nil {
			return nil, fmt.Errorf("invalid TLS configuration: %w", err)
		}
		opts.TLS = t
	}
	return listen.All(opts)
}

func closeAll(ls []net.Listener) error {
	var errs []error
	for _, l := range ls {
		errs = append(errs, l.Close())
	}
	return errors.Join(errs...)
}

// applyProxies makes the settings those of every client in the process.
func applyProxies(p config.Proxies) {
	for name, v := range map[string]string{"HTTP_PROXY": p.HTTP, "HTTPS_PROXY": p.HTTPS, "NO_PROXY": p.No} {
		if v != "" {
			os.Setenv(name, v) // fails for impossible names only
		}
	}
}

// runtimeProgram finds wherry-runtime beside us, or on the path.
func runtimeProgram() string {
	const name = "wherry-runtime"
	if self, err := os.Executable(); err == nil {
		p := filepath.Join(filepath.Dir(self), name)
		if _, err := os.Stat(p); err == nil {
			return p
		}
	}
	for _, dir := range []string{"/usr/local/bin", "/usr/bin", "/usr/local/libexec/wherry", "/usr/libexec/wherry"} {
		p := filepath.Join(dir, name)
		if _, err := os.Stat(p); err == nil {
			return p
		}
	}
	return name
}
