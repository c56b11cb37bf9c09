package command

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/wherry-engine/wherry/ocirun"
)

// execOptions of the command line.
type execOptions struct {
	process, cwd, user, consoleSocket, apparmor, label string
	pidFile                                            pidFile
	env, gids, caps                                    stringList
	tty, detach, noNewPrivs, ignorePaused              bool
	preserveFDs                                        int
	cgroups                                            map[string]string
}

// addCgroup reads one --cgroup; without controllers it is that of all.
func (o *execOptions) addCgroup(s string) error {
	if o.cgroups == nil {
		o.cgroups = map[string]string{}
	}
	controllers, path, has := strings.Cut(s, ":")
	if !has {
		controllers, path = "", s
	}
	for c := range strings.SplitSeq(controllers, ",") {
		if _, twice := o.cgroups[c]; twice {
			return fmt.Errorf("--cgroup: controller %q is given twice", c)
		}
		o.cgroups[c] = path
	}
	return nil
}

func execute(ctx context.Context, g *globals, args []string) error {
	var o execOptions
	fs := newFlags("exec")
	for _, n := range []string{"process", "p"} {
		fs.StringVar(&o.process, n, "", "file with the process in JSON")
	}
	for _, n := range []string{"user", "u"} {
		fs.StringVar(&o.user, n, "", "UID[:GID]")
	}
	for _, n := range []string{"env", "e"} {
		fs.Var(&o.env, n, "environment variable")
	}
	for _, n := range []string{"additional-gids", "g"} {
		fs.Var(&o.gids, n, "supplementary group")
	}
	for _, n := range []string{"cap", "c"} {
		fs.Var(&o.caps, n, "capability to add")
	}
	for _, n := range []string{"tty", "t"} {
		fs.BoolVar(&o.tty, n, false, "make a terminal")
	}
	for _, n := range []string{"detach", "d"} {
		fs.BoolVar(&o.detach, n, false, "do not wait")
	}
	fs.StringVar(&o.cwd, "cwd", "", "working directory")
	fs.StringVar(&o.consoleSocket, "console-socket", "", "unix socket that receives the terminal")
	fs.StringVar((*string)(&o.pidFile), "pid-file", "", "file to write the process id to")
	fs.StringVar(&o.apparmor, "apparmor", "", "AppArmor profile")
	fs.StringVar(&o.label, "process-label", "", "SELinux label")
	fs.BoolVar(&o.noNewPrivs, "no-new-privs", false, "set no_new_privs")
	fs.BoolVar(&o.ignorePaused, "ignore-paused", false, "do not refuse a paused container")
	fs.IntVar(&o.preserveFDs, "preserve-fds", 0, "number of further descriptors to pass")
	fs.Bool("no-subreaper", false, "accepted for other callers' sake")
	fs.Func("cgroup", "[CONTROLLER,...:]PATH of a group below the container's", o.addCgroup)
	if err := fs.Parse(args); err != nil {
		return err
	}
	if fs.NArg() == 0 {
		return fmt.Errorf("exec: the name of a container is missing: %w", errdefs.ErrInvalidArgument)
	}
	if err := checkID(fs.Arg(0)); err != nil {
		return err
	}
	err := g.exec(ctx, fs.Arg(0), fs.Args()[1:], &o)
	var exit *exitError
	if err == nil || errors.As(err, &exit) {
		return err
	}
	report(g, err)
	return &exitError{execFailed}
}

// execFailed tells the runtime's errors from most exit codes of commands, as runc does.
const execFailed = 255

