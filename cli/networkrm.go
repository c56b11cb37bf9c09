package cli

import (
	"context"

	"github.com/containerd/errdefs"
	"github.com/spf13/pflag"

	"github.com/wherry-engine/wherry/client"
)

func networkRmCommand() command {
	return command{
		group: "network", name: "rm", aliases: []string{"remove"},
		usage: "NETWORK [NETWORK...]", short: "Delete networks",
		args: minArgs(1),
		run: func(a *app, f *pflag.FlagSet) runFunc {
			var force bool
			f.BoolVarP(&force, "force", "f", false, "Take a network that is not there as removed")
			return func(ctx context.Context, args []string) error {
				cl, err := a.client()
				if err != nil {
					return err
				}
				return a.each(args, func(name string) error {
					err := cl.Delete(ctx, "/networks/"+client.Segment(name), nil, nil)
					if force && errdefs.IsNotFound(err) {
						return errSkip
					}
					return err
				})
			}
		},
	}
}
