package cli

import (
	"context"
	"fmt"

	"github.com/moby/moby/api/types/container"
	"github.com/spf13/pflag"
)

func waitCommand() command {
	return command{
		group: "container", name: "wait", top: "wait",
		usage: "CONTAINER [CONTAINER...]", short: "Wait for containers to stop and print the exit code of each",
		args: minArgs(1),
		run: func(a *app, _ *pflag.FlagSet) runFunc {
			return func(ctx context.Context, args []string) error {
				cl, err := a.client()
				if err != nil {
					return err
				}
				return a.eachQuiet(args, func(name string) error {
					w, err := startWait(ctx, cl, name, container.WaitConditionNotRunning)
					if err != nil {
						return err
					}
					code, err := w.code()
					for err != nil && w.lost() && context.Cause(ctx) == nil {
						// Of a container that has ended meanwhile, the daemon still knows the code.
						if err = patiently(ctx, func() error { return w.restart(ctx, cl, name) }); err == nil {
							code, err = w.code()
						}
					}
					if cause := context.Cause(ctx); cause != nil {
						return cause
					}
					if err != nil {
						return err
					}
					fmt.Fprintln(a.out, code)
					return nil
				})
			}
		},
	}
}
