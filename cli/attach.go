package cli

import (
	"context"
	"errors"

	"github.com/moby/moby/api/types/container"
	"github.com/spf13/pflag"

	"github.com/wherry-engine/wherry/cli/terminal"
	"github.com/wherry-engine/wherry/client"
)

func attachCommand() command {
	return command{
		group: "container", name: "attach", top: "attach",
		usage: "[OPTIONS] CONTAINER", short: "Connect this terminal to a running container's main process",
		args: exactArgs(1),
		run: func(a *app, f *pflag.FlagSet) runFunc {
			t := &attacher{a: a}
			f.BoolVar(&t.noStdin, "no-stdin", false, "Leave the container's input alone")
			f.BoolVar(&t.sigProxy, "sig-proxy", true, "Pass signals on to the container's process")
			f.StringVar(&t.keys, "detach-keys", "", "Keys that detach from the container, such as ctrl-p,ctrl-q")
			return t.run
		},
	}
}

type attacher struct {
	a                 *app
	noStdin, sigProxy bool
	keys              string
}

func (t *attacher) run(ctx context.Context, args []string) error {
	cl, err := t.a.client()
	if err != nil {
		return err
	}
	c, err := inspectContainer(ctx, cl, args[0])
	if err != nil {
		return err
	}
	if err := attachable(c.State); err != nil {
		return err
	}
	s := &session{
		a: t.a, stdin: !t.noStdin && c.Config.OpenStdin, stdout: true, stderr: true,
		tty: c.Config.Tty, detachKeys: t.keys,
	}
	if err := t.a.checkTTY(s.stdin, s.tty); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if t.sigProxy && !s.tty {
		runs := make(chan struct{})
		close(runs)
		defer t.a.proxySignals(ctx, cl, c.ID, runs)()
	}
	wait, err := attachAndWait(ctx, cl, s, c.ID, container.WaitConditionNotRunning)
	if err != nil {
		return err
	}
	if s.tty && terminal.Is(t.a.outFile()) {
		path := containerPath(c.ID, "resize")
		t.a.redraw(ctx, cl, path)
		defer t.a.followSize(ctx, cl, path)()
	}
	if err := s.run(ctx); err != nil {
		if errors.Is(err, terminal.ErrDetached) {
			return statusError{0, err.Error()}
		}
		return err
	}
	return exitStatus(wait.code())
}

func attachable(st *container.State) error {
	switch {
	case !st.Running:
		return invalidf("You cannot attach to a stopped container, start it first")
	case st.Paused:
		return invalidf("You cannot attach to a paused container, unpause it first")
	case st.Restarting:
		return invalidf("You cannot attach to a restarting container, wait until it is running")
	}
	return nil
}

// redraw changes the remote size by one line, so that a program which only
// draws on a change of size does so for the new viewer.
func (a *app) redraw(ctx context.Context, cl *client.Client, path string) {
	if h, w := a.terminalSize(); h != 0 {
		_ = resizeTo(ctx, cl, path, h+1, w+1)
	}
}
