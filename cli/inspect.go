package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/volume"
	"github.com/spf13/pflag"

	"github.com/wherry-engine/wherry/cli/format"
	"github.com/wherry-engine/wherry/client"
)

func inspectCommand() command {
	return command{
		name: "inspect", usage: "[OPTIONS] NAME|ID [NAME|ID...]", short: "Show everything known about containers, images and other objects",
		args: minArgs(1),
		run: func(a *app, f *pflag.FlagSet) runFunc {
			var tmpl, kind string
			var sizes bool
			f.StringVarP(&tmpl, "format", "f", "", inspectFormatHelp)
			f.BoolVarP(&sizes, "size", "s", false, "For containers, include disk sizes (takes longer)")
			f.StringVar(&kind, "type", "", "Kind of object to look for (container, image, network, volume)")
			return func(ctx context.Context, args []string) error {
				kinds, err := kindsOf(kind, f.Changed("type"))
				if err != nil {
					return err
				}
				return a.inspect(ctx, args, tmpl, kinds, inspectQuery(sizes))
			}
		},
	}
}

// inspectKind is a type of object: its name, its path, its Go type.
type inspectKind struct {
	name   string
	path   func(name string) string
	typed  func() any
	legacy func(map[string]any)
}

func inspectKinds() []inspectKind {
	at := func(prefix, suffix string) func(string) string {
		return func(n string) string { return prefix + client.Segment(n) + suffix }
	}
	return []inspectKind{
		{"container", at("/containers/", "/json"), func() any { return &container.InspectResponse{} }, legacyNetwork},
		{"image", func(n string) string { return imagePath(n, "json") }, func() any { return &image.InspectResponse{} }, nil},
		{"network", at("/networks/", ""), func() any { return &network.Inspect{} }, nil},
		{"volume", at("/volumes/", ""), func() any { return &volume.Volume{} }, nil},
	}
}

// legacyNetwork puts the address on the default network where it was before API
// 1.52, as many scripts look for it there.
func legacyNetwork(c map[string]any) {
	ns, _ := c["NetworkSettings"].(map[string]any)
	if ns == nil {
		return
	}
	all, _ := ns["Networks"].(map[string]any)
	bridge, _ := all["bridge"].(map[string]any)
	for _, key := range []string{"EndpointID", "Gateway", "GlobalIPv6Address", "IPAddress", "IPv6Gateway", "MacAddress"} {
		setMissing(ns, bridge, key, "")
	}
	for _, key := range []string{"GlobalIPv6PrefixLen", "IPPrefixLen"} {
		setMissing(ns, bridge, key, int64(0))
	}
}

func setMissing(to, from map[string]any, key string, none any) {
	if _, ok := to[key]; ok {
		return
	}
	if v, ok := from[key]; ok {
		none = v
	}
	to[key] = none
}

// kindsOf returns the kinds to try, in order.
func kindsOf(kind string, given bool) ([]inspectKind, error) {
	if !given {
		return inspectKinds(), nil
	}
	for _, k := range inspectKinds() {
		if k.name == kind {
			return []inspectKind{k}, nil
		}
	}
	switch kind {
	case "node", "plugin", "secret", "service", "task", "config":
		return nil, invalidf("--type %s is not supported", kind)
	case "":
		return nil, invalidf("type is empty: must be one of \"config\", \"container\", \"image\", \"network\", \"node\", \"plugin\", \"secret\", \"service\", \"task\", \"volume\"")
	}
	return nil, invalidf("unknown type: %q: must be one of \"config\", \"container\", \"image\", \"network\", \"node\", \"plugin\", \"secret\", \"service\", \"task\", \"volume\"", kind)
}

func inspectQuery(sizes bool) url.Values {
	q := url.Values{}
	if sizes {
		q.Set("size", "1")
	}
	return q
}

