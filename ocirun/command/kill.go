package command

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"syscall"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

func kill(_ context.Context, g *globals, args []string) error {
	fs := newFlags("kill")
	all := fs.Bool("all", false, "signal every process of the container")
	fs.BoolVar(all, "a", false, "signal every process of the container")
	if err := fs.Parse(args); err != nil {
		return err
	}
	id, name := fs.Arg(0), "SIGTERM"
	if fs.NArg() > 1 {
		name = fs.Arg(1)
	}
	if id == "" || fs.NArg() > 2 {
		return fmt.Errorf("kill: want the name of a container and a signal: %w", errdefs.ErrInvalidArgument)
	}
	if err := checkID(id); err != nil {
		return err
	}
	sig, err := parseSignal(name)
	if err != nil {
		return err
	}
	rt, r, err := g.open(id)
	if err != nil {
		return err
	}
	defer rt.Close()
	if *all {
		return rt.KillAll(r.Cgroup, sig)
	}
	fd, err := r.pidfd()
	if err != nil {
		return err
	}
	defer fd.Close()
	err = unix.PidfdSendSignal(int(fd.Fd()), sig, nil, 0)
	if errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("container %s is not running: %w", id, errdefs.ErrFailedPrecondition)
	}
	// A frozen process dies only once it is thawed.
	if paused, perr := rt.Paused(r.Cgroup); err == nil && perr == nil && paused && sig == unix.SIGKILL {
		return rt.Resume(context.Background(), r.Cgroup)
	}
	return err
}

func parseSignal(name string) (syscall.Signal, error) {
	if n, err := strconv.Atoi(name); err == nil && n >= 0 && n <= 64 {
		return syscall.Signal(n), nil
	}
	upper := strings.ToUpper(name)
	if !strings.HasPrefix(upper, "SIG") {
		upper = "SIG" + upper
	}
	if s := unix.SignalNum(upper); s != 0 {
		return s, nil
	}
	for _, base := range []struct {
		prefix string
		from   int
		sign   int
	}{{"SIGRTMIN", 34, 1}, {"SIGRTMAX", 64, -1}} {
		if rest, ok := strings.CutPrefix(upper, base.prefix); ok {
			n := 0
			if rest != "" {
				var err error
				if n, err = strconv.Atoi(rest[1:]); err != nil {
					break
				}
			}
			if s := base.from + base.sign*n; s >= 34 && s <= 64 {
				return syscall.Signal(s), nil
			}
		}
	}
	return 0, fmt.Errorf("unknown signal %q: %w", name, errdefs.ErrInvalidArgument)
}
