package exec

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	apicontainer "github.com/moby/moby/api/types/container"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/wherry-engine/wherry/container"
	"github.com/wherry-engine/wherry/engine/check"
	"github.com/wherry-engine/wherry/engine/detach"
	"github.com/wherry-engine/wherry/engine/spec"
	"github.com/wherry-engine/wherry/task"
)

// Message is what tells the supervisor to start an exec of a container, which
// has linkEnv from its links. InvalidArgument.
func (ex *Exec) Message(s *container.Spec, linkEnv []string) (task.ExecRequest, error) {
	req := ex.Request
	h := s.HostConfig
	privileged := req.Privileged || h.Privileged
	caps, err := spec.ExecCaps(h.CapAdd, h.CapDrop, privileged)
	if err != nil {
		return task.ExecRequest{}, err
	}
	sec, err := spec.ParseSecurity(h.SecurityOpt)
	if err != nil {
		return task.ExecRequest{}, err
	}
	env := spec.Env(s, linkEnv)
	if req.Tty {
		env = spec.MergeEnv([]string{"TERM=xterm"}, env)
	}
	keys, err := detach.Parse(req.DetachKeys)
	if err != nil {
		return task.ExecRequest{}, errdefs.ErrInvalidArgument.WithMessage(err.Error())
	}
	out := task.ExecRequest{
		ID: string(s.ID), ExecID: ex.ID, User: cmp.Or(req.User, s.Config.User),
		Process: &specs.Process{
			Terminal: req.Tty, Args: req.Cmd, Env: spec.MergeEnv(env, req.Env), Cwd: cmp.Or(req.WorkingDir, s.Config.WorkingDir, "/"),
			Capabilities:    &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps},
			NoNewPrivileges: sec.NoNewPrivileges != nil && *sec.NoNewPrivileges,
		},
		Stdio: task.Stdio{Terminal: req.Tty, OpenStdin: req.AttachStdin, StdinOnce: true},
		Attach: task.AttachRequest{
			Stdin: req.AttachStdin, Stdout: req.AttachStdout, Stderr: req.AttachStderr, DetachKeys: keys, Framed: !req.Tty,
		},
	}
	if size := req.ConsoleSize; size != nil {
		out.Stdio.Height, out.Stdio.Width = int(size[0]), int(size[1])
	}
	return out, nil
}

// Check validates what a user asks to be executed. InvalidArgument.
func Check(req apicontainer.ExecCreateRequest) error {
	if len(req.Cmd) == 0 {
		return errdefs.ErrInvalidArgument.WithMessage("no exec command specified")
	}
	if _, err := detach.Parse(req.DetachKeys); err != nil {
		return errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("Invalid detach keys (%s) provided", req.DetachKeys))
	}
	return check.Config(&apicontainer.Config{Env: withoutUnset(req.Env), WorkingDir: req.WorkingDir, Cmd: req.Cmd})
}

func withoutUnset(env []string) []string {
	var out []string
	for _, kv := range env {
		if strings.Contains(kv, "=") {
			out = append(out, kv)
		}
	}
	return out
}
