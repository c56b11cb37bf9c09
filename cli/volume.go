package cli

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strconv"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/volume"
	"github.com/spf13/pflag"

	"github.com/wherry-engine/wherry/cli/format"
	"github.com/wherry-engine/wherry/cli/opts"
	"github.com/wherry-engine/wherry/client"
)

func volumeCreateCommand() command {
	return command{
		group: "volume", name: "create",
		usage: "[OPTIONS] [VOLUME]", short: "Set up a volume",
		args: maxArgs(1),
		run: func(a *app, f *pflag.FlagSet) runFunc {
			var req volume.CreateRequest
			var labels []string
			f.StringVarP(&req.Driver, "driver", "d", "local", "Driver of the volume")
			f.StringVar(&req.Name, "name", "", "Name of the volume")
			_ = f.MarkHidden("name")
			f.VarP(opts.NewMap(&req.DriverOpts, nil), "opt", "o", "Setting for the driver (KEY=VALUE)")
			f.Var(newList(&labels), "label", "Label for the volume (KEY=VALUE)")
			refuse(f, "availability", "group", "limit-bytes", "required-bytes", "scope", "secret", "sharing",
				"topology-preferred", "topology-required", "type")
			return func(ctx context.Context, args []string) error {
				if len(args) == 1 {
					if req.Name != "" {
						return invalidf("conflicting options: cannot specify a volume-name through both --name and as a positional arg")
					}
					req.Name = args[0]
				}
				var err error
				if req.Labels, err = opts.Labels(nil, labels); err != nil {
					return err
				}
				cl, err := a.client()
				if err != nil {
					return err
				}
				var v volume.Volume
				if err := cl.Post(ctx, "/volumes/create", nil, req, &v); err != nil {
					return err
				}
				fmt.Fprintln(a.out, v.Name)
				return nil
			}
		},
	}
}

func volumeLsCommand() command {
	return command{
		group: "volume", name: "ls", aliases: []string{"list"},
		usage: "[OPTIONS]", short: "List volumes",
		args: noArgs(),
		run: func(a *app, f *pflag.FlagSet) runFunc {
			var l listFlags
			l.addFilter(f, "dangling=true")
			l.addFormat(f)
			f.BoolVarP(&l.quiet, "quiet", "q", false, "Print nothing but volume names")
			refuse(f, "cluster")
			return func(ctx context.Context, _ []string) error { return a.volumes(ctx, l) }
		},
	}
}

func (a *app) volumes(ctx context.Context, l listFlags) error {
	q := url.Values{}
	setFilters(q, l.filters)
	cl, err := a.client()
	if err != nil {
		return err
	}
	var list volume.ListResponse
	if err := cl.Get(ctx, "/volumes", q, &list); err != nil {
		return err
	}
	a.warn(list.Warnings)
	slices.SortFunc(list.Volumes, func(x, y volume.Volume) int { return naturalCompare(x.Name, y.Name) })
	tmpl := format.Resolve(l.format, a.config().VolumesFormat, "{{.Driver}}\t{{.Name}}")
	switch {
	case l.quiet && (l.format == "" || l.format == "table"):
		tmpl = "{{.Name}}"
	case l.format == "raw":
		tmpl = "name: {{.Name}}\ndriver: {{.Driver}}\n"
	}
	rows := make([]*volumeRow, 0, len(list.Volumes))
	for _, v := range list.Volumes {
		rows = append(rows, newVolumeRow(v))
	}
	return format.Rows(a.out, tmpl, volumeHeader(), rows)
}

// volumeRow is what templates of `volume ls --format` see.
type volumeRow struct {
	Availability, Driver, Group, Labels, Links, Mountpoint, Name, Scope, Size, Status string

	labels map[string]string
	header bool
}

// Label returns one label.
func (r *volumeRow) Label(name string) string {
	if r.header {
		return lastPart(name)
	}
	return r.labels[name]
}

func volumeHeader() *volumeRow {
	return &volumeRow{
		Availability: "AVAILABILITY", Driver: "DRIVER", Group: "GROUP", Labels: "LABELS", Links: "LINKS",
		Mountpoint: "MOUNTPOINT", Name: "VOLUME NAME", Scope: "SCOPE", Size: "SIZE", Status: "STATUS", header: true,
	}
}

func newVolumeRow(v volume.Volume) *volumeRow {
	r := &volumeRow{
		Availability: "N/A", Driver: v.Driver, Group: "N/A", Labels: labelText(v.Labels), Links: "N/A",
		Mountpoint: v.Mountpoint, Name: v.Name, Scope: v.Scope, Size: "N/A", Status: "N/A", labels: v.Labels,
	}
	if v.UsageData != nil {
		r.Links = strconv.FormatInt(v.UsageData.RefCount, 10)
		r.Size = size(v.UsageData.Size)
	}
	return r
}

func volumeRmCommand() command {
	return command{
		group: "volume", name: "rm", aliases: []string{"remove"},
		usage: "[OPTIONS] VOLUME [VOLUME...]", short: "Delete volumes",
		long: "Delete volumes that no container uses",
		args: minArgs(1),
		run: func(a *app, f *pflag.FlagSet) runFunc {
			var force bool
			f.BoolVarP(&force, "force", "f", false, "Take a volume that is not there as removed")
			return func(ctx context.Context, args []string) error {
				q := url.Values{}
				if force {
					q.Set("force", "1")
				}
				cl, err := a.client()
				if err != nil {
					return err
				}
				return a.each(args, func(name string) error {
					err := cl.Delete(ctx, "/volumes/"+client.Segment(name), q, nil)
					if force && errdefs.IsNotFound(err) {
						return nil
					}
					return err
				})
			}
		},
	}
}
