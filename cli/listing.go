package cli

import (
	"encoding/json"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/spf13/pflag"

	"github.com/wherry-engine/wherry/cli/opts"
)

// listFlags are the flags that most listings share.
type listFlags struct {
	format  string
	quiet   bool
	noTrunc bool
	filters opts.Filters
}

func (l *listFlags) addFormat(f *pflag.FlagSet) { f.StringVar(&l.format, "format", "", formatHelp) }

func (l *listFlags) addFilter(f *pflag.FlagSet, example string) {
	help := "Only list what matches (KEY=VALUE)"
	if example != "" {
		help = `Only list what matches, such as "` + example + `"`
	}
	f.VarP(&l.filters, "filter", "f", help)
}

// setFilters adds filters to q in the API's form.
func setFilters(q url.Values, filters opts.Filters) {
	if len(filters) == 0 {
		return
	}
	raw, err := json.Marshal(filters)
	if err != nil { // a map of strings and booleans
		return
	}
	q.Set("filters", string(raw))
}

// shortID is the first twelve digits of an ID, without its algorithm.
func shortID(id string) string {
	if _, hex, ok := strings.Cut(id, ":"); ok {
		id = hex
	}
	if len(id) > 12 {
		return id[:12]
	}
	return id
}

// maybeShort is shortID unless --no-trunc.
func maybeShort(id string, noTrunc bool) string {
	if noTrunc {
		return id
	}
	return shortID(id)
}

// ellipsis cuts s to n characters, the last being "…".
func ellipsis(s string, n int) string {
	r := []rune(s)
	if len(r) <= n {
		return s
	}
	if n < 1 {
		return ""
	}
	return string(r[:n-1]) + "…"
}

// ago is the age of a moment in seconds since 1970.
func ago(sec int64) string {
	return units.HumanDuration(time.Now().UTC().Sub(time.Unix(sec, 0))) + " ago"
}

// labelText is how tables show labels.
func labelText(m map[string]string) string {
	pairs := make([]string, 0, len(m))
	for k, v := range m {
		pairs = append(pairs, k+"="+v)
	}
	slices.Sort(pairs)
	return strings.Join(pairs, ",")
}

func size(n int64) string { return units.HumanSizeWithPrecision(float64(n), 3) }
