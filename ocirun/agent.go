package ocirun

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/ocirun/wire"
)

// Agent decides on system calls of a container whose seccomp filter says
// SCMP_ACT_NOTIFY. It listens at a unix socket (config-linux.md, "Seccomp").
type Agent struct {
	// Path of its socket.
	Path string
	// State is what it is told besides the listener.
	State specs.ContainerProcessState
}

// AgentOf is the agent that a specification names, for its process pid; nil if
// its filter asks none. status is that of the container.
func AgentOf(req *CreateRequest, pid int, status specs.ContainerState) *Agent {
	if req.Spec == nil || req.Spec.Linux == nil || req.Spec.Linux.Seccomp == nil {
		return nil
	}
	s := req.Spec.Linux.Seccomp
	if s.DefaultAction != specs.ActNotify &&
		!slices.ContainsFunc(s.Syscalls, func(c specs.LinuxSyscall) bool { return c.Action == specs.ActNotify }) {
		return nil
	}
	return &Agent{Path: s.ListenerPath, State: specs.ContainerProcessState{
		Version: specs.Version, Fds: []string{specs.SeccompFdName}, Pid: pid, Metadata: s.ListenerMetadata,
		State: stateOf(req, pid, status),
	}}
}

// stateOf is what hooks and agents are told of a container.
func stateOf(req *CreateRequest, pid int, status specs.ContainerState) specs.State {
	return specs.State{
		Version: specs.Version, ID: req.ID, Status: status, Pid: pid, Bundle: req.Bundle, Annotations: req.Spec.Annotations,
	}
}

// handOver passes the listener of a message on and lets the init go on.
func (a *Agent) handOver(conn wire.Conn, msg *wire.Message) error {
	defer func() {
		for _, fd := range msg.FDs {
			unix.Close(fd)
		}
	}()
	if a == nil || len(msg.FDs) != 1 {
		return fmt.Errorf("init sent an unexpected seccomp listener (%d descriptors)", len(msg.FDs))
	}
	if err := a.send(msg.FDs[0]); err != nil {
		return fmt.Errorf("seccomp agent at %s: %w", a.Path, err)
	}
	return conn.Send(wire.KindContinue, nil)
}

// send makes the one connection for the one message.
func (a *Agent) send(listener int) error {
	body, err := json.Marshal(&a.State)
	if err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	defer unix.Close(fd)
	// Through its directory: the path may be longer than a socket's address.
	dir, err := os.Open(filepath.Dir(a.Path))
	if err != nil {
		return err
	}
	defer dir.Close()
	name := fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(a.Path))
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: name}); err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	rights := unix.UnixRights(listener)
	for len(body) > 0 {
		n, err := unix.SendmsgN(fd, body, rights, nil, unix.MSG_NOSIGNAL)
		if err != nil {
			return fmt.Errorf("send: %w", err)
		}
		body, rights = body[n:], nil
	}
	return nil
}
