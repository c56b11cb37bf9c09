package cli

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/registry"
	"github.com/spf13/pflag"

	"github.com/wherry-engine/wherry/cli/format"
	"github.com/wherry-engine/wherry/client"
	"github.com/wherry-engine/wherry/ociref"
)

func searchCommand() command {
	return command{
		name: "search", usage: "[OPTIONS] TERM", short: "Find images on a registry", common: 10,
		args: exactArgs(1),
		run: func(a *app, f *pflag.FlagSet) runFunc {
			var l listFlags
			var limit int
			l.addFilter(f, "")
			f.StringVar(&l.format, "format", "", "Print each result by a Go template")
			f.IntVar(&limit, "limit", 0, "Most results to print")
			f.BoolVar(&l.noTrunc, "no-trunc", false, "Print long values in full")
			return func(ctx context.Context, args []string) error { return a.search(ctx, args[0], l, limit) }
		},
	}
}

func (a *app) search(ctx context.Context, term string, l listFlags, limit int) error {
	q := url.Values{"term": {term}}
	if limit > 0 {
		q.Set("limit", strconv.Itoa(limit))
	}
	setFilters(q, l.filters)
	domain := ""
	if ref, err := ociref.Parse(term); err == nil {
		domain = ref.Domain
	}
	auth, err := a.registryAuth(domain)
	if err != nil {
		return err
	}
	cl, err := a.client()
	if err != nil {
		return err
	}
	var list []registry.SearchResult
	r := client.Request{Method: http.MethodGet, Path: "/images/search", Query: q, Header: authHeader(auth)}
	if err := cl.Call(ctx, r, &list); err != nil {
		return err
	}
	rows := make([]*searchRow, 0, len(list))
	for _, i := range list {
		row := &searchRow{Description: strings.ReplaceAll(strings.ReplaceAll(i.Description, "\n", " "), "\r", " "), Name: i.Name, StarCount: strconv.Itoa(i.StarCount)}
		if !l.noTrunc {
			row.Description = ellipsis(row.Description, 45)
		}
		if i.IsOfficial {
			row.IsOfficial = "[OK]"
		}
		rows = append(rows, row)
	}
	header := &searchRow{Description: "DESCRIPTION", IsOfficial: "OFFICIAL", Name: "NAME", StarCount: "STARS"}
	tmpl := format.Resolve(l.format, "", "{{.Name}}\t{{.Description}}\t{{.StarCount}}\t{{.IsOfficial}}")
	return format.Rows(a.out, tmpl, header, rows)
}

// searchRow is what templates of `search --format` see.
type searchRow struct{ Description, IsOfficial, Name, StarCount string }
