package cli

import (
	"context"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

func completionCommand() command {
	return command{
		name: "completion", usage: "bash|fish|powershell|zsh", short: "Print a completion script for a shell",
		long: "Generate a completion script for a shell, to be sourced or put where it looks for them.",
		args: exactArgs(1),
		run: func(a *app, _ *pflag.FlagSet) runFunc {
			return func(_ context.Context, args []string) error {
				root := a.newRoot()
				return a.completion(root, args[0])
			}
		},
	}
}

func (a *app) completion(root *cobra.Command, shell string) error {
	switch shell {
	case "bash":
		return root.GenBashCompletionV2(a.out, true)
	case "zsh":
		return root.GenZshCompletion(a.out)
	case "fish":
		return root.GenFishCompletion(a.out, true)
	case "powershell":
		return root.GenPowerShellCompletionWithDesc(a.out)
	}
	return invalidf("unsupported shell %q: must be bash, fish, powershell or zsh", shell)
}
