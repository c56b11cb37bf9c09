package cli

import "github.com/spf13/pflag"

func restartCommand() command {
	return command{
		group: "container", name: "restart", top: "restart",
		usage: "[OPTIONS] CONTAINER [CONTAINER...]", short: "Restart one or more containers",
		args: minArgs(1),
		run:  func(a *app, f *pflag.FlagSet) runFunc { return stopOrRestart(a, f, "restart") },
	}
}
