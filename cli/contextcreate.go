package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/spf13/pflag"

	"github.com/wherry-engine/wherry/cli/config"
	"github.com/wherry-engine/wherry/cli/opts"
)

// endpointHelp is shared by create and update.
const endpointHelp = `Address and TLS files of the daemon

Keys of --docker:
from              Context to copy these settings from
host              Address of the daemon
ca                File with the CA to trust
cert              File with the client certificate
key               File with the client key
skip-tls-verify   Take any certificate from the daemon`

func contextCreateCommand() command {
	return command{
		group: "context", name: "create", usage: "[OPTIONS] CONTEXT", short: "Save a new context", args: exactArgs(1),
		run: func(a *app, f *pflag.FlagSet) runFunc {
			w := &contextWriter{a: a}
			w.flags(f)
			f.StringVar(&w.from, "from", "", "Context to take the settings from")
			return func(_ context.Context, args []string) error { return w.create(args[0]) }
		},
	}
}

func contextUpdateCommand() command {
	return command{
		group: "context", name: "update", usage: "[OPTIONS] CONTEXT", short: "Change a context", args: exactArgs(1),
		run: func(a *app, f *pflag.FlagSet) runFunc {
			w := &contextWriter{a: a}
			w.flags(f)
			return func(_ context.Context, args []string) error { return w.update(args[0]) }
		},
	}
}

type contextWriter struct {
	a                         *app
	description, docker, from string
	set                       *pflag.FlagSet
}

func (w *contextWriter) flags(f *pflag.FlagSet) {
	w.set = f
	f.StringVar(&w.description, "description", "", "Free text about the context")
	f.StringVar(&w.docker, "docker", "", endpointHelp)
}

func (w *contextWriter) create(name string) error {
	conf := w.a.config()
	if !config.ValidContextName(name) {
		return invalidf("context name %q is invalid, names are validated against regexp \"^[a-zA-Z0-9][a-zA-Z0-9_.+-]+$\"", name)
	}
	if _, err := conf.Context(name); err == nil {
		return classError{fmt.Sprintf("context %q already exists", name), errdefs.ErrAlreadyExists}
	}
	c := config.Context{Name: name, Metadata: map[string]any{}}
	var tls config.TLSData
	switch {
	case w.docker != "":
		var err error
		if c.Endpoints, tls, err = w.endpoint(); err != nil {
			return err
		}
	default:
		src, data, err := w.a.readContext(w.from)
		if err != nil {
			return err
		}
		c.Endpoints, tls = src.Endpoints, data
		if d := src.Description(); d != "" && w.from != "" {
			c.Metadata["Description"] = d
		}
	}
	if w.description != "" {
		c.Metadata["Description"] = w.description
	}
	if err := conf.WriteContext(c, tls); err != nil {
		return err
	}
	fmt.Fprintln(w.a.out, name)
	fmt.Fprintf(w.a.err, "Successfully created context %q\n", name)
	return nil
}

func (w *contextWriter) update(name string) error {
	conf := w.a.config()
	c, err := conf.Context(name)
	if err != nil {
		return err
	}
	if w.set.Changed("description") {
		if c.Metadata == nil {
			c.Metadata = map[string]any{}
		}
		c.Metadata["Description"] = w.description
	}
	var tls config.TLSData
	if w.docker != "" {
		if c.Endpoints, tls, err = w.endpoint(); err != nil {
			return err
		}
	}
	if err := conf.WriteContext(c, tls); err != nil {
		return err
	}
	fmt.Fprintln(w.a.out, name)
	fmt.Fprintf(w.a.err, "Successfully updated context %q\n", name)
	return nil
}

// readContext returns a context to copy; "" is the one in use.
func (a *app) readContext(name string) (config.Context, config.TLSData, error) {
	if name == "" {
		var err error
		if name, err = a.contextName(); err != nil {
			return config.Context{}, nil, err
		}
	}
	if name == config.DefaultContext {
		host, err := a.defaultHost()
		return config.Context{Endpoints: map[string]config.Endpoint{"docker": {Host: host}}}, nil, err
	}
	c, err := a.config().Context(name)
	if err != nil {
		return c, nil, err
	}
	data, err := c.ReadTLS()
	return c, data, err
}

// endpoint reads --docker.
func (w *contextWriter) endpoint() (map[string]config.Endpoint, config.TLSData, error) {
	fields, err := opts.Fields(w.docker)
	if err != nil {
		return nil, nil, err
	}
	ep, tls := config.Endpoint{}, config.TLSData{}
	for _, f := range fields {
		k, v, _ := strings.Cut(f, "=")
		switch k {
		case "from":
			src, data, err := w.a.readContext(v)
			return src.Endpoints, data, err
		case "host":
			if ep.Host, err = w.a.fullHost(v); err != nil {
				return nil, nil, err
			}
		case "ca", "cert", "key":
			if v == "" {
				continue
			}
			if tls[k+".pem"], err = os.ReadFile(v); err != nil {
				return nil, nil, fmt.Errorf("unable to create docker endpoint config: %w", err)
			}
		case "skip-tls-verify":
			if ep.SkipTLSVerify, err = strconv.ParseBool(v); err != nil {
				return nil, nil, invalidf("skip-tls-verify: %v", err)
			}
		default:
			return nil, nil, invalidf("unrecognized config key: %s", k)
		}
	}
	return map[string]config.Endpoint{"docker": ep}, tls, nil
}

func contextRmCommand() command {
	return command{
		group: "context", name: "rm", aliases: []string{"remove"}, usage: "CONTEXT [CONTEXT...]", short: "Delete contexts", args: minArgs(1),
		run: func(a *app, f *pflag.FlagSet) runFunc {
			force := f.BoolP("force", "f", false, "Remove even the context in use")
			return func(_ context.Context, args []string) error {
				return a.each(args, func(name string) error { return a.removeContext(name, *force) })
			}
		},
	}
}

func (a *app) removeContext(name string, force bool) error {
	conf := a.config()
	if name == config.DefaultContext {
		return invalidf("context %q cannot be removed", name)
	}
	if _, err := conf.Context(name); err != nil {
		if force && errors.Is(err, errdefs.ErrNotFound) {
			return nil
		}
		return err
	}
	if current, err := a.contextName(); err == nil && current == name {
		if !force {
			return invalidf("context %q is in use, set -f flag to force remove", name)
		}
		if err := conf.Set("currentContext", nil); err != nil {
			return err
		}
		if err := conf.Save(); err != nil {
			return err
		}
	}
	return conf.RemoveContext(name)
}
