package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
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
		usage: "[OPTIONS] CONTAINER COMMAND [ARG...]", short: "Run one more command in a running container",
		args: minArgs(2), oneWord: true,
		run: func(a *app, f *pflag.FlagSet) runFunc {
			e := &execer{a: a}
			f.BoolVarP(&e.detach, "detach", "d", false, "Leave the command running in the background")
			f.StringVar(&e.keys, "detach-keys", "", "Keys that detach from the container, such as ctrl-p,ctrl-q")
			f.VarP(newList(&e.env), "env", "e", "Environment variable (KEY=VALUE, or KEY to copy it from here)")
			f.Var(newList(&e.envFile), "env-file", "File with one KEY=VALUE variable a line")
			f.BoolVarP(&e.stdin, "interactive", "i", false, "Keep the process's input open")
			f.BoolVar(&e.privileged, "privileged", false, "Run the command with all capabilities")
			f.BoolVarP(&e.tty, "tty", "t", false, "Give the process a terminal")
			f.StringVarP(&e.user, "user", "u", "", "User to run as, by name or number (USER[:GROUP])")
			f.StringVarP(&e.workdir, "workdir", "w", "", "Directory to run the process in")
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
	x := &execSession{s: s, cl: cl, path: path, start: start}
	s.again = x.again
	if e.tty && terminal.Is(e.a.in) {
		defer e.a.followSize(ctx, cl, path+"/resize")()
	}
	err = s.run(ctx)
	if errors.Is(err, terminal.ErrDetached) {
		return nil
	}
	if err != nil && !x.over {
		return err
	}
	return exitStatus(x.code, x.err)
}

// execSession is an exec whose streams may be taken up again.
type execSession struct {
	s     *session
	cl    *client.Client
	path  string
	start container.ExecStartRequest
	// over: nothing follows; code is how it ended, unless err says why that is
	// not known.
	over bool
	code int
	err  error
}

// again follows the end of the stream: it waits for the exit code, or takes the
// streams up again if it was the daemon that ended, through which they went.
func (x *execSession) again(ctx context.Context) (*client.Hijacked, error) {
	x.over = true
	cut, refused := false, false
	began := time.Now()
	for wait := time.Millisecond; ; wait = min(2*wait, knock) {
		var st struct {
			Running  bool
			ExitCode *int
		}
		get := func() error { return x.cl.Get(ctx, x.path+"/json", nil, &st) }
		err := get()
		if unreachable(err) {
			cut, err = true, patiently(ctx, get)
		}
		switch {
		case err != nil:
			x.code, x.err = 125, err
			return nil, nil
		case !st.Running:
			if st.ExitCode != nil {
				x.code = *st.ExitCode
			}
			return nil, nil
		case cut && !refused:
			stream, err := x.rejoin(ctx)
			if err == nil {
				x.over = false
				return stream, nil
			}
			refused = true // it is about to end, or the daemon knows no such request
		case !cut && time.Since(began) > lag:
			return nil, nil // it has closed its streams and goes on
		}
		select {
		case <-ctx.Done():
			x.code, x.err = 125, context.Cause(ctx)
			return nil, nil
		case <-time.After(wait):
		}
	}
}

func (x *execSession) rejoin(ctx context.Context) (*client.Hijacked, error) {
	stream, err := x.cl.Hijack(ctx, client.Request{Method: http.MethodPost, Path: x.path + "/start", Query: url.Values{"again": {"1"}}, JSON: x.start})
	if err != nil {
		return nil, err
	}
	a := x.s.a
	if !x.s.tty {
		fmt.Fprintln(a.err, a.name+": the connection was cut and is taken up again; what was written in between is lost")
	} else if terminal.Is(a.outFile()) {
		a.redraw(ctx, x.cl, x.path+"/resize")
	}
	return stream, nil
}
