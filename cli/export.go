package cli

import (
	"context"
	"net/http"

	"github.com/spf13/pflag"

	"github.com/wherry-engine/wherry/client"
)

func exportCommand() command {
	return command{
		group: "container", name: "export", top: "export",
		usage: "[OPTIONS] CONTAINER", short: "Write a container's files as a tar archive",
		args: exactArgs(1),
		run: func(a *app, f *pflag.FlagSet) runFunc {
			var output string
			f.StringVarP(&output, "output", "o", "", "File to write rather than standard output")
			return func(ctx context.Context, args []string) error {
				return a.download(ctx, client.Request{Method: http.MethodGet, Path: containerPath(args[0], "export")}, output, "export")
			}
		},
	}
}
