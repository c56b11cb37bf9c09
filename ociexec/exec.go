package ociexec

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/internal/timerslack"
	"github.com/wherry-engine/wherry/keeper/exits"
	"github.com/wherry-engine/wherry/ocirun"
)

// Process is a started exec. It is nobody's child: whoever is subreaper adopts it.
type Process struct {
	Pid int
	// PidFD is nil if the process has ended already.
	PidFD   *os.File
	Console *os.File // the terminal's master, or nil
	// Since is a lower bound of the process's start time (clock ticks since
	// boot), by which its exit is told from one of an earlier process.
	Since uint64
}

// Exec runs a further process in the container. Its user is looked up in root.
// The filter of system calls is the container's.
func (c *Container) Exec(ctx context.Context, req *ocirun.ExecRequest, root *os.File, host Host) (*Process, error) {
	p := *req.Process
	if err := complete(&p, root, req.ResolveUser, req.User, req.Groups); err != nil {
		return nil, err
	}
	if !ownUsers(req.Spec) {
		p.Capabilities = held(p.Capabilities, host.Capabilities)
	}
	setSize(&p, req.Width, req.Height)
	b, err := json.Marshal(&p)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(c.Dir, "exec-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	if err := os.WriteFile(filepath.Join(dir, processFile), b, 0o600); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	return c.exec(ctx, req, &p, dir)
}

const processFile = "process.json"

// exec calls the runtime, with files in dir.
func (c *Container) exec(ctx context.Context, req *ocirun.ExecRequest, p *specs.Process, dir string) (*Process, error) {
	log, pids := filepath.Join(dir, logFile), filepath.Join(dir, pidFile)
	args := []string{"exec", "--detach", "--process", filepath.Join(dir, processFile), "--pid-file", pids}
	var con *console
	if p.Terminal {
		var err error
		if con, err = c.listen(req.Width, req.Height); err != nil {
			return nil, err
		}
		defer con.close()
		args = append(args, "--console-socket", con.path)
	}
	cmd := c.command(ctx, log, append(args, c.ID)...)
	if !p.Terminal {
		setStreams(cmd, req.Stdin, req.Stdout, req.Stderr)
	}
	if err := timerslack.Start(cmd.Start); err != nil {
		return nil, c.explain(err, log, nil, "")
	}
	since, _ := exits.StartTime(cmd.Process.Pid)
	if err := c.explain(wait(cmd.Wait()), log, nil, program(p)); err != nil {
		return nil, err
	}
	pid, fd, err := pidfd(pids)
	if err != nil && !errors.Is(err, unix.ESRCH) {
		return nil, err
	}
	out := &Process{Pid: pid, PidFD: fd, Since: since}
	if con == nil {
		return out, nil
	}
	if out.Console, err = con.receive(); err != nil {
		if fd != nil {
			_ = unix.PidfdSendSignal(int(fd.Fd()), unix.SIGKILL, nil, 0)
			_ = fd.Close()
		}
		return nil, err
	}
	return out, nil
}
