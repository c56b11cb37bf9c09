package cli

import (
	"context"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/spf13/pflag"

	"github.com/wherry-engine/wherry/cli/format"
	"github.com/wherry-engine/wherry/ociref"
)

func psCommand() command {
	return command{
		group: "container", name: "ls", aliases: []string{"list", "ps"}, top: "ps", common: 3,
		usage: "[OPTIONS]", short: "List containers",
		args: noArgs(),
		run: func(a *app, f *pflag.FlagSet) runFunc {
			p := &psFlags{}
			f.BoolVarP(&p.all, "all", "a", false, "Include containers that are not running")
			f.IntVarP(&p.last, "last", "n", -1, "Only the newest N containers, running or not")
			f.BoolVarP(&p.latest, "latest", "l", false, "Only the newest container, running or not")
			f.BoolVar(&p.noTrunc, "no-trunc", false, "Print long values in full")
			f.BoolVarP(&p.quiet, "quiet", "q", false, "Print nothing but container IDs")
			f.BoolVarP(&p.size, "size", "s", false, "Include disk sizes (takes longer)")
			p.addFormat(f)
			p.addFilter(f, "")
			return func(ctx context.Context, _ []string) error { return a.ps(ctx, p) }
		},
	}
}

type psFlags struct {
	listFlags
	all, latest, size bool
	last              int
}

const (
	psTable     = "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}"
	psRaw       = "container_id: {{.ID}}\nimage: {{.Image}}\ncommand: {{.Command}}\ncreated_at: {{.CreatedAt}}\nstate: {{.State}}\nstatus: {{.Status}}\nnames: {{.Names}}\nlabels: {{.Labels}}\nports: {{.Ports}}\n"
	psSizeField = "\t{{.Size}}"
)

func (a *app) ps(ctx context.Context, p *psFlags) error {
	tmpl := p.template(a)
	q := url.Values{}
	if p.all {
		q.Set("all", "1")
	}
	if p.latest && p.last < 0 {
		p.last = 1
	}
	if p.last >= 0 {
		q.Set("limit", strconv.Itoa(p.last))
	}
	if p.size || strings.Contains(tmpl, ".Size") || strings.Contains(p.format, "json .}}") {
		q.Set("size", "1")
	}
	setFilters(q, p.filters)
	cl, err := a.client()
	if err != nil {
		return err
	}
	var list []container.Summary
	if err := cl.Get(ctx, "/containers/json", q, &list); err != nil {
		return err
	}
	rows := make([]*psRow, 0, len(list))
	for _, c := range list {
		rows = append(rows, newPsRow(c, p.noTrunc))
	}
	return format.Rows(a.out, tmpl, psHeader(), rows)
}

func (p *psFlags) template(a *app) string {
	table := psTable
	if p.size {
		table += psSizeField
	}
	switch {
	case p.quiet && (p.format == "" || p.format == "table"):
		return "{{.ID}}"
	case p.format == "raw":
		return psRaw
	}
	return format.Resolve(p.format, a.config().PsFormat, table)
}

// psRow is what templates of `ps --format` see; the order is that of
// {{json .}}.
type psRow struct {
	Command, CreatedAt, ID, Image, Labels, LocalVolumes, Mounts, Names, Networks string
	Platform                                                                     any
	Ports, RunningFor, Size, State, Status                                       string

	labels map[string]string
	header bool
}

// Label returns one label.
func (r *psRow) Label(name string) string {
	if r.header {
		return lastPart(name)
	}
	return r.labels[name]
}

// lastPart is the column title of a label: the name after dots and dashes.
func lastPart(name string) string {
	return strings.NewReplacer("-", " ", "_", " ").Replace(name[strings.LastIndexByte(name, '.')+1:])
}

func psHeader() *psRow {
	return &psRow{
		Command: "COMMAND", CreatedAt: "CREATED AT", ID: "CONTAINER ID", Image: "IMAGE", Labels: "LABELS",
		LocalVolumes: "LOCAL VOLUMES", Mounts: "MOUNTS", Names: "NAMES", Networks: "NETWORKS", Platform: "PLATFORM",
		Ports: "PORTS", RunningFor: "CREATED", Size: "SIZE", State: "STATE", Status: "STATUS", header: true,
	}
}

func newPsRow(c container.Summary, noTrunc bool) *psRow {
	r := &psRow{
		Command: strconv.Quote(c.Command), CreatedAt: time.Unix(c.Created, 0).String(), ID: c.ID,
		Image: psImage(c, noTrunc), Labels: labelText(c.Labels), Names: psNames(c.Names, noTrunc),
		Ports: portText(c.Ports), RunningFor: ago(c.Created), State: string(c.State), Status: c.Status,
		labels: c.Labels,
	}
	if !noTrunc {
		r.ID = shortID(c.ID)
		r.Command = strconv.Quote(ellipsis(c.Command, 20))
	}
	r.Size = size(c.SizeRw)
	if c.SizeRootFs > 0 {
		r.Size += " (virtual " + size(c.SizeRootFs) + ")"
	}
	local := 0
	var mounts []string
	for _, m := range c.Mounts {
		if m.Driver == "local" {
			local++
		}
		name := m.Name
		if name == "" {
			name = m.Source
		}
		if !noTrunc {
			name = ellipsis(name, 15)
		}
		mounts = append(mounts, name)
	}
	r.LocalVolumes, r.Mounts = strconv.Itoa(local), strings.Join(mounts, ",")
	if c.NetworkSettings != nil {
		var nets []string
		for n := range c.NetworkSettings.Networks {
			nets = append(nets, n)
		}
		slices.Sort(nets)
		r.Networks = strings.Join(nets, ",")
	}
	if c.ImageManifestDescriptor != nil && c.ImageManifestDescriptor.Platform != nil {
		r.Platform = c.ImageManifestDescriptor.Platform
	}
	return r
}

func psImage(c container.Summary, noTrunc bool) string {
	if c.Image == "" {
		return "<no image>"
	}
	if noTrunc {
		return c.Image
	}
	if id := shortID(c.ImageID); id != "" && id == shortID(c.Image) {
		return id
	}
	if strings.Contains(c.Image, "@") {
		if ref, err := ociref.Parse(c.Image); err == nil && ref.Tag == "" {
			return ref.FamiliarName()
		}
		name, _, _ := strings.Cut(c.Image, "@")
		return name
	}
	return c.Image
}

// psNames joins the names; those of links are shown only in full listings.
func psNames(names []string, noTrunc bool) string {
	var out []string
	for _, n := range names {
		n = strings.TrimPrefix(n, "/")
		if !noTrunc && strings.Contains(n, "/") {
			continue
		}
		out = append(out, n)
	}
	return strings.Join(out, ",")
}
