package supervisor

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/internal/timerslack"
	"github.com/wherry-engine/wherry/keeper"
	"github.com/wherry-engine/wherry/keeper/fdstore"
	"github.com/wherry-engine/wherry/keeper/successor"
	"github.com/wherry-engine/wherry/ocirun"
)

// Main is the face of wherry-runtime; it returns the exit code.
func Main(args []string) int {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil)).With("helper", "supervisor")
	if err := mainErr(args, log); err != nil {
		log.Error("supervisor ends", "err", err)
		return 1
	}
	return 0
}

func mainErr(args []string, log *slog.Logger) error {
	fs := flag.NewFlagSet("supervisor", flag.ContinueOnError)
	execRoot := fs.String("exec-root", "", "directory of sockets and task state")
	dataRoot := fs.String("data-root", "", "the daemon's data directory")
	readyFD := fs.Int("ready-fd", -1, "descriptor to write to when ready")
	takes := fs.Int(successor.TakesFlag, -1, "only tell whether state of this version is gone on with")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if *takes >= 0 {
		return successor.Takes(role, *takes, oldestState, stateVersion)
	}
	if *execRoot == "" {
		return errors.New("--exec-root is missing")
	}
	if *readyFD >= 0 {
		unix.CloseOnExec(*readyFD)
	}
	debug.SetGCPercent(50)
	timerslack.Relax()
	keeper.RaiseFileLimit()
	signal.Ignore(syscall.SIGHUP, syscall.SIGINT, syscall.SIGPIPE)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	lock, err := lockRoot(*execRoot)
	if err != nil {
		return err
	}
	defer lock.Close()
	rt, err := ocirun.New(ocirun.Options{Logger: log})
	if err != nil {
		return fmt.Errorf("runtime: %w", err)
	}
	s, err := newSupervisor(options{execRoot: *execRoot, dataRoot: *dataRoot, log: log, rt: builtin{rt}})
	if err != nil {
		return err
	}
	return s.run(ctx, func() { report(*readyFD) })
}

// report tells whoever started the helpers that they work.
func report(fd int) {
	if fd < 0 {
		return
	}
	f := os.NewFile(uintptr(fd), "ready")
	_, _ = f.WriteString("ready\n")
	_ = f.Close()
}

// lockRoot waits until a dying predecessor is gone.
func lockRoot(execRoot string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(execRoot, fdstore.SupervisorLock), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX)
		if err == nil {
			return f, nil
		}
		if err != unix.EINTR {
			return nil, errors.Join(err, f.Close())
		}
	}
}

func msec(n int64) time.Duration { return time.Duration(n) * time.Millisecond }
