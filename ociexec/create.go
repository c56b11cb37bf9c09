package ociexec

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"syscall"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/internal/timerslack"
	"github.com/wherry-engine/wherry/ocirun"
	"github.com/wherry-engine/wherry/ocirun/initproc"
)

// Host is what the runtime may give containers, and the program that becomes
// their pid 1 if one is asked for.
type Host struct {
	// Capabilities are those that can be given: others are left out, since a
	// runtime without them fails.
	Capabilities []string
	// Init is the path of wherry-runtime.
	Init string
}

// Create makes the container's process, which waits for Start. req.Root is a
// detached mount, which goes to the runtime; the caller's file is left as it
// is. On error nothing is left behind. A *ocirun.StartError tells that the
// program cannot be run, NotImplemented what another runtime cannot be told.
func (c *Container) Create(ctx context.Context, req *ocirun.CreateRequest, host Host) (created *Created, err error) {
	switch {
	case req.SystemdCgroup:
		return nil, fmt.Errorf("the systemd cgroup driver with another runtime: %w", errdefs.ErrNotImplemented)
	case req.Root == nil:
		return nil, fmt.Errorf("a container of another runtime without a root: %w", errdefs.ErrInvalidArgument)
	case slices.ContainsFunc(req.Spec.Mounts, func(m specs.Mount) bool { return ocirun.Subpath(&m) != "" }):
		// It would follow the path itself, which containers that share the volume
		// can lead anywhere.
		return nil, fmt.Errorf("a part of a volume with another runtime: %w", errdefs.ErrNotImplemented)
	case len(req.ExtraFiles) > 0:
		return nil, fmt.Errorf("further descriptors with another runtime: %w", errdefs.ErrNotImplemented)
	}
	if err := c.Delete(ctx); err != nil { // what a killed start left
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Delete(context.WithoutCancel(ctx)))
		}
	}()
	// The runtime changes to other users on its way to the root.
	if err := errors.Join(os.MkdirAll(filepath.Dir(c.Dir), 0o711), os.Mkdir(c.Dir, 0o711), os.Mkdir(filepath.Join(c.Dir, rootDir), 0o755)); err != nil {
		return nil, err
	}
	spec, err := c.bundle(req, host)
	if err != nil {
		return nil, err
	}
	b, err := json.Marshal(spec)
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(c.Dir, configFile), b, 0o600); err != nil {
		return nil, err
	}
	return c.create(ctx, req, spec.Process)
}

func (c *Container) create(ctx context.Context, req *ocirun.CreateRequest, p *specs.Process) (*Created, error) {
	log, pids := filepath.Join(c.Dir, logFile), filepath.Join(c.Dir, pidFile)
	args := []string{"create", "--bundle", c.Dir, "--pid-file", pids}
	if req.NoPivot {
		args = append(args, "--no-pivot")
	}
	if req.NoNewKeyring {
		args = append(args, "--no-new-keyring")
	}
	var con *console
	if p.Terminal {
		var err error
		if con, err = c.listen(req.Width, req.Height); err != nil {
			return nil, err
		}
		defer con.close()
		args = append(args, "--console-socket", con.path)
	}
	ctx, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	cmd := c.command(ctx, log, append(args, c.ID)...)
	if !p.Terminal {
		setStreams(cmd, req.Stdin, req.Stdout, req.Stderr)
	}
	if err := c.explain(runOnRoot(cmd, req.Root, filepath.Join(c.Dir, rootDir)), log, nil, program(p)); err != nil {
		return nil, err
	}
	pid, fd, err := pidfd(pids)
	if err != nil {
		return nil, err
	}
	out := &Created{Pid: pid, PidFD: fd}
	if con != nil {
		if out.Console, err = con.receive(); err != nil {
			fd.Close()
			return nil, err
		}
	}
	return out, nil
}

// program is the name of what a process executes.
func program(p *specs.Process) string {
	if len(p.Args) == 0 {
		return ""
	}
	return p.Args[0]
}

// setStreams hands the process's streams to the runtime, which passes them on;
// nil is /dev/null.
func setStreams(cmd *exec.Cmd, in, out, errs *os.File) {
	if in != nil {
		cmd.Stdin = in
	}
	if out != nil {
		cmd.Stdout = out
	}
	if errs != nil {
		cmd.Stderr = errs
	}
}

// runOnRoot runs a command that finds the mount root at dir, where nobody else
// does: it has a mount namespace of its own, which ends with it, and what the
// host unmounts goes there, too. It dies with this process.
func runOnRoot(cmd *exec.Cmd, root *os.File, dir string) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	done := make(chan error, 1)
	go func() {
		// The thread, whose namespace nobody may meet again, ends with this
		// goroutine: it is never unlocked. It is the command's parent, whose end
		// would be the command's.
		runtime.LockOSThread()
		timerslack.Reset()
		if err := enterOnRoot(root, dir); err != nil {
			done <- err
			return
		}
		done <- wait(cmd.Run())
	}()
	return <-done
}

