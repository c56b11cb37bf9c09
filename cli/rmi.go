package cli

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/image"
	"github.com/spf13/pflag"

	"github.com/wherry-engine/wherry/client"
)

func rmiCommand() command {
	return command{
		group: "image", name: "rm", aliases: []string{"remove"}, top: "rmi",
		usage: "[OPTIONS] IMAGE [IMAGE...]", short: "Delete images or names of images",
		args: minArgs(1),
		run: func(a *app, f *pflag.FlagSet) runFunc {
			var force, noPrune bool
			var platforms []string
			f.BoolVarP(&force, "force", "f", false, "Remove even if stopped containers use it or it has several names")
			f.BoolVar(&noPrune, "no-prune", false, "Keep parent images that have no name")
			f.StringSliceVar(&platforms, "platform", nil, "Platform to remove, as os[/arch[/variant]]; all if not given")
			return func(ctx context.Context, args []string) error {
				q := url.Values{}
				if force {
					q.Set("force", "1")
				}
				if noPrune {
					q.Set("noprune", "1")
				}
				if err := addPlatforms(q, "platforms", platforms); err != nil {
					return err
				}
				cl, err := a.client()
				if err != nil {
					return err
				}
				return a.removeImages(ctx, cl, args, q, force)
			}
		},
	}
}

func (a *app) removeImages(ctx context.Context, cl *client.Client, names []string, q url.Values, force bool) error {
	var texts []string
	fatal := false
	for _, n := range names {
		var gone []image.DeleteResponse
		err := cl.Delete(ctx, imagePath(n, ""), q, &gone)
		var conn *client.ConnError
		if errors.As(err, &conn) {
			return err
		}
		if err != nil {
			fatal = fatal || !errdefs.IsNotFound(err)
			texts = append(texts, a.message(err))
			continue
		}
		for _, g := range gone {
			if g.Deleted != "" {
				fmt.Fprintln(a.out, "Deleted:", g.Deleted)
			} else {
				fmt.Fprintln(a.out, "Untagged:", g.Untagged)
			}
		}
	}
	if texts == nil {
		return nil
	}
	if !force || fatal {
		return statusError{1, strings.Join(texts, "\n")}
	}
	fmt.Fprintln(a.err, strings.Join(texts, "\n"))
	return nil
}

// imagePath is the API path of an action on an image. Slashes of a repository
// are part of the path.
func imagePath(name, action string) string {
	parts := strings.Split(name, "/")
	for i, p := range parts {
		parts[i] = strings.ReplaceAll(client.Segment(p), "%3A", ":")
	}
	p := "/images/" + strings.Join(parts, "/")
	if action != "" {
		p += "/" + action
	}
	return p
}