// inspect prints what the daemon knows of each name, found in the first of
// kinds that has it, and then the errors.
func (a *app) inspect(ctx context.Context, names []string, tmpl string, kinds []inspectKind, q url.Values) error {
	cl, err := a.client()
	if err != nil {
		return err
	}
	var objects []format.Object
	var texts []string
	for _, n := range names {
		o, err := inspectOne(ctx, cl, n, kinds, q)
		var conn *client.ConnError
		switch {
		case err == nil:
			objects = append(objects, o)
		case errors.As(err, &conn):
			return err
		default:
			texts = append(texts, a.message(err))
		}
	}
	if err := format.Inspect(a.out, tmpl, objects); err != nil {
		texts = append(texts, err.Error())
	}
	if texts != nil {
		return statusError{1, strings.Join(texts, "\n")}
	}
	return nil
}

func inspectOne(ctx context.Context, cl *client.Client, name string, kinds []inspectKind, q url.Values) (format.Object, error) {
	for _, k := range kinds {
		var raw json.RawMessage
		err := cl.Get(ctx, k.path(name), q, &raw)
		if err == nil {
			return format.Object{Raw: raw, Typed: k.typed, Legacy: k.legacy}, nil
		}
		if len(kinds) == 1 {
			return format.Object{}, err
		}
		if !errdefs.IsNotFound(err) && !errdefs.IsInvalidArgument(err) && !errdefs.IsNotImplemented(err) {
			return format.Object{}, err
		}
	}
	return format.Object{}, fmt.Errorf("Error: No such object: %s", name) //nolint:staticcheck // Docker's words
}

// inspectOf makes the inspect command of one kind of object.
func inspectOf(kind, usage, short string, flags func(f *pflag.FlagSet) func() (url.Values, error)) command {
	return command{
		group: kind, name: "inspect", usage: usage, short: short, args: minArgs(1),
		run: func(a *app, f *pflag.FlagSet) runFunc {
			var tmpl string
			f.StringVarP(&tmpl, "format", "f", "", inspectFormatHelp)
			query := func() (url.Values, error) { return nil, nil }
			if flags != nil {
				query = flags(f)
			}
			return func(ctx context.Context, args []string) error {
				kinds, err := kindsOf(kind, true)
				if err != nil {
					return err
				}
				q, err := query()
				if err != nil {
					return err
				}
				return a.inspect(ctx, args, tmpl, kinds, q)
			}
		},
	}
}

func containerInspectCommand() command {
	return inspectOf("container", "[OPTIONS] CONTAINER [CONTAINER...]", "Show everything known about containers",
		func(f *pflag.FlagSet) func() (url.Values, error) {
			sizes := f.BoolP("size", "s", false, "Include disk sizes (takes longer)")
			return func() (url.Values, error) { return inspectQuery(*sizes), nil }
		})
}

func imageInspectCommand() command {
	return inspectOf("image", "[OPTIONS] IMAGE [IMAGE...]", "Show everything known about images",
		func(f *pflag.FlagSet) func() (url.Values, error) {
			platform := f.String("platform", "", "Platform of the image to show, as os[/arch[/variant]]")
			return func() (url.Values, error) {
				q := url.Values{}
				if *platform == "" {
					return q, nil
				}
				return q, addPlatforms(q, "platform", []string{*platform})
			}
		})
}

func networkInspectCommand() command {
	return inspectOf("network", "[OPTIONS] NETWORK [NETWORK...]", "Show everything known about networks",
		func(f *pflag.FlagSet) func() (url.Values, error) {
			verbose := f.BoolP("verbose", "v", false, "Add details for finding faults")
			return func() (url.Values, error) {
				if *verbose {
					return url.Values{"verbose": {"true"}}, nil
				}
				return nil, nil
			}
		})
}

func volumeInspectCommand() command {
	return inspectOf("volume", "[OPTIONS] VOLUME [VOLUME...]", "Show everything known about volumes", nil)
}
