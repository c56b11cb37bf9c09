package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"github.com/moby/moby/api/types/auxprogress"
	"github.com/spf13/pflag"

	"github.com/wherry-engine/wherry/client"
	"github.com/wherry-engine/wherry/ociref"
)

func pushCommand() command {
	return command{
		group: "image", name: "push", top: "push", common: 6,
		usage: "[OPTIONS] NAME[:TAG]", short: "Send an image to a registry",
		args: exactArgs(1),
		run: func(a *app, f *pflag.FlagSet) runFunc {
			var all, quiet bool
			var platform string
			f.BoolVarP(&all, "all-tags", "a", false, "Upload every tag of the image")
			f.BoolVarP(&quiet, "quiet", "q", false, "Print only the result")
			f.StringVar(&platform, "platform", "", "Push only this platform of the image, as os[/arch[/variant]]")
			ignoreTrust(f)
			return func(ctx context.Context, args []string) error {
				ref, err := ociref.Parse(args[0])
				switch {
				case err != nil:
					return err
				case all && !ref.NameOnly():
					return invalidf("tag can't be used with --all-tags/-a")
				case !all && ref.NameOnly():
					ref = ref.WithDefaultTag()
					if !quiet {
						fmt.Fprintf(a.out, "Using default tag: %s\n", ref.Tag)
					}
				}
				return a.push(ctx, ref, platform, quiet)
			}
		},
	}
}

func (a *app) push(ctx context.Context, ref ociref.Reference, platform string, quiet bool) error {
	auth, err := a.registryAuth(ref.Domain)
	if err != nil {
		return err
	}
	q := url.Values{}
	if ref.Tag != "" {
		q.Set("tag", ref.Tag)
	}
	if platform != "" {
		if err := addPlatforms(q, "platform", []string{platform}); err != nil {
			return err
		}
	}
	cl, err := a.client()
	if err != nil {
		return err
	}
	body, err := cl.Stream(ctx, client.Request{
		Method: http.MethodPost, Path: imagePath(ref.Name(), "push"), Query: q, Header: authHeader(auth),
	})
	if err != nil {
		return err
	}
	var notes []string
	aux := func(raw json.RawMessage) {
		var p auxprogress.ManifestPushedInsteadOfIndex
		if json.Unmarshal(raw, &p) == nil && p.ManifestPushedInsteadOfIndex {
			notes = append(notes, fmt.Sprintf("Not all multiplatform-content is present and only the available single-platform image was pushed\n%s -> %s", p.OriginalIndex.Digest, p.SelectedManifest.Digest))
		}
	}
	out := a.out
	if quiet {
		out = io.Discard
	}
	if err := a.showProgress(ctx, body, out, aux); err != nil {
		return err
	}
	for _, n := range notes {
		fmt.Fprintln(a.err, n)
	}
	if quiet {
		fmt.Fprintln(a.out, ref.String())
	}
	return nil
}
