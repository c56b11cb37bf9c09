package cli

import (
	"context"
	"fmt"
	"net/url"

	"github.com/moby/moby/api/types/common"
	"github.com/spf13/pflag"

	"github.com/wherry-engine/wherry/ociref"
)

func commitCommand() command {
	return command{
		group: "container", name: "commit", top: "commit",
		usage: "[OPTIONS] CONTAINER [REPOSITORY[:TAG]]", short: "Save a container's filesystem as an image",
		args: rangeArgs(1, 2),
		run: func(a *app, f *pflag.FlagSet) runFunc {
			var author, message string
			var changes []string
			var pause, noPause bool
			f.StringVarP(&author, "author", "a", "", `Author to record, such as "Ada Example <ada@example.com>"`)
			f.VarP(newList(&changes), "change", "c", "Dockerfile instruction to change the new image with")
			f.StringVarP(&message, "message", "m", "", "Commit message")
			f.BoolVarP(&pause, "pause", "p", true, "Freeze the container while it is saved")
			f.BoolVar(&noPause, "no-pause", false, "Let the container run on while it is saved")
			return func(ctx context.Context, args []string) error {
				q := url.Values{"container": {args[0]}, "comment": {message}, "author": {author}, "changes": changes}
				if !pause || noPause {
					q.Set("pause", "0")
				}
				if len(args) == 2 && args[1] != "" {
					ref, err := ociref.ParseTagged(args[1])
					if err != nil {
						return err
					}
					if ref.Digest != "" {
						return invalidf("cannot commit to digest reference")
					}
					q.Set("repo", ref.Name())
					q.Set("tag", ref.Tag)
				}
				cl, err := a.client()
				if err != nil {
					return err
				}
				var r common.IDResponse
				if err := cl.Post(ctx, "/commit", q, nil, &r); err != nil {
					return err
				}
				fmt.Fprintln(a.out, r.ID)
				return nil
			}
		},
	}
}
