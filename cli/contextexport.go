package cli

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/spf13/pflag"

	"github.com/wherry-engine/wherry/cli/config"
)

func contextExportCommand() command {
	return command{
		group: "context", name: "export", usage: "[OPTIONS] CONTEXT [FILE|-]", short: `Write a context to a tar archive, or to standard output with "-"`,
		args: rangeArgs(1, 2),
		run: func(a *app, _ *pflag.FlagSet) runFunc {
			return func(_ context.Context, args []string) error {
				file := args[0] + ".dockercontext"
				if len(args) == 2 {
					file = args[1]
				}
				return a.exportContext(args[0], file)
			}
		},
	}
}

func (a *app) exportContext(name, file string) error {
	c, tls, err := a.readContext(name)
	if err != nil {
		return err
	}
	c.Name = name
	if file == "-" && a.outTerminal() {
		return invalidf("cowardly refusing to export to a terminal, specify a file path")
	}
	raw, err := json.Marshal(map[string]any{"Name": c.Name, "Metadata": c.Metadata, "Endpoints": c.Endpoints})
	if err != nil {
		return err
	}
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	if err := addFile(w, "meta.json", raw); err != nil {
		return err
	}
	for n, content := range tls {
		if err := addFile(w, "tls/docker/"+n, content); err != nil {
			return err
		}
	}
	if err := w.Close(); err != nil {
		return err
	}
	if file == "-" {
		_, err = buf.WriteTo(a.out)
		return err
	}
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = buf.WriteTo(f)
	if err = firstError(err, f.Close()); err != nil {
		return err
	}
	fmt.Fprintf(a.err, "Written file %q\n", file)
	return nil
}

func contextImportCommand() command {
	return command{
		group: "context", name: "import", usage: "CONTEXT FILE|-", short: "Read a context from a tar archive", args: exactArgs(2),
		run: func(a *app, _ *pflag.FlagSet) runFunc {
			return func(_ context.Context, args []string) error { return a.importContext(args[0], args[1]) }
		},
	}
}

func (a *app) importContext(name, file string) error {
	if !config.ValidContextName(name) {
		return invalidf("context name %q is invalid", name)
	}
	if _, err := a.config().Context(name); err == nil {
		return classError{fmt.Sprintf("context %q already exists", name), errdefs.ErrAlreadyExists}
	}
	var in io.Reader = a.in
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return err
		}
		defer f.Close() //nolint:errcheck // only read
		in = f
	}
	c, tls, err := readContextArchive(io.LimitReader(in, 10<<20))
	if err != nil {
		return fmt.Errorf("import context %s: %w", name, err)
	}
	c.Name = name
	if err := a.config().WriteContext(c, tls); err != nil {
		return err
	}
	fmt.Fprintln(a.out, name)
	fmt.Fprintf(a.err, "Successfully imported context %q\n", name)
	return nil
}

func readContextArchive(r io.Reader) (config.Context, config.TLSData, error) {
	var c config.Context
	tls := config.TLSData{}
	found := false
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			if !found {
				return c, nil, invalidf("no meta.json in the archive")
			}
			return c, tls, nil
		}
		if err != nil {
			return c, nil, err
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		raw, err := io.ReadAll(tr)
		if err != nil {
			return c, nil, err
		}
		if n, ok := strings.CutPrefix(h.Name, "tls/docker/"); ok {
			tls[n] = raw
			continue
		}
		if h.Name != "meta.json" {
			return c, nil, invalidf("unexpected file %s in the archive", h.Name)
		}
		found = true
		if err := json.Unmarshal(raw, &c); err != nil {
			return c, nil, err
		}
	}
}
