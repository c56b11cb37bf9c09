package cli

import (
	"context"
	"net/url"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/spf13/pflag"
)

func rmCommand() command {
	return command{
		group: "container", name: "rm", aliases: []string{"remove"}, top: "rm",
		usage: "[OPTIONS] CONTAINER [CONTAINER...]", short: "Delete containers",
		args: minArgs(1),
		run: func(a *app, f *pflag.FlagSet) runFunc {
			var force, link, volumes bool
			f.BoolVarP(&force, "force", "f", false, "Kill the container first if it is running")
			f.BoolVarP(&link, "link", "l", false, "Delete a link between containers, not a container")
			f.BoolVarP(&volumes, "volumes", "v", false, "Delete the container's anonymous volumes with it")
			return func(ctx context.Context, args []string) error {
				q := url.Values{}
				for name, on := range map[string]bool{"force": force, "link": link, "v": volumes} {
					if on {
						q.Set(name, "1")
					}
				}
				cl, err := a.client()
				if err != nil {
					return err
				}
				return a.each(args, func(name string) error {
					name = strings.Trim(name, "/")
					if name == "" {
						return invalidf("container name cannot be empty")
					}
					err := cl.Delete(ctx, containerPath(name, ""), q, nil)
					if force && errdefs.IsNotFound(err) {
						a.note(err)
						return errSkip
					}
					return err
				})
			}
		},
	}
}
