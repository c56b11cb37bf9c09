package cli

import (
	"context"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/api/types/image"
	"github.com/spf13/pflag"

	"github.com/wherry-engine/wherry/cli/format"
)

func historyCommand() command {
	return command{
		group: "image", name: "history", top: "history",
		usage: "[OPTIONS] IMAGE", short: "Show the steps an image was made in",
		args: exactArgs(1),
		run: func(a *app, f *pflag.FlagSet) runFunc {
			var l listFlags
			var human bool
			var platform string
			l.addFormat(f)
			f.BoolVarP(&human, "human", "H", true, "Round sizes and dates for reading")
			f.BoolVar(&l.noTrunc, "no-trunc", false, "Print long values in full")
			f.BoolVarP(&l.quiet, "quiet", "q", false, "Print nothing but image IDs")
			f.StringVar(&platform, "platform", "", "Platform whose history to show, as os[/arch[/variant]]")
			return func(ctx context.Context, args []string) error {
				q := url.Values{}
				if platform != "" {
					if err := addPlatforms(q, "platform", []string{platform}); err != nil {
						return err
					}
				}
				cl, err := a.client()
				if err != nil {
					return err
				}
				var items []image.HistoryResponseItem
				if err := cl.Get(ctx, imagePath(args[0], "history"), q, &items); err != nil {
					return err
				}
				tmpl := format.Resolve(l.format, "", "{{.ID}}\t{{if .Human}}{{.CreatedSince}}{{else}}{{.CreatedAt}}{{end}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}")
				if l.quiet && (l.format == "" || l.format == "table") {
					tmpl = "{{.ID}}"
				}
				rows := make([]*historyRow, 0, len(items))
				for _, i := range items {
					rows = append(rows, newHistoryRow(i, human, l.noTrunc))
				}
				header := &historyRow{Comment: "COMMENT", CreatedAt: "CREATED AT", CreatedBy: "CREATED BY", CreatedSince: "CREATED", ID: "IMAGE", Size: "SIZE", human: true}
				return format.Rows(a.out, tmpl, header, rows)
			}
		},
	}
}

// historyRow is what templates of `history --format` see.
type historyRow struct {
	Comment, CreatedAt, CreatedBy, CreatedSince, ID, Size string

	human bool
}

// Human chooses the column of the table.
func (r *historyRow) Human() bool { return r.human }

func newHistoryRow(i image.HistoryResponseItem, human, noTrunc bool) *historyRow {
	r := &historyRow{
		Comment: i.Comment, ID: maybeShort(i.ID, noTrunc), human: human,
		CreatedBy: strings.ReplaceAll(i.CreatedBy, "\t", " "), Size: strconv.FormatInt(i.Size, 10),
	}
	if !noTrunc {
		r.CreatedBy = ellipsis(r.CreatedBy, 45)
	}
	if human {
		r.Size = size(i.Size)
	}
	switch {
	case i.Created <= time.Time{}.Unix():
		r.CreatedSince = "N/A"
	default:
		r.CreatedAt = time.Unix(i.Created, 0).Format(time.RFC3339)
		r.CreatedSince = ago(i.Created)
	}
	return r
}
