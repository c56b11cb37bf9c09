package cli

import (
	"context"
	"net/url"

	"github.com/spf13/pflag"

	"github.com/wherry-engine/wherry/ociref"
)

func tagCommand() command {
	return command{
		group: "image", name: "tag", top: "tag",
		usage: "SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]", short: "Give an image one more name",
		args: exactArgs(2),
		run: func(a *app, _ *pflag.FlagSet) runFunc {
			return func(ctx context.Context, args []string) error {
				ref, err := ociref.ParseTagged(args[1])
				if err != nil {
					return invalidf("Error parsing reference: %q is not a valid repository/tag: %v", args[1], err)
				}
				if ref.Digest != "" {
					return invalidf("refusing to create a tag with a digest reference")
				}
				cl, err := a.client()
				if err != nil {
					return err
				}
				return cl.Post(ctx, imagePath(args[0], "tag"), url.Values{"repo": {ref.Name()}, "tag": {ref.Tag}}, nil, nil)
			}
		},
	}
}
