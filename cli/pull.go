package cli

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"

	"github.com/moby/moby/api/types/registry"
	"github.com/spf13/pflag"

	"github.com/wherry-engine/wherry/cli/config"
	"github.com/wherry-engine/wherry/cli/progress"
	"github.com/wherry-engine/wherry/cli/terminal"
	"github.com/wherry-engine/wherry/client"
	"github.com/wherry-engine/wherry/ociref"
)

func pullCommand() command {
	return command{
		group: "image", name: "pull", top: "pull", common: 5,
		usage: "[OPTIONS] NAME[:TAG|@DIGEST]", short: "Fetch an image from a registry",
		args: exactArgs(1),
		run: func(a *app, f *pflag.FlagSet) runFunc {
			var o pullOptions
			var quiet bool
			f.BoolVarP(&o.all, "all-tags", "a", false, "Fetch every tag of the repository")
			f.StringVar(&o.platform, "platform", defaultPlatform(), "Platform of the image, as os[/arch[/variant]]")
			f.BoolVarP(&quiet, "quiet", "q", false, "Print only the result")
			ignoreTrust(f)
			return func(ctx context.Context, args []string) error {
				ref, err := ociref.Parse(args[0])
				switch {
				case err != nil:
					return err
				case o.all && !ref.NameOnly():
					return invalidf("tag can't be used with --all-tags/-a")
				case !o.all && ref.NameOnly():
					ref = ref.WithDefaultTag()
					if !quiet {
						fmt.Fprintf(a.out, "Using default tag: %s\n", ref.Tag)
					}
				}
				o.out = a.out
				if quiet {
					o.out = io.Discard
				}
				cl, err := a.client()
				if err != nil {
					return err
				}
				if err := a.pull(ctx, cl, ref, o); err != nil {
					return err
				}
				fmt.Fprintln(a.out, ref.String())
				return nil
			}
		},
	}
}

// pullOptions are what pull is told; progress goes to out.
type pullOptions struct {
	platform string
	all      bool
	out      io.Writer
}

// pull fetches an image.
func (a *app) pull(ctx context.Context, cl *client.Client, ref ociref.Reference, o pullOptions) error {
	auth, err := a.registryAuth(ref.Domain)
	if err != nil {
		return err
	}
	q := url.Values{"fromImage": {ref.Name()}}
	switch {
	case o.all:
	case ref.Digest != "":
		q.Set("tag", ref.Digest.String())
	default:
		q.Set("tag", ref.Tag)
	}
	if o.platform != "" {
		q.Set("platform", o.platform)
	}
	body, err := cl.Stream(ctx, client.Request{Method: http.MethodPost, Path: "/images/create", Query: q, Header: authHeader(auth)})
	if err != nil {
		return err
	}
	return a.showProgress(ctx, body, o.out, nil)
}

// showProgress prints a stream of JSON messages and closes it.
func (a *app) showProgress(ctx context.Context, body io.ReadCloser, out io.Writer, aux func(json.RawMessage)) error {
	defer body.Close() //nolint:errcheck // read to its end
	o := progress.Options{Out: out, Aux: aux}
	if f, ok := out.(*os.File); ok && terminal.Is(f) {
		o.Terminal = true
		_, o.Width = terminal.Size(f)
	}
	err := progress.Show(body, o)
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// registryAuth returns the credentials stored for a registry.
func (a *app) registryAuth(domain string) (registry.AuthConfig, error) {
	return a.config().Credentials(config.AuthKey(domain))
}

// authHeader is X-Registry-Auth; without credentials it says so.
func authHeader(auth registry.AuthConfig) http.Header {
	raw, err := json.Marshal(auth)
	if err != nil {
		raw = []byte("{}")
	}
	return http.Header{registry.AuthHeader: {base64.URLEncoding.EncodeToString(raw)}}
}
