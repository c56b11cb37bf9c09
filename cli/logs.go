package cli

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/api/types"
	"github.com/spf13/pflag"

	"github.com/wherry-engine/wherry/client"
)

func logsCommand() command {
	return command{
		group: "container", name: "logs", top: "logs",
		usage: "[OPTIONS] CONTAINER", short: "Print what a container has written",
		args: exactArgs(1),
		run: func(a *app, f *pflag.FlagSet) runFunc {
			l := &logger{a: a}
			f.BoolVar(&l.details, "details", false, "Print the labels and variables logged with each line")
			f.BoolVarP(&l.follow, "follow", "f", false, "Go on printing as more is written")
			f.StringVar(&l.since, "since", "", "Only lines after this time: a timestamp, or a duration such as 10m for ten minutes ago")
			f.StringVar(&l.until, "until", "", "Only lines before this time: a timestamp, or a duration such as 10m for ten minutes ago")
			f.StringVarP(&l.tail, "tail", "n", "all", "How many of the last lines to print")
			f.BoolVarP(&l.timestamps, "timestamps", "t", false, "Show timestamps")
			return l.run
		},
	}
}

type logger struct {
	a                           *app
	details, follow, timestamps bool
	since, until, tail          string
}

func (l *logger) run(ctx context.Context, args []string) error {
	q, err := l.query(time.Now())
	if err != nil {
		return err
	}
	cl, err := l.a.client()
	if err != nil {
		return err
	}
	resp, err := cl.Do(ctx, client.Request{Method: http.MethodGet, Path: containerPath(args[0], "logs"), Query: q})
	if err != nil {
		return err
	}
	defer resp.Body.Close() //nolint:errcheck // read to its end
	raw, err := isRaw(ctx, cl, resp, args[0])
	if err != nil {
		return err
	}
	if raw {
		_, err = io.Copy(l.a.out, resp.Body)
	} else {
		err = client.Demux(l.a.out, l.a.err, resp.Body)
	}
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// isRaw tells a terminal's stream from a multiplexed one. Daemons before API
// 1.42 do not say which it is, so the container is asked.
func isRaw(ctx context.Context, cl *client.Client, resp *http.Response, name string) (bool, error) {
	switch resp.Header.Get("Content-Type") {
	case string(types.MediaTypeMultiplexedStream):
		return false, nil
	case string(types.MediaTypeRawStream):
		if !client.Older(cl.Version(), "1.42") {
			return true, nil
		}
	}
	c, err := inspectContainer(ctx, cl, name)
	if err != nil {
		return false, err
	}
	return c.Config.Tty, nil
}

func (l *logger) query(now time.Time) (url.Values, error) {
	q := url.Values{"stdout": {"1"}, "stderr": {"1"}, "tail": {l.tail}}
	for name, on := range map[string]bool{"details": l.details, "follow": l.follow, "timestamps": l.timestamps} {
		if on {
			q.Set(name, "1")
		}
	}
	for name, v := range map[string]string{"since": l.since, "until": l.until} {
		if v == "" {
			continue
		}
		t, err := timestamp(v, now)
		if err != nil {
			return nil, invalidf("invalid value for %q: %v", name, err)
		}
		q.Set(name, t)
	}
	return q, nil
}

// timestamp turns "42m", a date or seconds since 1970 into the API's
// seconds.nanoseconds. Dates without a zone are local.
func timestamp(v string, now time.Time) (string, error) {
	if d, err := time.ParseDuration(v); err == nil && v != "0" {
		return unixTime(now.Add(-d)), nil
	}
	if sec, frac, _ := strings.Cut(v, "."); isDigits(sec) && isDigits("0"+frac) {
		return v, nil
	}
	local := !strings.HasSuffix(v, "Z") && !hasOffset(v)
	for _, layout := range []string{"2006-01-02T15:04:05.999999999", "2006-01-02T15:04", "2006-01-02T15", "2006-01-02"} {
		if local {
			if t, err := time.ParseInLocation(layout, v, time.Local); err == nil {
				return unixTime(t), nil
			}
			continue
		}
		if t, err := time.Parse(layout+"Z07:00", v); err == nil {
			return unixTime(t), nil
		}
	}
	return "", invalidf("failed to parse value as time or duration: %q", v)
}

// hasOffset reports whether a date ends in +01:00 or the like.
func hasOffset(v string) bool {
	return len(v) > 6 && (v[len(v)-6] == '+' || v[len(v)-6] == '-') && v[len(v)-3] == ':' && strings.Contains(v, "T")
}

func unixTime(t time.Time) string {
	return strconv.FormatInt(t.Unix(), 10) + "." + leftPad(strconv.Itoa(t.Nanosecond()), 9)
}

func leftPad(s string, n int) string { return strings.Repeat("0", max(n-len(s), 0)) + s }

func isDigits(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }
