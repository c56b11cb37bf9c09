package cli

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/spf13/pflag"

	"github.com/wherry-engine/wherry/cli/opts"
	"github.com/wherry-engine/wherry/cli/terminal"
	"github.com/wherry-engine/wherry/client"
)

func execCommand() command {
	return command{
		group: "container", name: "exec", top: "exec", common: 2,
		usage: "[OPTIONS] CONTAINER COMMAND [ARG...]", short: "Execute a command in a running container",
		args: minArgs(2), oneWord: true,
		run: func(a *app, f *pflag.FlagSet) runFunc {
			e := &execer{a: a}
			f.BoolVarP(&e.detach, "detach", "d", false, "Detached mode: run command in the background")
			f.StringVar(&e.keys, "detach-keys", "", "Override the key sequence for detaching a container")
			f.VarP(newList(&e.env), "env", "e", "Set environment variables")
			f.Var(newList(&e.envFile), "env-file", "Read in a file of environment variables")
			f.BoolVarP(&e.stdin, "interactive", "i", false, "Keep STDIN open even if not attached")
			f.BoolVar(&e.privileged, "privileged", false, "Give extended privileges to the command")
			f.BoolVarP(&e.tty, "tty", "t", false, "Allocate a pseudo-TTY")
			f.StringVarP(&e.user, "user", "u", "", `Username or UID (format: "<name|uid>[:<group|gid>]")`)
			f.StringVarP(&e.workdir, "workdir", "w", "", "Working directory inside the container")
			return e.run
		},
	}
}

type execer struct {
	a                              *app
	detach, stdin, tty, privileged bool
	keys, user, workdir            string
	env, envFile                   []string
}

func (e *execer) run(ctx context.Context, args []string) error {
	env, err := opts.Env(e.envFile, e.env)
	if err != nil {
		return err
	}
	if _, err := terminal.ParseDetachKeys(e.a.detachKeys(e.keys)); err != nil {
		return err
	}
	if !e.detach {
		if err := e.a.checkTTY(e.stdin, e.tty); err != nil {
			return err
		}
	}
	req := container.ExecCreateRequest{
		User: e.user, Privileged: e.privileged, Tty: e.tty, Cmd: args[1:], Env: env, WorkingDir: e.workdir,
		DetachKeys: e.a.detachKeys(e.keys),
	}
	if !e.detach {
		req.AttachStdin, req.AttachStdout, req.AttachStderr = e.stdin, true, true
	}
	size := e.size()
	req.ConsoleSize = size
	cl, err := e.a.client()
	if err != nil {
		return err
	}
	var created container.ExecCreateResponse
	if err := cl.Post(ctx, containerPath(args[0], "exec"), nil, req, &created); err != nil {
		return err
	}
	path := "/exec/" + client.Segment(created.ID)
	start := container.ExecStartRequest{Detach: e.detach, Tty: e.tty, ConsoleSize: size}
	if e.detach {
		return cl.Post(ctx, path+"/start", nil, start, nil)
	}
	return e.interact(ctx, cl, path, start)
}

func (e *execer) size() *[2]uint {
	if !e.tty || e.detach {
		return nil
	}
	h, w := e.a.terminalSize()
	return &[2]uint{h, w}
}

func (e *execer) interact(ctx context.Context, cl *client.Client, path string, start container.ExecStartRequest) error {
	stream, err := cl.Hijack(ctx, client.Request{Method: http.MethodPost, Path: path + "/start", JSON: start})
	if err != nil {
		return err
	}
	s := &session{a: e.a, stream: stream, stdin: e.stdin, stdout: true, stderr: true, tty: e.tty, detachKeys: e.keys}
	if e.tty && terminal.Is(e.a.in) {
		defer e.a.followSize(ctx, cl, path+"/resize")()
	}
	if err := s.run(ctx); err != nil {
		if errors.Is(err, terminal.ErrDetached) {
			return nil
		}
		return err
	}
	return exitStatus(execCode(ctx, cl, path))
}

// execCode reads the exit code. The stream may end a moment before the daemon
// has noted the exit.
func execCode(ctx context.Context, cl *client.Client, path string) (int, error) {
	for wait := time.Millisecond; ; wait = min(2*wait, 100*time.Millisecond) {
		var r struct {
			Running  bool
			ExitCode *int
		}
		if err := cl.Get(ctx, path+"/json", nil, &r); err != nil {
			return 125, err
		}
		if !r.Running || wait > 64*time.Millisecond {
			if r.ExitCode == nil {
				return 0, nil
			}
			return *r.ExitCode, nil
		}
		select {
		case <-ctx.Done():
			return 125, context.Cause(ctx)
		case <-time.After(wait):
		}
	}
}
