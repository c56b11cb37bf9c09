package cli

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"

	"github.com/spf13/pflag"

	"github.com/wherry-engine/wherry/client"
)

func saveCommand() command {
	return command{
		group: "image", name: "save", top: "save",
		usage: "[OPTIONS] IMAGE [IMAGE...]", short: "Write images to a tar archive",
		args: minArgs(1),
		run: func(a *app, f *pflag.FlagSet) runFunc {
			var output string
			var platforms []string
			f.StringVarP(&output, "output", "o", "", "File to write rather than standard output")
			f.StringSliceVar(&platforms, "platform", nil, "Platform to save, as os[/arch[/variant]]; all if not given")
			return func(ctx context.Context, args []string) error {
				q := url.Values{"names": args}
				if err := addPlatforms(q, "platform", platforms); err != nil {
					return err
				}
				return a.download(ctx, client.Request{Method: http.MethodGet, Path: "/images/get", Query: q}, output, "save")
			}
		},
	}
}

// download writes an answer to a file, or to the standard output unless it is
// a terminal. The file appears when it is complete.
func (a *app) download(ctx context.Context, r client.Request, output, verb string) error {
	if output == "" && a.outTerminal() {
		return invalidf("cowardly refusing to save to a terminal. Use the -o flag or redirect")
	}
	if output != "" {
		if st, err := os.Stat(filepath.Dir(output)); err != nil || !st.IsDir() {
			return fmt.Errorf("failed to %s: invalid output path: directory %q does not exist", verb, filepath.Dir(output))
		}
		if st, err := os.Stat(output); err == nil && st.IsDir() {
			return fmt.Errorf("failed to %s: invalid output path: %q is a directory", verb, output)
		}
	}
	if output != "" {
		a.signals.watch() // to remove what is there so far when one arrives
	}
	cl, err := a.client()
	if err != nil {
		return err
	}
	body, err := cl.Stream(ctx, r)
	if err != nil {
		return err
	}
	defer body.Close() //nolint:errcheck // read to its end
	if output == "" {
		_, err = io.Copy(a.out, body)
		return endOf(ctx, err)
	}
	return endOf(ctx, writeOutput(output, body))
}

// endOf prefers the signal that ended ctx to the error it caused.
func endOf(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

func writeOutput(path string, r io.Reader) (err error) {
	if st, err := os.Stat(path); err == nil && !st.Mode().IsRegular() { // /dev/null, a pipe
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		_, err = io.Copy(f, r)
		return firstError(err, f.Close())
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(tmp.Name())
		}
	}()
	_, err = io.Copy(tmp, r)
	if err = firstError(err, tmp.Close()); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), path)
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