func (g *globals) exec(ctx context.Context, id string, args []string, o *execOptions) error {
	rt, r, err := g.open(id)
	if err != nil {
		return err
	}
	defer rt.Close()
	p, err := o.specProcess(r, args)
	if err != nil {
		return err
	}
	if err := checkConsole(p.Terminal, o.consoleSocket, o.detach); err != nil {
		return err
	}
	pidfd, err := r.pidfd()
	if err != nil {
		return err
	}
	defer pidfd.Close()
	if s := g.status(rt, r); s == "paused" && !o.ignorePaused {
		return fmt.Errorf("cannot exec in a paused container: %w", errdefs.ErrFailedPrecondition)
	}
	extra, err := preserved(o.preserveFDs)
	if err != nil {
		return err
	}
	signals := make(chan os.Signal, 64)
	if !o.detach {
		signal.Notify(signals)
	}
	proc, err := rt.Exec(ctx, &ocirun.ExecRequest{
		ID: r.ID, Bundle: r.Bundle, Pid: r.Pid, PidFD: pidfd, Spec: r.Spec, Process: p, Cgroup: r.Cgroup, SubCgroups: o.cgroups, ExtraFiles: extra,
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
	})
	var se *ocirun.StartError
	if errors.As(err, &se) && !o.detach {
		report(g, err)
		return &exitError{se.Code}
	}
	if err != nil {
		return err
	}
	return o.attend(proc, signals)
}

func (o *execOptions) attend(proc *ocirun.Process, signals <-chan os.Signal) error {
	if err := o.pidFile.write(proc.Pid); err != nil {
		return err
	}
	if err := o.pidFile.show(); err != nil {
		return err
	}
	restore := func() {}
	if proc.Console != nil {
		var err error
		if o.consoleSocket != "" {
			err = sendConsole(o.consoleSocket, proc.Console)
		} else {
			restore, err = proxy(proc.Console)
		}
		if err != nil {
			return err
		}
	}
	if o.detach {
		return nil
	}
	code := attend(proc.Pid, signals)
	restore()
	return &exitError{code}
}

// specProcess is the process to run: from a file, or the container's own with changes.
func (o *execOptions) specProcess(r *record, args []string) (*specs.Process, error) {
	if o.process != "" {
		b, err := os.ReadFile(o.process)
		if err != nil {
			return nil, err
		}
		var p specs.Process
		if err := json.Unmarshal(b, &p); err != nil {
			return nil, fmt.Errorf("parse %s: %w: %w", o.process, err, errdefs.ErrInvalidArgument)
		}
		keepUmask(&p)
		return &p, nil
	}
	p := *r.Spec.Process
	p.Args, p.Terminal = args, o.tty
	p.Env = append(append([]string(nil), p.Env...), o.env...)
	if o.cwd != "" {
		p.Cwd = o.cwd
	}
	if o.apparmor != "" {
		p.ApparmorProfile = o.apparmor
	}
	if o.label != "" {
		p.SelinuxLabel = o.label
	}
	p.NoNewPrivileges = p.NoNewPrivileges || o.noNewPrivs
	if len(o.caps) > 0 && p.Capabilities != nil {
		c := *p.Capabilities
		for _, set := range []*[]string{&c.Bounding, &c.Effective, &c.Permitted} {
			*set = append(append([]string(nil), *set...), o.caps...)
		}
		p.Capabilities = &c
	}
	return &p, o.setUser(&p)
}

func (o *execOptions) setUser(p *specs.Process) error {
	parse := func(s string) (uint32, error) {
		n, err := strconv.ParseUint(s, 10, 31)
		if err != nil {
			return 0, fmt.Errorf("%q is not a user or group id: %w", s, errdefs.ErrInvalidArgument)
		}
		return uint32(n), nil
	}
	if o.user != "" {
		uid, gid, has := strings.Cut(o.user, ":")
		var err error
		if p.User.UID, err = parse(uid); err != nil {
			return err
		}
		if has {
			if p.User.GID, err = parse(gid); err != nil {
				return err
			}
		}
	}
	for _, g := range o.gids {
		n, err := parse(g)
		if err != nil {
			return err
		}
		p.User.AdditionalGids = append(p.User.AdditionalGids, n)
	}
	return nil
}
