package command

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/ocirun"
)

func run(ctx context.Context, g *globals, args []string) error {
	var o createOptions
	fs := newFlags("run")
	o.flags(fs)
	fs.BoolVar(&o.detach, "detach", false, "do not wait for the container")
	fs.BoolVar(&o.detach, "d", false, "do not wait for the container")
	fs.BoolVar(&o.keep, "keep", false, "do not delete the container afterwards")
	id, err := oneID(fs, args)
	if err != nil {
		return err
	}
	keep := o.keep
	o.keep = true // as far as the terminal is concerned, this command stays
	c, r, err := g.create(ctx, id, &o)
	if err != nil {
		return err
	}
	restore := func() {}
	if c.Console != nil && o.consoleSocket == "" {
		if restore, err = proxy(c.Console); err != nil {
			return errors.Join(err, g.destroy(ctx, r, true))
		}
	}
	signals := make(chan os.Signal, 64)
	if !o.detach {
		signal.Notify(signals)
	}
	if err := g.start(ctx, r); err != nil {
		if _, lerr := g.load(r.ID); lerr != nil {
			return err // destroyed
		}
		return errors.Join(err, g.destroy(ctx, r, true))
	}
	if o.detach {
		return nil
	}
	code := attend(c.Pid, signals)
	restore()
	if !keep {
		if err := g.destroy(ctx, r, true); err != nil {
			return err
		}
	}
	return &exitError{code}
}

// attend hands signals on to a child until it ends and returns its exit code.
func attend(pid int, signals <-chan os.Signal) int {
	for {
		var ws unix.WaitStatus
		got, err := unix.Wait4(pid, &ws, unix.WNOHANG, nil)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return 1
		case got == pid && ws.Signaled():
			return 128 + int(ws.Signal())
		case got == pid:
			return ws.ExitStatus()
		}
		switch sig, _ := (<-signals).(syscall.Signal); sig {
		case unix.SIGCHLD, unix.SIGURG, unix.SIGWINCH:
		default:
			_ = unix.Kill(pid, sig)
		}
	}
}

// destroy removes a container and everything of it.
func (g *globals) destroy(ctx context.Context, r *record, force bool) error {
	rt, err := ocirun.New(ocirun.Options{Logger: g.logger(), Single: true})
	if err != nil {
		return err
	}
	defer rt.Close()
	return g.remove(ctx, rt, r, force)
}
