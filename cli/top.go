package cli

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"text/tabwriter"

	"github.com/moby/moby/api/types/container"
	"github.com/spf13/pflag"
)

func topCommand() command {
	return command{
		group: "container", name: "top", top: "top",
		usage: "CONTAINER [ps OPTIONS]", short: "List the processes in a container, as ps does",
		args: minArgs(1), oneWord: true,
		run: func(a *app, _ *pflag.FlagSet) runFunc {
			return func(ctx context.Context, args []string) error {
				cl, err := a.client()
				if err != nil {
					return err
				}
				q := url.Values{}
				if len(args) > 1 {
					q.Set("ps_args", strings.Join(args[1:], " "))
				}
				var t container.TopResponse
				if err := cl.Get(ctx, containerPath(args[0], "top"), q, &t); err != nil {
					return err
				}
				w := tabwriter.NewWriter(a.out, 20, 1, 3, ' ', 0)
				fmt.Fprintln(w, strings.Join(t.Titles, "\t"))
				for _, p := range t.Processes {
					fmt.Fprintln(w, strings.Join(p, "\t"))
				}
				return w.Flush()
			}
		},
	}
}
