package cli

import (
	"context"

	"github.com/spf13/pflag"
)

func pauseCommand() command {
	return command{
		group: "container", name: "pause", top: "pause",
		usage: "CONTAINER [CONTAINER...]", short: "Freeze the processes of containers",
		args: minArgs(1),
		run: func(a *app, _ *pflag.FlagSet) runFunc {
			return func(ctx context.Context, args []string) error {
				cl, err := a.client()
				if err != nil {
					return err
				}
				return a.each(args, func(name string) error {
					return cl.Post(ctx, containerPath(name, "pause"), nil, nil, nil)
				})
			}
		},
	}
}
