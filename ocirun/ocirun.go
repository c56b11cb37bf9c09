// Package ocirun is the OCI runtime as a library: it turns a runtime-spec
// configuration into a running process. The supervisor calls it directly for
// every container; cmd/wherry-runtime wraps it in the OCI command line for
// other callers. It keeps no state on disk, reaps nobody and holds nothing once
// a call returned, except what it hands to the caller: those are the caller's
// (the supervisor's, or the OCI command's state file).
package ocirun

import (
	"os"
	"sync"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// CreateRequest is everything one container needs. The runtime duplicates the
// files it passes on; the caller closes its own.
type CreateRequest struct {
	ID   string
	Spec *specs.Spec
	// Root is a detached mount (fsmount, open_tree) of the root file system.
	// It is cloned, so that the caller's stays usable for a restart. Nil:
	// Spec.Root.Path is used.
	Root *os.File
	// A kernel before 6.15 cannot clone a detached mount: there Root must come
	// from Runtime.OpenRoot, which knows how.
	// NetNS, if not nil, replaces the path of the network namespace in Spec.
	NetNS *os.File
	// Join replaces the path of further namespaces: each descriptor is a
	// namespace of the key's type.
	Join map[specs.LinuxNamespaceType]*os.File
	// Stdin, Stdout and Stderr become the process's streams; nil is /dev/null.
	// Ignored when Spec.Process.Terminal is set: then Container.Console is the master.
	Stdin, Stdout, Stderr *os.File
	// User and Groups, when ResolveUser is set, are resolved inside the root
	// (see task.StartRequest); HOME is set if the spec's environment lacks it.
	ResolveUser bool
	User        string
	Groups      []string
	// Init puts the built-in reaper in front of the process as pid 1.
	Init bool
	// SystemdCgroup selects the systemd driver for Spec.Linux.CgroupsPath.
	SystemdCgroup bool
	// Width and Height of the terminal in cells; 0 leaves the kernel's choice,
	// or that of Spec.Process.ConsoleSize.
	Width, Height uint16
	// Bundle is the directory that hooks are told about.
	Bundle string
	// ExtraFiles become descriptors 3 and up of the process.
	ExtraFiles []*os.File
	// StartSocket is a listening unix stream socket. With it the container
	// outlives this process although it is not started: StartBy on a connection
	// to it does that later, and Container.Start must not be called.
	StartSocket *os.File
	// Born, if not nil, is called with the container (without Console) while
	// its init starts; an error of it ends the init and is Create's. It needs a
	// StartSocket, which may begin to listen in it.
	Born func(*Container) error
	// NoPivot uses chroot, for a host whose root is an initramfs.
	NoPivot bool
	// NoNewKeyring keeps the caller's session keyring.
	NoNewKeyring bool
}

// Container is a created container: its init waits for Start.
type Container struct {
	ID  string
	Pid int
	// PidFD refers to the init. The caller owns it.
	PidFD *os.File
	// Console is the pseudo-terminal's master, or nil. The caller owns it.
	Console *os.File
	// Cgroup is the path of the container's cgroup, relative to the hierarchy roots.
	Cgroup string
	// MountsBefore is for UnmountForeign; nil unless the container's mount
	// namespace is not its own.
	MountsBefore []int
	// Phases are what making it consisted of, in order.
	Phases []Phase

	r     *Runtime  // nil if it is another process's container
	init  *spawned  // its connection is the runtime's side of the handshake
	once  sync.Once // closes it
	agent *Agent    // or nil
}

// Phase is a part of making a container, and how long it took.
type Phase struct {
	Name string
	Took time.Duration
}

// StartError is why a process could not be executed inside its container.
type StartError struct {
	// Code is the exit code users expect: 127 not found, 126 not executable.
	Code int
	// Msg is the runtime's text, such as
	// `exec: "foo": executable file not found in $PATH`.
	Msg string
}

func (e *StartError) Error() string { return e.Msg }

// ExecRequest is a further process in a running container.
type ExecRequest struct {
	// ID and Bundle of the container, for a seccomp agent.
	ID, Bundle string
	// Pid and PidFD of the container's init.
	Pid     int
	PidFD   *os.File
	Spec    *specs.Spec // of the container: seccomp, apparmor, capabilities bounds
	Process *specs.Process
	Cgroup  string
	// SubCgroups are existing groups below Cgroup that the process enters
	// instead, by v1 controller; "" is all others, and v2.
	SubCgroups            map[string]string
	Stdin, Stdout, Stderr *os.File
	ResolveUser           bool
	User                  string
	Groups                []string
	Width, Height         uint16
	ExtraFiles            []*os.File
}

// Process is a started exec. The caller owns the files.
type Process struct {
	Pid     int
	PidFD   *os.File
	Console *os.File
}
