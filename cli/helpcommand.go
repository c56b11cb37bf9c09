package cli

import (
	"context"
	"strings"

	"github.com/spf13/pflag"
)

func helpCommand() command {
	return command{
		name: "help", usage: "[COMMAND]", short: "Show the help of a command", hidden: true,
		args: minArgs(0),
		run: func(a *app, _ *pflag.FlagSet) runFunc {
			return func(ctx context.Context, args []string) error {
				if len(args) > 0 && findGroup(args[0]) == nil && find("", args[0]) == nil {
					if bin := a.plugin(args[0]); bin != "" {
						a.args = append(args, "--help")
						return a.execPlugin(bin)
					}
					return invalidf("unknown help topic: %v", strings.Join(args, " "))
				}
				a.args = append(args, "--help")
				return a.run(ctx)
			}
		},
	}
}
