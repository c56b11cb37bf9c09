package cli

import (
	"context"

	"github.com/spf13/pflag"
)

func unpauseCommand() command {
	return command{
		group: "container", name: "unpause", top: "unpause",
		usage: "CONTAINER [CONTAINER...]", short: "Let paused containers go on",
		args: minArgs(1),
		run: func(a *app, _ *pflag.FlagSet) runFunc {
			return func(ctx context.Context, args []string) error {
				cl, err := a.client()
				if err != nil {
					return err
				}
				return a.each(args, func(name string) error {
					return cl.Post(ctx, containerPath(name, "unpause"), nil, nil, nil)
				})
			}
		},
	}
}