func enterOnRoot(root *os.File, dir string) error {
	if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("private mount namespace: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_SLAVE|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("private mount namespace: %w", err)
	}
	if err := unix.MoveMount(int(root.Fd()), "", unix.AT_FDCWD, dir, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("attach the root: %w", err)
	}
	return nil
}

// specVersion is the version that all runtimes take; crun 1.8 refuses later
// ones, which only add what a runtime may pass over.
const specVersion = "1.0.2"

// bundle is the container's specification as another runtime takes it: with
// paths where ours has descriptors, and the user as numbers.
func (c *Container) bundle(req *ocirun.CreateRequest, host Host) (*specs.Spec, error) {
	spec, process, linux := *req.Spec, *req.Spec.Process, specs.Linux{}
	if req.Spec.Linux != nil {
		linux = *req.Spec.Linux
	}
	spec.Version, spec.Process, spec.Linux = specVersion, &process, &linux
	spec.Root = &specs.Root{Path: rootDir}
	if r := req.Spec.Root; r != nil {
		spec.Root.Readonly = r.Readonly
	}
	linux.Namespaces = join(linux.Namespaces, req)
	if !ownUsers(req.Spec) {
		process.Capabilities = held(process.Capabilities, host.Capabilities)
	}
	if err := complete(&process, req.Root, req.ResolveUser, req.User, req.Groups); err != nil {
		return nil, err
	}
	setSize(&process, req.Width, req.Height)
	if req.Init {
		if host.Init == "" {
			return nil, fmt.Errorf("an init with another runtime: %w", errdefs.ErrNotImplemented)
		}
		addInit(&spec, host.Init)
	}
	return &spec, nil
}

// ownUsers tells that the container has a user namespace: in it, all
// capabilities can be given.
func ownUsers(spec *specs.Spec) bool {
	return spec != nil && spec.Linux != nil && slices.ContainsFunc(spec.Linux.Namespaces, func(ns specs.LinuxNamespace) bool {
		return ns.Type == specs.UserNamespace
	})
}

// join names the namespaces to be entered by descriptors of this process.
func join(all []specs.LinuxNamespace, req *ocirun.CreateRequest) []specs.LinuxNamespace {
	var out []specs.LinuxNamespace
	files := map[specs.LinuxNamespaceType]*os.File{}
	for t, f := range req.Join {
		files[t] = f
	}
	if req.NetNS != nil {
		files[specs.NetworkNamespace] = req.NetNS
	}
	for _, ns := range all {
		if files[ns.Type] == nil {
			out = append(out, ns)
		}
	}
	for _, t := range []specs.LinuxNamespaceType{
		specs.UserNamespace, specs.PIDNamespace, specs.NetworkNamespace, specs.IPCNamespace, specs.UTSNamespace, specs.CgroupNamespace, specs.MountNamespace,
	} {
		if f := files[t]; f != nil {
			out = append(out, specs.LinuxNamespace{Type: t, Path: "/proc/" + strconv.Itoa(os.Getpid()) + "/fd/" + strconv.Itoa(int(f.Fd()))})
		}
	}
	return out
}

// held leaves out the capabilities that cannot be given.
func held(c *specs.LinuxCapabilities, all []string) *specs.LinuxCapabilities {
	if c == nil {
		return nil
	}
	known := make(map[string]bool, len(all))
	for _, name := range all {
		known[name] = true
	}
	filter := func(names []string) (out []string) {
		for _, n := range names {
			if known[n] {
				out = append(out, n)
			}
		}
		return out
	}
	return &specs.LinuxCapabilities{
		Bounding: filter(c.Bounding), Effective: filter(c.Effective), Permitted: filter(c.Permitted),
		Inheritable: filter(c.Inheritable), Ambient: filter(c.Ambient),
	}
}

// initPath is where a container finds the init; others have it there, too.
const initPath = "/sbin/docker-init"

// addInit puts our init in front of the process. Its program is mounted
// read-only: a container has no other way to the host's file.
func addInit(spec *specs.Spec, program string) {
	spec.Mounts = append(append([]specs.Mount{}, spec.Mounts...), specs.Mount{
		Destination: initPath, Type: "bind", Source: program, Options: []string{"bind", "ro", "nosuid", "nodev"},
	})
	spec.Process.Args, spec.Process.Env = initproc.Reaper(initPath, spec.Process.Args, spec.Process.Env)
}

func setSize(p *specs.Process, width, height uint16) {
	if p.Terminal && width > 0 && height > 0 {
		p.ConsoleSize = &specs.Box{Width: uint(width), Height: uint(height)}
	}
}
