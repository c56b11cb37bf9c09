package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"

	"github.com/moby/moby/api/types/container"
	"github.com/spf13/pflag"

	"github.com/wherry-engine/wherry/cli/terminal"
	"github.com/wherry-engine/wherry/client"
)

func runCommand() command {
	return command{
		group: "container", name: "run", top: "run", common: 1,
		usage: "[OPTIONS] IMAGE [COMMAND] [ARG...]", short: "Make a container from an image and start it",
		args: minArgs(1), oneWord: true,
		run: func(a *app, f *pflag.FlagSet) runFunc {
			r := &runner{a: a, containerFlags: newContainerFlags(f)}
			f.BoolVarP(&r.detach, "detach", "d", false, "Leave the container in the background and print its ID")
			f.BoolVar(&r.sigProxy, "sig-proxy", true, "Pass signals on to the container's process")
			f.StringVar(&r.keys, "detach-keys", "", "Keys that detach from the container, such as ctrl-p,ctrl-q")
			return r.run
		},
	}
}

// runner is one `run`.
type runner struct {
	*containerFlags
	a        *app
	detach   bool
	sigProxy bool
	keys     string
}

func (r *runner) run(ctx context.Context, args []string) error {
	req, err := r.request(r.a, args)
	if err != nil {
		return r.a.runError("run", err)
	}
	if err := r.prepare(req); err != nil {
		return err
	}
	cl, err := r.a.client()
	if err != nil {
		return err
	}
	id, err := r.a.create(ctx, cl, r.containerFlags, req, func() {
		if !r.attached(req) {
			return
		}
		if r.sigProxy {
			r.a.signals.watch()
		}
		cl.Ahead(ctx, 2) // wait, attach and start are under way at once
	})
	if err != nil {
		return r.a.runError("run", err)
	}
	if !r.attached(req) {
		return r.background(ctx, cl, id)
	}
	return r.foreground(ctx, cl, id, req)
}

// prepare applies -d, checks the terminal and tells its size.
func (r *runner) prepare(req container.CreateRequest) error {
	if r.detach {
		if len(r.attach) > 0 {
			return invalidf("conflicting options: cannot specify both --attach and --detach")
		}
		req.AttachStdin, req.AttachStdout, req.AttachStderr, req.StdinOnce = false, false, false, false
		return nil
	}
	if _, err := terminal.ParseDetachKeys(r.a.detachKeys(r.keys)); err != nil {
		return r.a.runError("run", err)
	}
	if err := r.a.checkTTY(req.AttachStdin, req.Tty); err != nil {
		return err
	}
	if req.Tty {
		h, w := r.a.terminalSize()
		req.HostConfig.ConsoleSize = [2]uint{h, w}
	}
	return nil
}

func (r *runner) attached(req container.CreateRequest) bool {
	return req.AttachStdin || req.AttachStdout || req.AttachStderr
}

func (r *runner) background(ctx context.Context, cl *client.Client, id string) error {
	if err := cl.Post(ctx, containerPath(id, "start"), nil, nil, nil); err != nil {
		return r.a.runError("run", err)
	}
	fmt.Fprintln(r.a.out, id)
	return nil
}

// foreground attaches and waits before it starts, so that no output and no
// exit code can be missed. The two requests travel at the same time.
func (r *runner) foreground(ctx context.Context, cl *client.Client, id string, req container.CreateRequest) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	runs := make(chan struct{})
	if r.sigProxy {
		defer r.a.proxySignals(ctx, cl, id, runs)()
	}
	s := &session{
		a: r.a, stdin: req.AttachStdin, stdout: req.AttachStdout, stderr: req.AttachStderr,
		tty: req.Tty, detachKeys: r.keys,
	}
	cond := container.WaitConditionNextExit
	if r.rm {
		cond = container.WaitConditionRemoved
	}
	wait, err := attachAndWait(ctx, cl, s, id, cond)
	if err != nil {
		return r.a.runError("run", err)
	}
	if err := cl.Post(ctx, containerPath(id, "start"), nil, nil, nil); err != nil {
		_ = s.stream.Close()
		var refused *client.Error
		if r.rm && errors.As(err, &refused) { // not so if the daemon died: it may never remove it
			_, _ = wait.code()
		}
		return r.a.runError("run", err)
	}
	close(runs)
	return r.finish(ctx, cl, s, wait, id)
}

func (r *runner) finish(ctx context.Context, cl *client.Client, s *session, wait *waiting, id string) error {
	if s.tty && terminal.Is(r.a.outFile()) {
		defer r.a.followSize(ctx, cl, containerPath(id, "resize"))()
	}
	onlyInput := !s.stdout && !s.stderr
	if onlyInput {
		fmt.Fprintln(r.a.out, id)
	}
	if err := s.run(ctx); err != nil {
		if errors.Is(err, terminal.ErrDetached) {
			return nil
		}
		return err
	}
	if onlyInput {
		return nil
	}
	return exitStatus(wait.code())
}

// attachAndWait opens the session's stream and registers for the exit, each on a
// connection of its own. The daemon works on both at once.
func attachAndWait(ctx context.Context, cl *client.Client, s *session, id string, cond container.WaitCondition) (*waiting, error) {
	attached, err := cl.SendHijack(ctx, attachRequest(s, id))
	if err != nil {
		return nil, err
	}
	wait, err := startWait(ctx, cl, id, cond)
	stream, aerr := attached()
	if aerr != nil {
		return nil, aerr
	}
	if err != nil {
		_ = stream.Close()
		return nil, err
	}
	s.stream = stream
	s.again = (&rejoiner{s: s, cl: cl, id: id, wait: wait}).again
	return wait, nil
}

// runError gives an error of run or create Docker's form and status: 127 for a
// command that is not in the image, 126 for one that cannot be executed, 125
// for the rest. The daemon has no other way to tell these than its text.
func (a *app) runError(verb string, err error) error {
	var st statusError
	var sig signalError
	if errors.As(err, &st) || errors.As(err, &sig) {
		return err
	}
	text := err.Error()
	code := 125
	var api *client.Error
	if errors.As(err, &api) {
		switch {
		case strings.Contains(text, "executable file not found"),
			strings.Contains(text, "no such file or directory"),
			strings.Contains(text, "system cannot find the file specified"):
			code = 127
		case strings.Contains(text, syscall.EACCES.Error()), strings.Contains(text, syscall.EISDIR.Error()):
			code = 126
		}
	}
	return statusError{code, fmt.Sprintf("%s: %s\n\nRun '%s %s --help' for more information", a.name, strings.TrimRight(a.message(err), "\n"), a.name, verb)}
}
