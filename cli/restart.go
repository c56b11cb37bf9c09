package cli

import "github.com/spf13/pflag"

func restartCommand() command {
	return command{
		group: "container", name: "restart", top: "restart",
		usage: "[OPTIONS] CONTAINER [CONTAINER...]", short: "Stop containers and start them again",
		args: minArgs(1),
		run:  func(a *app, f *pflag.FlagSet) runFunc { return stopOrRestart(a, f, "restart") },
	}
}
