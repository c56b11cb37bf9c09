package command

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/internal/coldjson"
	"github.com/wherry-engine/wherry/ocirun"
)

// createOptions are those of create and run.
type createOptions struct {
	bundle, consoleSocket string
	pidFile               pidFile
	noPivot, noNewKeyring bool
	preserveFDs           int
	detach, keep          bool
}

func (o *createOptions) flags(fs *flag.FlagSet) {
	fs.StringVar(&o.bundle, "bundle", ".", "directory of the bundle")
	fs.StringVar(&o.bundle, "b", ".", "directory of the bundle")
	fs.StringVar(&o.consoleSocket, "console-socket", "", "unix socket that receives the terminal")
	fs.StringVar((*string)(&o.pidFile), "pid-file", "", "file to write the process id to")
	fs.BoolVar(&o.noPivot, "no-pivot", false, "use chroot instead of pivot_root")
	fs.BoolVar(&o.noNewKeyring, "no-new-keyring", false, "keep the session keyring")
	fs.IntVar(&o.preserveFDs, "preserve-fds", 0, "number of further descriptors to pass")
	fs.Bool("no-subreaper", false, "accepted for other callers' sake")
}

func create(ctx context.Context, g *globals, args []string) error {
	var o createOptions
	fs := newFlags("create")
	o.flags(fs)
	id, err := oneID(fs, args)
	if err != nil {
		return err
	}
	c, _, err := g.create(ctx, id, &o)
	if err != nil {
		return err
	}
	if c.Console == nil {
		return nil
	}
	return c.Console.Close()
}

// loadSpec reads config.json of a bundle.
func loadSpec(bundle string) (*specs.Spec, error) {
	b, err := os.ReadFile(filepath.Join(bundle, "config.json"))
	if err != nil {
		return nil, fmt.Errorf("read the specification: %w", err)
	}
	var s specs.Spec
	if err := coldjson.Unmarshal(b, &s); err != nil {
		return nil, fmt.Errorf("parse config.json: %w", err)
	}
	if s.Process == nil || s.Root == nil || s.Linux == nil {
		return nil, fmt.Errorf("config.json lacks its process, root or linux section: %w", errdefs.ErrInvalidArgument)
	}
	if s.Process.Cwd == "" {
		return nil, fmt.Errorf("config.json lacks the working directory of its process: %w", errdefs.ErrInvalidArgument)
	}
	if !strings.HasPrefix(s.Version, "1.") {
		return nil, fmt.Errorf("config.json is of version %q, this runtime knows 1.0.0 to %s: %w", s.Version, specs.Version, errdefs.ErrInvalidArgument)
	}
	keepUmask(s.Process)
	return &s, nil
}

// keepUmask: a process whose specification has none keeps the caller's.
func keepUmask(p *specs.Process) {
	if p.User.Umask == nil {
		old := unix.Umask(0)
		unix.Umask(old)
		mask := uint32(old)
		p.User.Umask = &mask
	}
}

// create makes the container and its state directory.
func (g *globals) create(ctx context.Context, id string, o *createOptions) (c *ocirun.Container, r *record, err error) {
	bundle, err := filepath.Abs(o.bundle)
	if err != nil {
		return nil, nil, err
	}
	rt, err := ocirun.New(ocirun.Options{Logger: g.logger(), Single: true, Creates: true})
	if err != nil {
		return nil, nil, err
	}
	defer rt.Close()
	s, err := loadSpec(bundle)
	if err != nil {
		return nil, nil, err
	}
	if err := checkConsole(s.Process.Terminal, o.consoleSocket, o.detach || !o.keep); err != nil {
		return nil, nil, err
	}
	if err := os.MkdirAll(g.root, 0o700); err != nil {
		return nil, nil, err
	}
	if err := os.Mkdir(g.dir(id), 0o711); errors.Is(err, os.ErrExist) {
		return nil, nil, fmt.Errorf("container %q exists: %w", id, errdefs.ErrAlreadyExists)
	} else if err != nil {
		return nil, nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(g.dir(id)), o.pidFile.discard())
		}
	}()
	socket, err := streamSocket(startSocket)
	if err != nil {
		return nil, nil, err
	}
	defer socket.Close()
	extra, err := preserved(o.preserveFDs)
	if err != nil {
		return nil, nil, err
	}
	c, err = rt.Create(ctx, &ocirun.CreateRequest{
		ID: id, Spec: activated(s), Bundle: bundle, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, SystemdCgroup: g.systemdCgroup,
		ExtraFiles: extra, NoPivot: o.noPivot, NoNewKeyring: o.noNewKeyring, StartSocket: socket,
		Born: func(c *ocirun.Container) (err error) {
			r, err = g.prepare(c, s, bundle, socket, o)
			return err
		},
	})
	if err != nil {
		if ocirun.IsHookError(err) { // the life of the container goes on at its end
			g.poststop(ctx, &record{head: head{ID: id, Bundle: bundle}, Spec: s})
		}
		return nil, nil, err
	}
	c.Release()
	if err := g.publish(r, c, o); err != nil {
		err = errors.Join(err, unix.Kill(c.Pid, unix.SIGKILL))
		_, _ = unix.Wait4(c.Pid, nil, 0, nil)
		if g.systemdCgroup {
			err = errors.Join(err, ocirun.StopUnit(c.Cgroup))
		}
		return nil, nil, errors.Join(err, rt.DeleteCgroup(ctx, c.Cgroup), ocirun.DeleteRdt(id, s), ocirun.UnmountForeign(s, bundle, c.MountsBefore))
	}
	return c, r, nil
}

