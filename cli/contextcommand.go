package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"os"

	"github.com/spf13/pflag"

	"github.com/wherry-engine/wherry/cli/config"
	"github.com/wherry-engine/wherry/cli/format"
)

const defaultContextNote = "Current DOCKER_HOST based configuration"

func contextLsCommand() command {
	return command{
		group: "context", name: "ls", aliases: []string{"list"},
		usage: "[OPTIONS]", short: "List contexts",
		args: noArgs(),
		run: func(a *app, f *pflag.FlagSet) runFunc {
			var l listFlags
			l.addFormat(f)
			f.BoolVarP(&l.quiet, "quiet", "q", false, "Print nothing but context names")
			return func(context.Context, []string) error { return a.contexts(l) }
		},
	}
}

// contextRow is what templates of `context ls --format` see.
type contextRow struct {
	Current                                  any
	Description, DockerEndpoint, Error, Name string
}

func (a *app) contexts(l listFlags) error {
	current, err := a.contextName()
	if err != nil {
		return err
	}
	host, err := a.defaultHost()
	row := &contextRow{Current: current == config.DefaultContext, Name: config.DefaultContext, Description: defaultContextNote, DockerEndpoint: host}
	if err != nil {
		row.Error = err.Error()
	}
	rows := []*contextRow{row}
	stored, err := a.config().Contexts()
	if err != nil {
		return err
	}
	found := current == config.DefaultContext
	for _, c := range stored {
		found = found || c.Name == current
		rows = append(rows, &contextRow{Current: c.Name == current, Name: c.Name, Description: c.Description(), DockerEndpoint: c.Endpoints["docker"].Host})
	}
	if !found {
		rows = append(rows, &contextRow{Current: true, Name: current, Error: fmt.Sprintf("context %q: context not found", current)})
	}
	for _, r := range rows {
		if !l.quiet {
			r.Description, r.Error = ellipsis(r.Description, 45), ellipsis(r.Error, 45)
		}
	}
	tmpl := format.Resolve(l.format, "", "{{.Name}}{{if .Current}} *{{end}}\t{{.Description}}\t{{.DockerEndpoint}}\t{{.Error}}")
	if l.quiet {
		tmpl = "{{.Name}}"
	}
	header := &contextRow{Current: false, Description: "DESCRIPTION", DockerEndpoint: "DOCKER ENDPOINT", Error: "ERROR", Name: "NAME"}
	if err := format.Rows(a.out, tmpl, header, rows); err != nil {
		return err
	}
	if os.Getenv("DOCKER_HOST") != "" && !l.quiet {
		fmt.Fprint(a.err, "Warning: DOCKER_HOST environment variable overrides the active context. To use a context, either set the global --context flag, or unset DOCKER_HOST environment variable.\n")
	}
	return nil
}

func contextShowCommand() command {
	return command{
		group: "context", name: "show", short: "Name the context in use", args: noArgs(),
		run: func(a *app, _ *pflag.FlagSet) runFunc {
			return func(context.Context, []string) error {
				name, err := a.contextName()
				if err != nil {
					return err
				}
				fmt.Fprintln(a.out, name)
				return nil
			}
		},
	}
}

func contextUseCommand() command {
	return command{
		group: "context", name: "use", usage: "CONTEXT", short: "Choose the context to use from now on", args: exactArgs(1),
		run: func(a *app, _ *pflag.FlagSet) runFunc {
			return func(_ context.Context, args []string) error {
				name, conf := args[0], a.config()
				var value any
				if name != config.DefaultContext {
					if _, err := conf.Context(name); err != nil {
						return err
					}
					value = name
				}
				if err := conf.Set("currentContext", value); err != nil {
					return err
				}
				if err := conf.Save(); err != nil {
					return err
				}
				fmt.Fprintln(a.out, name)
				fmt.Fprintf(a.err, "Current context is now %q\n", name)
				return nil
			}
		},
	}
}

func contextInspectCommand() command {
	return command{
		group: "context", name: "inspect", usage: "[OPTIONS] [CONTEXT] [CONTEXT...]", short: "Show everything known about contexts",
		args: minArgs(0),
		run: func(a *app, f *pflag.FlagSet) runFunc {
			var tmpl string
			f.StringVarP(&tmpl, "format", "f", "", inspectFormatHelp)
			return func(_ context.Context, args []string) error {
				if len(args) == 0 {
					name, err := a.contextName()
					if err != nil {
						return err
					}
					args = []string{name}
				}
				var objects []format.Object
				for _, n := range args {
					o, err := a.contextObject(n)
					if err != nil {
						return err
					}
					objects = append(objects, o)
				}
				return format.Inspect(a.out, tmpl, objects)
			}
		},
	}
}

func (a *app) contextObject(name string) (format.Object, error) {
	type storage struct{ MetadataPath, TLSPath string }
	v := struct {
		Name        string
		Metadata    map[string]any
		Endpoints   map[string]config.Endpoint
		TLSMaterial map[string][]string
		Storage     storage
	}{Name: name, Metadata: map[string]any{}, TLSMaterial: map[string][]string{}, Storage: storage{"<IN MEMORY>", "<IN MEMORY>"}}
	if name == config.DefaultContext {
		host, err := a.defaultHost()
		if err != nil {
			return format.Object{}, err
		}
		v.Endpoints = map[string]config.Endpoint{"docker": {Host: host}}
	} else {
		c, err := a.config().Context(name)
		if err != nil {
			return format.Object{}, err
		}
		v.Metadata, v.Endpoints, v.TLSMaterial = c.Metadata, c.Endpoints, c.TLSFiles()
		v.Storage = storage{c.MetadataPath, c.TLSPath}
	}
	raw, err := json.Marshal(v)
	return format.Object{Raw: raw}, err
}
