package cli

import (
	"context"
	"net/url"

	"github.com/spf13/pflag"
)

func killCommand() command {
	return command{
		group: "container", name: "kill", top: "kill",
		usage: "[OPTIONS] CONTAINER [CONTAINER...]", short: "Send a signal to containers, SIGKILL if none is named",
		args: minArgs(1),
		run: func(a *app, f *pflag.FlagSet) runFunc {
			var signal string
			f.StringVarP(&signal, "signal", "s", "", "Signal to send, by name or number")
			return func(ctx context.Context, args []string) error {
				q := url.Values{}
				if signal != "" {
					q.Set("signal", signal)
				}
				cl, err := a.client()
				if err != nil {
					return err
				}
				return a.each(args, func(name string) error {
					return cl.Post(ctx, containerPath(name, "kill"), q, nil, nil)
				})
			}
		},
	}
}
