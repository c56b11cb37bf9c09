package cli

import (
	"context"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/network"
	"github.com/spf13/pflag"

	"github.com/wherry-engine/wherry/cli/format"
)

func networkLsCommand() command {
	return command{
		group: "network", name: "ls", aliases: []string{"list"},
		usage: "[OPTIONS]", short: "List networks",
		args: noArgs(),
		run: func(a *app, f *pflag.FlagSet) runFunc {
			var l listFlags
			l.addFilter(f, "driver=bridge")
			l.addFormat(f)
			f.BoolVar(&l.noTrunc, "no-trunc", false, "Print long values in full")
			f.BoolVarP(&l.quiet, "quiet", "q", false, "Print nothing but network IDs")
			return func(ctx context.Context, _ []string) error { return a.networks(ctx, l) }
		},
	}
}

func (a *app) networks(ctx context.Context, l listFlags) error {
	q := url.Values{}
	setFilters(q, l.filters)
	cl, err := a.client()
	if err != nil {
		return err
	}
	var list []network.Summary
	if err := cl.Get(ctx, "/networks", q, &list); err != nil {
		return err
	}
	slices.SortFunc(list, func(x, y network.Summary) int { return naturalCompare(x.Name, y.Name) })
	tmpl := format.Resolve(l.format, a.config().NetworksFormat, "{{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.Scope}}")
	switch {
	case l.quiet && (l.format == "" || l.format == "table"):
		tmpl = "{{.ID}}"
	case l.format == "raw":
		tmpl = "network_id: {{.ID}}\nname: {{.Name}}\ndriver: {{.Driver}}\nscope: {{.Scope}}\n"
	}
	rows := make([]*networkRow, 0, len(list))
	for _, n := range list {
		rows = append(rows, &networkRow{
			CreatedAt: n.Created.String(), Driver: n.Driver, ID: maybeShort(n.ID, l.noTrunc),
			IPv4: strconv.FormatBool(n.EnableIPv4), IPv6: strconv.FormatBool(n.EnableIPv6),
			Internal: strconv.FormatBool(n.Internal), Labels: labelText(n.Labels), Name: n.Name, Scope: n.Scope, labels: n.Labels,
		})
	}
	header := &networkRow{
		CreatedAt: "CREATED AT", Driver: "DRIVER", ID: "NETWORK ID", IPv4: "IPV4", IPv6: "IPV6", Internal: "INTERNAL",
		Labels: "LABELS", Name: "NAME", Scope: "SCOPE", header: true,
	}
	return format.Rows(a.out, tmpl, header, rows)
}

// networkRow is what templates of `network ls --format` see.
type networkRow struct {
	CreatedAt, Driver, ID, IPv4, IPv6, Internal, Labels, Name, Scope string

	labels map[string]string
	header bool
}

// Label returns one label.
func (r *networkRow) Label(name string) string {
	if r.header {
		return lastPart(name)
	}
	return r.labels[name]
}

// naturalCompare orders names as people do: net9 before net10.
func naturalCompare(a, b string) int {
	for a != "" && b != "" {
		x, y := digits(a), digits(b)
		if x > 0 && y > 0 {
			n, m := strings.TrimLeft(a[:x], "0"), strings.TrimLeft(b[:y], "0")
			if len(n) != len(m) {
				return len(n) - len(m)
			}
			if c := strings.Compare(n, m); c != 0 {
				return c
			}
			a, b = a[x:], b[y:]
			continue
		}
		if a[0] != b[0] {
			return int(a[0]) - int(b[0])
		}
		a, b = a[1:], b[1:]
	}
	return len(a) - len(b)
}

func digits(s string) int {
	n := 0
	for n < len(s) && s[n] >= '0' && s[n] <= '9' {
		n++
	}
	return n
}
