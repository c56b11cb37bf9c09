package exec

import (
	apicontainer "github.com/moby/moby/api/types/container"

	"github.com/wherry-engine/wherry/engine/detach"
)

// Inspect describes an exec.
func (x *Registry) Inspect(ex *Exec) apicontainer.ExecInspectResponse {
	st := x.State(ex)
	req := ex.Request
	keys, _ := detach.Parse(req.DetachKeys)
	out := apicontainer.ExecInspectResponse{
		ID: ex.ID, Running: st.Started && !st.Ended, ContainerID: string(ex.Container), Pid: st.Status.Pid,
		OpenStdin: req.AttachStdin, OpenStdout: req.AttachStdout, OpenStderr: req.AttachStderr, DetachKeys: keys,
		ProcessConfig: &apicontainer.ExecProcessConfig{
			Tty: req.Tty, Privileged: &req.Privileged, User: req.User, Arguments: []string{},
		},
	}
	if len(req.Cmd) > 0 {
		out.ProcessConfig.Entrypoint, out.ProcessConfig.Arguments = req.Cmd[0], req.Cmd[1:]
	}
	if st.Ended {
		out.ExitCode = &st.Status.ExitCode
	}
	return out
}
