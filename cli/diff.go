package cli

import (
	"context"
	"fmt"

	"github.com/moby/moby/api/types/container"
	"github.com/spf13/pflag"
)

func diffCommand() command {
	return command{
		group: "container", name: "diff", top: "diff",
		usage: "CONTAINER", short: "List the files a container has added, changed or deleted",
		args: exactArgs(1),
		run: func(a *app, _ *pflag.FlagSet) runFunc {
			return func(ctx context.Context, args []string) error {
				if args[0] == "" {
					return invalidf("container name cannot be empty")
				}
				cl, err := a.client()
				if err != nil {
					return err
				}
				var changes []container.FilesystemChange
				if err := cl.Get(ctx, containerPath(args[0], "changes"), nil, &changes); err != nil {
					return err
				}
				for _, c := range changes {
					fmt.Fprintf(a.out, "%c %s\n", kindLetter(c.Kind), c.Path)
				}
				return nil
			}
		},
	}
}

func kindLetter(k container.ChangeType) byte {
	if int(k) < len("CAD") {
		return "CAD"[k]
	}
	return '?'
}
