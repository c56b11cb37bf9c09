// Package command is the OCI command line over the runtime library, as callers
// of runc know it: one file per command, one state file per container under
// --root.
package command

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/wherry-engine/wherry/internal/version"
)

// globals are the options before the command.
type globals struct {
	root          string
	log           string
	logFormat     string
	debug         bool
	systemdCgroup bool
}

// cmd is one command: it parses its own arguments.
type cmd struct {
	name, usage string
	run         func(ctx context.Context, g *globals, args []string) error
}

func commands() []cmd {
	return []cmd{
		{"checkpoint", "refused: not built", refused("checkpoint")},
		{"create", "create a container", create},
		{"delete", "delete a container", remove},
		{"events", "show statistics of a container", events},
		{"exec", "run a process in a container", execute},
		{"features", "show what this runtime can do", features},
		{"kill", "send a signal to a container", kill},
		{"list", "list containers", list},
		{"pause", "suspend all processes of a container", pause},
		{"ps", "show the processes of a container", ps},
		{"restore", "refused: not built", refused("restore")},
		{"resume", "resume all processes of a container", resume},
		{"run", "create and start a container", run},
		{"spec", "write a specification file", spec},
		{"start", "run the process of a created container", start},
		{"state", "show the state of a container", state},
		{"update", "change the limits of a container", update},
	}
}

// exitError carries the exit code of a container's process.
type exitError struct{ code int }

func (e *exitError) Error() string { return fmt.Sprintf("exit status %d", e.code) }

// Main runs one command and returns the exit code.
func Main(args []string) int {
	var g globals
	err := dispatch(context.Background(), &g, args)
	var exit *exitError
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return 0
	case errors.As(err, &exit):
		return exit.code
	}
	report(&g, err)
	return 1
}

func dispatch(ctx context.Context, g *globals, args []string) error {
	fs := newFlags("wherry-runtime")
	fs.StringVar(&g.root, "root", "/run/wherry-runtime", "directory for the state of containers")
	fs.StringVar(&g.log, "log", "", "file for errors")
	fs.StringVar(&g.logFormat, "log-format", "text", "text or json")
	fs.BoolVar(&g.debug, "debug", false, "say more")
	fs.BoolVar(&g.systemdCgroup, "systemd-cgroup", false, "let systemd manage the cgroups")
	fs.Func("rootless", "true, false or auto, accepted for other callers' sake", func(s string) error {
		if _, err := strconv.ParseBool(s); err != nil && s != "auto" {
			return errors.New("want true, false or auto")
		}
		return nil
	})
	fs.String("criu", "", "accepted for other callers' sake")
	show := fs.Bool("version", false, "show the version")
	fs.BoolVar(show, "v", false, "show the version")
	fs.Usage = func() { usage(fs) }
	if err := fs.Parse(args); err != nil {
		return err
	}
	if *show {
		fmt.Fprintf(os.Stdout, "wherry-runtime version %s\ncommit: %s\nspec: %s\n", version.Version, version.Commit, specs.Version)
		return nil
	}
	if g.logFormat != "text" && g.logFormat != "json" {
		return fmt.Errorf("unknown log format %q: %w", g.logFormat, errdefs.ErrInvalidArgument)
	}
	name := fs.Arg(0)
	for _, c := range commands() {
		if c.name == name {
			return c.run(ctx, g, fs.Args()[1:])
		}
	}
	usage(fs)
	if name == "" || name == "help" {
		return nil
	}
	return fmt.Errorf("unknown command %q", name)
}

func usage(fs *flag.FlagSet) {
	w := fs.Output()
	fmt.Fprintln(w, "Usage: wherry-runtime [OPTIONS] COMMAND [ARGUMENTS]\n\nCommands:")
	for _, c := range commands() {
		fmt.Fprintf(w, "  %-10s %s\n", c.name, c.usage)
	}
	fmt.Fprintln(w, "\nOptions:")
	fs.PrintDefaults()
}

func newFlags(name string) *flag.FlagSet {
	fs := flag.NewFlagSet(name, flag.ContinueOnError)
	fs.SetOutput(os.Stderr)
	return fs
}

// oneID parses the flags of a command with one container as its argument.
func oneID(fs *flag.FlagSet, args []string) (string, error) {
	if err := fs.Parse(args); err != nil {
		return "", err
	}
	// runc's callers also write options after the name.
	id := fs.Arg(0)
	if fs.NArg() > 1 {
		if err := fs.Parse(fs.Args()[1:]); err != nil {
			return "", err
		}
		if fs.NArg() > 0 {
			return "", fmt.Errorf("%s: unexpected argument %q", fs.Name(), fs.Arg(0))
		}
	}
	if id == "" {
		return "", fmt.Errorf("%s: the name of a container is missing", fs.Name())
	}
	return id, checkID(id)
}

// list of strings as a repeatable option.
type stringList []string

func (l *stringList) String() string     { return strings.Join(*l, ",") }
func (l *stringList) Set(s string) error { *l = append(*l, s); return nil }
