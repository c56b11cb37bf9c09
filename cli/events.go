package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/moby/moby/api/types/events"
	"github.com/spf13/pflag"

	"github.com/wherry-engine/wherry/cli/format"
	"github.com/wherry-engine/wherry/client"
)

func eventsCommand() command {
	return command{
		group: "system", name: "events", top: "events",
		usage: "[OPTIONS]", short: "Print what happens in the engine as it happens",
		args: noArgs(),
		run: func(a *app, f *pflag.FlagSet) runFunc {
			var l listFlags
			var since, until string
			var timing bool
			l.addFilter(f, "")
			f.StringVar(&l.format, "format", "", inspectFormatHelp)
			f.StringVar(&since, "since", "", "Start with events from this time on")
			f.StringVar(&until, "until", "", "Stop at events of this time")
			f.BoolVar(&timing, "timing", false, "Show where the time of creating, starting and removing containers goes")
			return func(ctx context.Context, _ []string) error {
				q := url.Values{}
				if timing {
					q.Set("timing", "1")
				}
				setFilters(q, l.filters)
				now := time.Now()
				for name, v := range map[string]string{"since": since, "until": until} {
					if v == "" {
						continue
					}
					t, err := timestamp(v, now)
					if err != nil {
						return err
					}
					q.Set(name, t)
				}
				return a.events(ctx, q, l.format)
			}
		},
	}
}

func (a *app) events(ctx context.Context, q url.Values, tmpl string) error {
	show := a.printEvent
	if tmpl != "" {
		if tmpl == "json" {
			tmpl = format.JSON
		}
		if _, err := format.Parse(tmpl); err != nil {
			return statusError{64, err.Error()}
		}
		show = func(m events.Message) error { return format.Value(a.out, tmpl, m) }
	}
	cl, err := a.client()
	if err != nil {
		return err
	}
	body, err := cl.Stream(ctx, client.Request{Method: http.MethodGet, Path: "/events", Query: q})
	if err != nil {
		return err
	}
	defer body.Close() //nolint:errcheck // read to its end
	dec := json.NewDecoder(body)
	for {
		var m events.Message
		if err := dec.Decode(&m); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return endOf(ctx, err)
		}
		if err := show(m); err != nil {
			return err
		}
	}
}

// printEvent prints time, type, action, ID and attributes, by name.
func (a *app) printEvent(m events.Message) error {
	t := time.Unix(m.Time, 0)
	if m.TimeNano != 0 {
		t = time.Unix(0, m.TimeNano)
	}
	attrs := make([]string, 0, len(m.Actor.Attributes))
	for k, v := range m.Actor.Attributes {
		if k != timingAttr {
			attrs = append(attrs, k+"="+v)
		}
	}
	slices.Sort(attrs)
	line := fmt.Sprintf("%s %s %s %s", t.Format("2006-01-02T15:04:05.000000000Z07:00"), m.Type, m.Action, m.Actor.ID)
	if len(attrs) > 0 {
		line += " (" + strings.Join(attrs, ", ") + ")"
	}
	_, err := fmt.Fprintln(a.out, line+timingTable(m.Actor.Attributes[timingAttr]))
	return err
}

// timingAttr is the attribute that --timing asks for: "PHASE=DURATION, …".
const timingAttr = "timing"

// timingTable is a line for each phase, in milliseconds.
func timingTable(timing string) string {
	if timing == "" {
		return ""
	}
	var b strings.Builder
	for phase := range strings.SplitSeq(timing, ", ") {
		name, value, _ := strings.Cut(phase, "=")
		d, err := time.ParseDuration(value)
		if err != nil {
			continue // of a daemon that words it differently
		}
		fmt.Fprintf(&b, "\n    %-32s %9.3f ms", name, float64(d.Microseconds())/1000)
	}
	return b.String()
}
