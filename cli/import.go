package cli

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/spf13/pflag"

	"github.com/wherry-engine/wherry/client"
	"github.com/wherry-engine/wherry/ociref"
)

func importCommand() command {
	return command{
		group: "image", name: "import", top: "import",
		usage: "[OPTIONS] file|URL|- [REPOSITORY[:TAG]]", short: "Make an image from a tar archive of a filesystem",
		args: rangeArgs(1, 2),
		run: func(a *app, f *pflag.FlagSet) runFunc {
			var changes []string
			var message, platform string
			f.VarP(newList(&changes), "change", "c", "Dockerfile instruction to change the new image with")
			f.StringVarP(&message, "message", "m", "", "Message to record in the image")
			f.StringVar(&platform, "platform", defaultPlatform(), "Platform of the image, as os[/arch[/variant]]")
			return func(ctx context.Context, args []string) error {
				q := url.Values{"changes": changes, "message": {message}}
				if len(args) == 2 {
					if _, err := ociref.Parse(args[1]); err != nil {
						return err
					}
					q.Set("repo", args[1])
				}
				if platform != "" {
					q.Set("platform", strings.ToLower(platform))
				}
				return a.importImage(ctx, args[0], q)
			}
		},
	}
}

func (a *app) importImage(ctx context.Context, source string, q url.Values) error {
	var in io.Reader
	switch {
	case source == "-":
		q.Set("fromSrc", "-")
		in = a.in
	case strings.HasPrefix(source, "http://"), strings.HasPrefix(source, "https://"):
		q.Set("fromSrc", source)
	default:
		f, err := os.Open(source)
		if err != nil {
			return err
		}
		defer f.Close() //nolint:errcheck // only read
		q.Set("fromSrc", "-")
		in = f
	}
	cl, err := a.client()
	if err != nil {
		return err
	}
	body, err := cl.Stream(ctx, client.Request{Method: http.MethodPost, Path: "/images/create", Query: q, Body: in})
	if err != nil {
		return err
	}
	return a.showProgress(ctx, body, a.out, nil)
}
