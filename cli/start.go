package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/spf13/pflag"

	"github.com/wherry-engine/wherry/cli/terminal"
	"github.com/wherry-engine/wherry/client"
)

func startCommand() command {
	return command{
		group: "container", name: "start", top: "start",
		usage: "[OPTIONS] CONTAINER [CONTAINER...]", short: "Start containers that are not running",
		args: minArgs(1),
		run: func(a *app, f *pflag.FlagSet) runFunc {
			s := &starter{a: a}
			f.BoolVarP(&s.attach, "attach", "a", false, "Show the container's output and pass signals to it")
			f.BoolVarP(&s.stdin, "interactive", "i", false, "Connect this terminal's input to the container")
			f.StringVar(&s.keys, "detach-keys", "", "Keys that detach from the container, such as ctrl-p,ctrl-q")
			refuse(f, "checkpoint", "checkpoint-dir")
			return s.run
		},
	}
}

type starter struct {
	a             *app
	attach, stdin bool
	keys          string
}

func (s *starter) run(ctx context.Context, args []string) error {
	cl, err := s.a.client()
	if err != nil {
		return err
	}
	if !s.attach && !s.stdin {
		return s.startAll(ctx, cl, args)
	}
	if len(args) > 1 {
		return invalidf("you cannot start and attach multiple containers at once")
	}
	return s.startAttached(ctx, cl, args[0])
}

func (s *starter) startAll(ctx context.Context, cl *client.Client, names []string) error {
	var failed []string
	for _, n := range names {
		err := cl.Post(ctx, containerPath(n, "start"), nil, nil, nil)
		var conn *client.ConnError
		switch {
		case err == nil:
			fmt.Fprintln(s.a.out, n)
		case errors.As(err, &conn):
			return err
		default:
			fmt.Fprintln(s.a.err, s.a.message(err))
			failed = append(failed, n)
		}
	}
	if failed != nil {
		return statusError{1, "Error: failed to start containers: " + strings.Join(failed, ", ")}
	}
	return nil
}

func (s *starter) startAttached(ctx context.Context, cl *client.Client, name string) error {
	c, err := inspectContainer(ctx, cl, name)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	sess := &session{
		a: s.a, stdin: s.stdin && c.Config.OpenStdin, stdout: true, stderr: true,
		tty: c.Config.Tty, detachKeys: s.keys,
	}
	if err := s.a.checkTTY(sess.stdin, sess.tty); err != nil {
		return err
	}
	runs := make(chan struct{})
	if !sess.tty {
		defer s.a.proxySignals(ctx, cl, c.ID, runs)()
	}
	cond := container.WaitConditionNextExit
	if c.HostConfig.AutoRemove {
		cond = container.WaitConditionRemoved
	}
	wait, err := attachAndWait(ctx, cl, sess, c.ID, cond)
	if err != nil {
		return err
	}
	if err := cl.Post(ctx, containerPath(c.ID, "start"), nil, nil, nil); err != nil {
		_ = sess.stream.Close()
		return err
	}
	close(runs)
	if sess.tty && terminal.Is(s.a.outFile()) {
		defer s.a.followSize(ctx, cl, containerPath(c.ID, "resize"))()
	}
	if err := sess.run(ctx); err != nil {
		if errors.Is(err, terminal.ErrDetached) {
			return nil
		}
		return err
	}
	return exitStatus(wait.code())
}
