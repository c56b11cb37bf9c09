package cli

import (
	"context"
	"errors"
	"net/url"
	"strings"

	"github.com/spf13/pflag"

	"github.com/wherry-engine/wherry/client"
)

func renameCommand() command {
	return command{
		group: "container", name: "rename", top: "rename",
		usage: "CONTAINER NEW_NAME", short: "Give a container another name",
		args: exactArgs(2),
		run: func(a *app, _ *pflag.FlagSet) runFunc {
			return func(ctx context.Context, args []string) error {
				from, to := strings.TrimSpace(args[0]), strings.TrimSpace(args[1])
				if from == "" || to == "" {
					return invalidf("neither old nor new names may be empty")
				}
				cl, err := a.client()
				if err != nil {
					return err
				}
				err = cl.Post(ctx, containerPath(from, "rename"), url.Values{"name": {to}}, nil, nil)
				var api *client.Error
				if errors.As(err, &api) {
					a.note(err)
					return statusError{1, "Error: failed to rename container named " + from}
				}
				return err
			}
		},
	}
}
