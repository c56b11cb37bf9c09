package cli

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// run builds what the arguments name and executes it.
func (a *app) run(ctx context.Context) error {
	root := a.newRoot()
	word, at := a.firstWord()
	switch {
	case word == "":
		return root.ExecuteContext(ctx)
	case strings.HasPrefix(word, "__complete") || word == "completion":
		a.buildAll(root)
		return root.ExecuteContext(ctx)
	}
	if g := findGroup(word); g != nil {
		root.AddCommand(a.buildGroup(g, a.args[at+1:]))
		return root.ExecuteContext(ctx)
	}
	if c := find("", word); c != nil {
		root.AddCommand(c.build(a, word))
		return root.ExecuteContext(ctx)
	}
	if bin := a.plugin(word); bin != "" {
		return a.execPlugin(bin)
	}
	return statusError{1, fmt.Sprintf("%s: unknown command: %s %s\n\nRun '%s --help' for more information", a.name, a.name, word, a.name)}
}

// firstWord returns the first argument that is no global flag, and its index.
func (a *app) firstWord() (string, int) {
	for i := 0; i < len(a.args); i++ {
		arg := a.args[i]
		switch {
		case arg == "--" || !strings.HasPrefix(arg, "-") || arg == "-":
			return arg, i
		case takesValue(arg):
			i++
		}
	}
	return "", len(a.args)
}

// takesValue reports whether a global flag is followed by its value.
func takesValue(arg string) bool {
	switch arg {
	case "-H", "--host", "-c", "--context", "-l", "--log-level", "--config", "--tlscacert", "--tlscert", "--tlskey":
		return true
	}
	if strings.HasPrefix(arg, "--") || len(arg) < 2 {
		return false
	}
	for i, r := range arg[1:] { // -DH unix://…
		if strings.ContainsRune("Hcl", r) {
			return i == len(arg)-2
		}
	}
	return false
}

func (a *app) newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:                   a.name + " [OPTIONS] COMMAND [ARG...]",
		SilenceUsage:          true,
		SilenceErrors:         true,
		TraverseChildren:      true,
		DisableFlagsInUseLine: true,
		CompletionOptions:     cobra.CompletionOptions{DisableDefaultCmd: true},
		RunE: func(cmd *cobra.Command, args []string) error {
			if a.flags.version {
				a.printVersionLine()
				return nil
			}
			return cmd.Help()
		},
	}
	root.SetArgs(a.args)
	root.SetOut(a.out)
	root.SetErr(a.err)
	root.SetHelpCommand(&cobra.Command{Use: "no-help", Hidden: true})
	root.SetFlagErrorFunc(flagError)
	root.SetHelpFunc(func(cmd *cobra.Command, _ []string) { a.rootHelp(cmd) })
	f := root.Flags()
	f.SetInterspersed(false)
	a.globalFlags(f)
	return root
}

func (a *app) globalFlags(f *pflag.FlagSet) {
	g := &a.flags
	dir := a.config().Dir
	f.BoolP("help", "h", false, "Print usage")
	_ = f.MarkHidden("help")
	f.StringVar(&g.configDir, "config", dir, "Directory of the command line's settings")
	f.StringVarP(&g.context, "context", "c", "", fmt.Sprintf("Context that names the daemon, in place of DOCKER_HOST and the choice made with %q", a.name+" context use"))
	f.BoolVarP(&g.debug, "debug", "D", false, "Print debugging messages too")
	f.VarP(newList(&g.hosts), "host", "H", "Address of the daemon (unix://, tcp:// or ssh://)")
	f.StringVarP(&g.logLevel, "log-level", "l", "info", `Least severe messages to print ("debug", "info", "warn", "error", "fatal")`)
	f.BoolVar(&g.tls, "tls", false, "Use TLS (--tlsverify turns it on too)")
	f.StringVar(&g.tlsCA, "tlscacert", "", "File with the CA to trust (default \""+dir+"/ca.pem\")")
	f.StringVar(&g.tlsCert, "tlscert", "", "File with the client certificate (default \""+dir+"/cert.pem\")")
	f.StringVar(&g.tlsKey, "tlskey", "", "File with the client key (default \""+dir+"/key.pem\")")
	f.BoolVar(&g.tlsVerify, "tlsverify", os.Getenv("DOCKER_TLS_VERIFY") != "", "Use TLS and check the daemon's certificate")
	f.BoolVarP(&g.version, "version", "v", false, "Print the version and stop")
}

// buildGroup makes a management command with the one child that rest names.
func (a *app) buildGroup(g *group, rest []string) *cobra.Command {
	gc := &cobra.Command{
		Use:                   g.name,
		Short:                 g.short,
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return cmd.Help()
			}
			path := cmd.CommandPath()
			return statusError{1, fmt.Sprintf("%s: unknown command: %s %s\n\nUsage:  %s\n\nRun '%s --help' for more information", a.name, path, args[0], path, path)}
		},
		Args: cobra.ArbitraryArgs,
	}
	gc.Flags().BoolP("help", "h", false, "Print usage")
	_ = gc.Flags().MarkHidden("help")
	gc.SetFlagErrorFunc(flagError)
	gc.SetHelpFunc(func(cmd *cobra.Command, _ []string) { a.groupHelp(g, cmd) })
	for _, word := range rest {
		if strings.HasPrefix(word, "-") {
			continue
		}
		if c := find(g.name, word); c != nil {
			gc.AddCommand(c.build(a, word))
		}
		break
	}
	return gc
}

// buildAll makes the whole tree, which completion needs.
func (a *app) buildAll(root *cobra.Command) {
	for _, g := range groups() {
		gc := a.buildGroup(&g, nil)
		for _, c := range commands() {
			if c.is(g.name, c.name) {
				gc.AddCommand(c.build(a, c.name))
			}
		}
		root.AddCommand(gc)
	}
	for _, c := range commands() {
		switch {
		case c.top != "":
			root.AddCommand(c.build(a, c.top))
		case c.group == "":
			root.AddCommand(c.build(a, c.name))
		}
	}
}

func findGroup(word string) *group {
	for _, g := range groups() {
		if g.name == word {
			return &g
		}
	}
	return nil
}

func find(group, word string) *command {
	for _, c := range commands() {
		if c.is(group, word) {
			return &c
		}
	}
	return nil
}
