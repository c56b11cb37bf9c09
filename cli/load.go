package cli

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"os"

	"github.com/spf13/pflag"

	"github.com/wherry-engine/wherry/cli/terminal"
	"github.com/wherry-engine/wherry/client"
)

func loadCommand() command {
	return command{
		group: "image", name: "load", top: "load",
		usage: "[OPTIONS]", short: "Read images from a tar archive",
		args: noArgs(),
		run: func(a *app, f *pflag.FlagSet) runFunc {
			var input string
			var quiet bool
			var platforms []string
			f.StringVarP(&input, "input", "i", "", "Archive file to read rather than standard input")
			f.BoolVarP(&quiet, "quiet", "q", false, "Show no progress")
			f.StringSliceVar(&platforms, "platform", nil, "Platform to load, as os[/arch[/variant]]; all if not given")
			return func(ctx context.Context, args []string) error {
				q := url.Values{"quiet": {"0"}}
				if quiet || !a.outTerminal() {
					q.Set("quiet", "1")
				}
				if err := addPlatforms(q, "platform", platforms); err != nil {
					return err
				}
				in, err := a.openInput(input)
				if err != nil {
					return err
				}
				defer in.Close() //nolint:errcheck // only read
				return a.load(ctx, in, q)
			}
		},
	}
}

// openInput opens the file, or the standard input unless it is a terminal.
func (a *app) openInput(path string) (io.ReadCloser, error) {
	if path != "" {
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		if st, err := f.Stat(); err == nil && st.IsDir() {
			_ = f.Close()
			return nil, invalidf("%s is a directory", path)
		}
		return f, nil
	}
	if terminal.Is(a.in) {
		return nil, invalidf("requested load from stdin, but stdin is empty")
	}
	return io.NopCloser(a.in), nil
}

func (a *app) load(ctx context.Context, in io.Reader, q url.Values) error {
	cl, err := a.client()
	if err != nil {
		return err
	}
	resp, err := cl.Do(ctx, client.Request{Method: http.MethodPost, Path: "/images/load", Query: q, Body: in})
	if err != nil {
		return err
	}
	if resp.Header.Get("Content-Type") == "application/json" {
		return a.showProgress(ctx, resp.Body, a.out, nil)
	}
	defer resp.Body.Close() //nolint:errcheck // read to its end
	_, err = io.Copy(a.out, resp.Body)
	return err
}
