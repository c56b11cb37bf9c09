package cli

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/wherry-engine/wherry/cli/terminal"
)

// formatHelp is the help of --format where tables are printed.
const formatHelp = `How to print the output:
'table':            A table with a header (default)
'table TEMPLATE':   A table with the columns of a Go template
'json':             JSON
'TEMPLATE':         Text by a Go template
Functions: json, join, split, title, lower, upper, pad, truncate, println`

// inspectFormatHelp is the help of --format where objects are printed.
const inspectFormatHelp = `How to print the output:
'json':             JSON
'TEMPLATE':         Text by a Go template
Functions: json, join, split, title, lower, upper, pad, truncate, println`

type helpItem struct{ name, short string }

func (a *app) rootHelp(cmd *cobra.Command) {
	w := a.out
	fmt.Fprintf(w, "Usage:  %s [OPTIONS] COMMAND\n\nBuild, run and manage containers\n", a.name)
	var common, rest, manage []helpItem
	all := commands()
	slices.SortFunc(all, func(x, y command) int { return strings.Compare(topName(x), topName(y)) })
	for _, c := range all {
		name := topName(c)
		switch {
		case name == "" || c.hidden:
		case c.common > 0:
			common = append(common, helpItem{name, c.short})
		default:
			rest = append(rest, helpItem{name, c.short})
		}
	}
	order := func(name string) int {
		for _, c := range all {
			if topName(c) == name {
				return c.common
			}
		}
		return 0
	}
	slices.SortStableFunc(common, func(x, y helpItem) int { return order(x.name) - order(y.name) })
	for _, g := range groups() {
		manage = append(manage, helpItem(g))
	}
	for _, p := range a.plugins() {
		manage = append(manage, helpItem{p + "*", "(plugin)"})
	}
	helpList(w, "Common Commands", common)
	helpList(w, "Management Commands", manage)
	helpList(w, "Commands", rest)
	fmt.Fprintf(w, "\nGlobal Options:\n%s", a.flagUsages(cmd.Flags()))
	fmt.Fprintf(w, "\nRun '%s COMMAND --help' for more information on a command.\n", a.name)
}

func topName(c command) string {
	if c.group == "" {
		return c.name
	}
	return c.top
}

func (a *app) groupHelp(g *group, cmd *cobra.Command) {
	w := a.out
	path := cmd.CommandPath()
	fmt.Fprintf(w, "Usage:  %s COMMAND\n\n%s\n", path, g.short)
	var items []helpItem
	for _, c := range commands() {
		if c.is(g.name, c.name) && !c.hidden {
			items = append(items, helpItem{c.name, c.short})
		}
	}
	slices.SortFunc(items, func(x, y helpItem) int { return strings.Compare(x.name, y.name) })
	helpList(w, "Commands", items)
	fmt.Fprintf(w, "\nRun '%s COMMAND --help' for more information on a command.\n", path)
}

func (a *app) commandHelp(c *command, cmd *cobra.Command) {
	w := a.out
	text := c.long
	if text == "" {
		text = c.short
	}
	fmt.Fprintf(w, "Usage:  %s\n", cmd.UseLine())
	if c.usage2 != "" {
		fmt.Fprintf(w, "\t%s %s\n", cmd.CommandPath(), c.usage2)
	}
	fmt.Fprintf(w, "\n%s\n", strings.TrimSpace(text))
	if names := c.names(a.name); len(names) > 1 {
		fmt.Fprintf(w, "\nAliases:\n  %s\n", strings.Join(names, ", "))
	}
	if u := a.flagUsages(cmd.Flags()); u != "" {
		fmt.Fprintf(w, "\nOptions:\n%s", u)
	}
}

func (a *app) flagUsages(f *pflag.FlagSet) string {
	width := 80
	if out := a.outFile(); out != nil {
		if _, w := terminal.Size(out); w > 0 {
			width = int(w)
		}
	}
	return f.FlagUsagesWrapped(width - 1)
}

func helpList(w io.Writer, title string, items []helpItem) {
	if len(items) == 0 {
		return
	}
	fmt.Fprintf(w, "\n%s:\n", title)
	width := 11
	for _, i := range items {
		width = max(width, len(i.name))
	}
	for _, i := range items {
		fmt.Fprintf(w, "  %-*s %s\n", width, i.name, i.short)
	}
}