// prepare makes the files of a container whose init starts, as far as others do
// not see them.
func (g *globals) prepare(c *ocirun.Container, s *specs.Spec, bundle string, socket *os.File, o *createOptions) (*record, error) {
	if err := listen(socket, filepath.Join(g.dir(c.ID), startSocket)); err != nil {
		return nil, err
	}
	ticks, _, err := born(c.Pid)
	if err != nil {
		return nil, err
	}
	r := &record{Spec: s, head: head{
		Version: recordVersion, ID: c.ID, Pid: c.Pid, Born: ticks, Bundle: bundle, Cgroup: c.Cgroup, Created: time.Now().UTC(),
		MountsBefore: c.MountsBefore, Systemd: g.systemdCgroup,
	}}
	r.Bare = s.Hooks == nil && s.Linux.IntelRdt == nil && c.MountsBefore == nil && !r.Systemd &&
		ocirun.AgentOf(r.request(), c.Pid, specs.StateCreated) == nil
	return r, errors.Join(g.write(r), o.pidFile.write(c.Pid))
}

// publish lets others see the state and hands out the terminal and the process id.
func (g *globals) publish(r *record, c *ocirun.Container, o *createOptions) error {
	if err := g.show(r); err != nil {
		return err
	}
	if c.Console != nil && o.consoleSocket != "" {
		if err := sendConsole(o.consoleSocket, c.Console); err != nil {
			return err
		}
	}
	return o.pidFile.show()
}

// listenFDs is the variable with the number of descriptors of a socket activation.
const listenFDs = "LISTEN_FDS"

// preserved are the descriptors after stderr that the caller left open.
func preserved(n int) ([]*os.File, error) {
	// Socket activation passes its descriptors without being asked.
	if v := os.Getenv(listenFDs); v != "" {
		k, err := strconv.Atoi(v)
		if err != nil || k < 0 {
			return nil, fmt.Errorf("LISTEN_FDS=%s: %w", v, errdefs.ErrInvalidArgument)
		}
		n += k
	}
	var files []*os.File
	for fd := 3; fd < 3+n; fd++ {
		// One that an exec would have closed is our own.
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		if err != nil || flags&unix.FD_CLOEXEC != 0 {
			return nil, fmt.Errorf("descriptor %d is not open: %w", fd, errdefs.ErrInvalidArgument)
		}
		unix.CloseOnExec(fd)
		files = append(files, os.NewFile(uintptr(fd), "preserved"))
	}
	return files, nil
}

// activated tells the first process, and no later one, of the descriptors of a
// socket activation, see sd_listen_fds(3).
func activated(s *specs.Spec) *specs.Spec {
	n := os.Getenv(listenFDs)
	if n == "" {
		return s
	}
	c, p := *s, *s.Process
	p.Env = append(slices.Clip(p.Env), listenFDs+"="+n, "LISTEN_PID=1")
	c.Process = &p
	return &c
}

// streamSocket makes a socket that has no address yet.
func streamSocket(name string) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// listen makes f the socket that start connects to. The name may be longer than
// a socket address, so it is reached through its directory.
func listen(f *os.File, name string) error {
	err := atSocket(name, func(a *unix.SockaddrUnix) error { return unix.Bind(int(f.Fd()), a) })
	if err == nil {
		err = unix.Listen(int(f.Fd()), 1)
	}
	if err != nil {
		return fmt.Errorf("listen at %s: %w", name, err)
	}
	return nil
}

func atSocket(name string, f func(*unix.SockaddrUnix) error) error {
	dir, err := os.Open(filepath.Dir(name))
	if err != nil {
		return err
	}
	defer dir.Close()
	return f(&unix.SockaddrUnix{Name: fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(name))})
}

func dial(name string) (*os.File, error) {
	f, err := streamSocket(filepath.Base(name))
	if err != nil {
		return nil, err
	}
	if err := atSocket(name, func(a *unix.SockaddrUnix) error { return unix.Connect(int(f.Fd()), a) }); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
