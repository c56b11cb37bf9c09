package cli

import (
	"context"
	"net/url"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/volume"
	"github.com/spf13/cobra"

	"github.com/wherry-engine/wherry/client"
)

// completeArgs proposes what the usage calls for: names of containers, images,
// networks or volumes. Files are the shell's business.
func (a *app) completeArgs(ctx context.Context, c *command, args []string) ([]string, cobra.ShellCompDirective) {
	words := strings.FieldsFunc(strings.TrimPrefix(c.usage, "[OPTIONS]"), func(r rune) bool { return strings.ContainsRune(" []|:.", r) })
	if len(words) == 0 || (c.args.max >= 0 && len(args) >= c.args.max) {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	kind := words[0]
	if c.args.max > 1 && len(args) > 0 && len(words) > len(args) {
		kind = words[len(args)]
	}
	cl, err := a.client()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	names, err := namesOf(ctx, cl, kind)
	switch {
	case err != nil:
		return nil, cobra.ShellCompDirectiveError
	case names == nil:
		return nil, cobra.ShellCompDirectiveDefault
	}
	return slices.DeleteFunc(names, func(n string) bool { return slices.Contains(args, n) }), cobra.ShellCompDirectiveNoFileComp
}

func namesOf(ctx context.Context, cl *client.Client, kind string) ([]string, error) {
	names := []string{}
	switch kind {
	case "CONTAINER":
		var list []container.Summary
		err := cl.Get(ctx, "/containers/json", url.Values{"all": {"1"}}, &list)
		for _, c := range list {
			names = append(names, psNames(c.Names, false))
		}
		return names, err
	case "IMAGE", "SOURCE_IMAGE", "NAME", "REPOSITORY":
		var list []image.Summary
		err := cl.Get(ctx, "/images/json", nil, &list)
		for _, i := range list {
			for _, t := range i.RepoTags {
				if t != "<none>:<none>" {
					names = append(names, t)
				}
			}
		}
		return names, err
	case "NETWORK":
		var list []network.Summary
		err := cl.Get(ctx, "/networks", nil, &list)
		for _, n := range list {
			names = append(names, n.Name)
		}
		return names, err
	case "VOLUME":
		var list volume.ListResponse
		err := cl.Get(ctx, "/volumes", nil, &list)
		for _, v := range list.Volumes {
			names = append(names, v.Name)
		}
		return names, err
	}
	return nil, nil
}
