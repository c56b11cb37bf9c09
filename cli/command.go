package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// runFunc does the command's work.
type runFunc func(ctx context.Context, args []string) error

// command describes one command without building it.
type command struct {
	group   string   // "container"; "" for a command of the top level only
	name    string   // its name in the group
	aliases []string // other names in the group
	top     string   // its shortcut on the top level, "" for none
	also    []string // further groups that have it under the same name

	usage  string // what follows the name: "[OPTIONS] CONTAINER"
	usage2 string // a second form of it, for help
	short  string // one line
	long   string // help text; short if empty
	args   argCheck
	common int // position among the common commands, from 1; 0 for none
	hidden bool
	// oneWord ends the flags at the first argument.
	oneWord bool
	// exact hands all arguments over unparsed.
	raw bool
	// run adds flags to f and returns what does the work.
	run func(a *app, f *pflag.FlagSet) runFunc
}

// group is a management command.
type group struct {
	name, short string
}

// argCheck is how many arguments a command takes; max is -1 for any number.
type argCheck struct{ min, max int }

func noArgs() argCheck            { return argCheck{0, 0} }
func exactArgs(n int) argCheck    { return argCheck{n, n} }
func minArgs(n int) argCheck      { return argCheck{n, -1} }
func maxArgs(n int) argCheck      { return argCheck{0, n} }
func rangeArgs(a, b int) argCheck { return argCheck{a, b} }

// check returns the complaint about n arguments, "" if there is none.
func (c argCheck) check(n int) string {
	if n >= c.min && (c.max < 0 || n <= c.max) {
		return ""
	}
	switch {
	case c.max == 0:
		return "accepts no arguments"
	case c.max < 0:
		return "requires at least " + plural(c.min, "argument")
	case c.min == c.max:
		return "requires " + plural(c.min, "argument")
	case c.min == 0:
		return "requires at most " + plural(c.max, "argument")
	}
	return fmt.Sprintf("requires at least %d and at most %s", c.min, plural(c.max, "argument"))
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// build makes the cobra command, under the given name.
func (c *command) build(a *app, name string) *cobra.Command {
	cc := &cobra.Command{
		Use:                   strings.TrimSpace(name + " " + c.usage),
		Short:                 c.short,
		Hidden:                c.hidden,
		DisableFlagsInUseLine: true,
		DisableFlagParsing:    c.raw,
	}
	f := cc.Flags()
	f.SortFlags = true
	f.SetInterspersed(!c.oneWord)
	run := c.run(a, f)
	if f.Lookup("help") == nil {
		if f.ShorthandLookup("h") == nil {
			f.BoolP("help", "h", false, "Print usage")
		} else {
			f.Bool("help", false, "Print usage")
		}
		_ = f.MarkHidden("help")
	}
	cc.SetFlagErrorFunc(flagError)
	cc.ValidArgsFunction = func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		return a.completeArgs(cmd.Context(), c, args)
	}
	cc.Args = func(cmd *cobra.Command, args []string) error { return c.checkArgs(a, cmd, args) }
	cc.RunE = func(cmd *cobra.Command, args []string) error { return run(cmd.Context(), args) }
	cc.SetHelpFunc(func(cmd *cobra.Command, _ []string) { a.commandHelp(c, cmd) })
	return cc
}

func (c *command) checkArgs(a *app, cmd *cobra.Command, args []string) error {
	complaint := c.args.check(len(args))
	if complaint == "" {
		return nil
	}
	verb := "Run"
	if strings.HasPrefix(complaint, "requires at least") && c.args.max < 0 {
		verb = "See"
	}
	return statusError{1, fmt.Sprintf("%s: '%s' %s\n\nUsage:  %s\n\n%s '%s --help' for more information",
		a.name, cmd.CommandPath(), complaint, cmd.UseLine(), verb, cmd.CommandPath())}
}

func flagError(cmd *cobra.Command, err error) error {
	if errors.Is(err, pflag.ErrHelp) {
		return err
	}
	return statusError{125, fmt.Sprintf("%s\n\nUsage:  %s\n\nRun '%s --help' for more information", plain(err), cmd.UseLine(), cmd.CommandPath())}
}

// names lists every way to write the command, for help.
func (c *command) names(program string) []string {
	var all []string
	for _, g := range append([]string{c.group}, c.also...) {
		if g == "" {
			continue
		}
		for _, n := range append([]string{c.name}, c.aliases...) {
			all = append(all, program+" "+g+" "+n)
		}
	}
	if c.top != "" {
		all = append(all, program+" "+c.top)
	}
	return all
}

// is reports whether the command is called word in group g ("" is the top).
func (c *command) is(g, word string) bool {
	if g == "" {
		return word == c.top || (c.group == "" && word == c.name)
	}
	in := c.group == g
	for _, o := range c.also {
		in = in || o == g
	}
	if !in {
		return false
	}
	if word == c.name {
		return true
	}
	for _, al := range c.aliases {
		if word == al {
			return true
		}
	}
	return false
}
