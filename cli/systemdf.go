package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"strconv"
	"time"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/build"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/volume"
	"github.com/spf13/pflag"

	"github.com/wherry-engine/wherry/cli/format"
	"github.com/wherry-engine/wherry/client"
)

func systemDfCommand() command {
	return command{
		group: "system", name: "df", usage: "[OPTIONS]", short: "Show the disk space in use", args: noArgs(),
		run: func(a *app, f *pflag.FlagSet) runFunc {
			var l listFlags
			var verbose bool
			l.addFormat(f)
			f.BoolVarP(&verbose, "verbose", "v", false, "List every object and its size")
			return func(ctx context.Context, _ []string) error { return a.df(ctx, l.format, verbose) }
		},
	}
}

// diskUsage is the answer of /system/df, in the form before API 1.52 that
// daemons still send, or made of the newer form.
type diskUsage struct {
	LayersSize int64
	Images     []image.Summary
	Containers []container.Summary
	Volumes    []volume.Volume
	BuildCache []build.CacheRecord

	totals []*dfRow
}

// newDiskUsage is the form since API 1.52.
type newDiskUsage struct {
	ImageUsage      *image.DiskUsage
	ContainerUsage  *container.DiskUsage
	VolumeUsage     *volume.DiskUsage
	BuildCacheUsage *build.DiskUsage
}

func (a *app) df(ctx context.Context, tmpl string, verbose bool) error {
	cl, err := a.client()
	if err != nil {
		return err
	}
	du, err := readDiskUsage(ctx, cl, verbose)
	if err != nil {
		return err
	}
	if verbose {
		if tmpl == "json" {
			return format.Value(a.out, tmpl, dfDetails(du))
		}
		return a.dfVerbose(du, tmpl)
	}
	header := &dfRow{Active: "ACTIVE", Reclaimable: "RECLAIMABLE", Size: "SIZE", TotalCount: "TOTAL", Type: "TYPE"}
	return format.Rows(a.out, format.Resolve(tmpl, "", "{{.Type}}\t{{.TotalCount}}\t{{.Active}}\t{{.Size}}\t{{.Reclaimable}}"), header, du.totals)
}

func readDiskUsage(ctx context.Context, cl *client.Client, verbose bool) (*diskUsage, error) {
	q := url.Values{}
	if verbose {
		q.Set("verbose", "1")
	}
	var raw json.RawMessage
	if err := cl.Get(ctx, "/system/df", q, &raw); err != nil {
		return nil, err
	}
	du := &diskUsage{}
	if err := json.Unmarshal(raw, du); err != nil {
		return nil, fmt.Errorf("decode disk usage: %w", err)
	}
	var n newDiskUsage
	if err := json.Unmarshal(raw, &n); err != nil {
		return nil, fmt.Errorf("decode disk usage: %w", err)
	}
	if i, c, v, b := n.ImageUsage, n.ContainerUsage, n.VolumeUsage, n.BuildCacheUsage; i != nil && c != nil && v != nil {
		du.Images, du.Containers, du.Volumes = i.Items, c.Items, v.Items
		if b == nil {
			b = &build.DiskUsage{}
		}
		du.BuildCache = b.Items
		du.totals = []*dfRow{
			dfLine("Images", int(i.TotalCount), int(i.ActiveCount), i.TotalSize, i.Reclaimable, true),
			dfLine("Containers", int(c.TotalCount), int(c.ActiveCount), c.TotalSize, c.Reclaimable, true),
			dfLine("Local Volumes", int(v.TotalCount), int(v.ActiveCount), v.TotalSize, v.Reclaimable, true),
			dfLine("Build Cache", int(b.TotalCount), int(b.ActiveCount), b.TotalSize, b.Reclaimable, false),
		}
		return du, nil
	}
	du.totals = []*dfRow{du.imagesRow(), du.containersRow(), du.volumesRow(), du.cacheRow()}
	return du, nil
}

// dfRow is what templates of `system df --format` see.
type dfRow struct{ Active, Reclaimable, Size, TotalCount, Type string }

// dfLine makes a row; share adds the percentage that can be freed.
func dfLine(kind string, total, active int, bytes, free int64, share bool) *dfRow {
	r := &dfRow{
		Type: kind, TotalCount: strconv.Itoa(total), Active: strconv.Itoa(active),
		Size: units.HumanSize(float64(bytes)), Reclaimable: units.HumanSize(float64(max(free, 0))),
	}
	if share && bytes > 0 {
		r.Reclaimable += fmt.Sprintf(" (%d%%)", max(free, 0)*100/bytes)
	}
	return r
}

func (d *diskUsage) imagesRow() *dfRow {
	active, used := 0, int64(0)
	for _, i := range d.Images {
		if i.Containers > 0 {
			active++
			used += i.Size - max(i.SharedSize, 0)
		}
	}
	if active == len(d.Images) {
		used = d.LayersSize
	}
	return dfLine("Images", len(d.Images), active, d.LayersSize, d.LayersSize-used, true)
}

func (d *diskUsage) containersRow() *dfRow {
	active, total, free := 0, int64(0), int64(0)
	for _, c := range d.Containers {
		total += c.SizeRw
		switch c.State {
		case container.StateRunning, container.StatePaused, container.StateRestarting:
			active++
		default:
			free += c.SizeRw
		}
	}
	return dfLine("Containers", len(d.Containers), active, total, free, true)
}

func (d *diskUsage) volumesRow() *dfRow {
	active, total, free := 0, int64(0), int64(0)
	for _, v := range d.Volumes {
		if v.UsageData == nil || v.UsageData.Size < 0 {
			continue
		}
		total += v.UsageData.Size
		if v.UsageData.RefCount > 0 {
			active++
		} else {
			free += v.UsageData.Size
		}
	}
	return dfLine("Local Volumes", len(d.Volumes), active, total, free, true)
}

func (d *diskUsage) cacheRow() *dfRow {
	active, total, free := 0, int64(0), int64(0)
	for _, b := range d.BuildCache {
		if b.InUse {
			active++
		}
		if b.Shared {
			continue
		}
		total += b.Size
		if !b.InUse {
			free += b.Size
		}
	}
	return dfLine("Build Cache", len(d.BuildCache), active, total, free, false)
}

// cacheRow is a line of the build cache in `system df -v`.
type cacheRow struct{ CacheType, CreatedSince, Description, ID, LastUsedSince, Shared, Size, UsageCount string }

// details are the objects of `system df -v --format json`.
type details struct {
	Images     []*imageRow
	Containers []*psRow
	Volumes    []*volumeRow
	BuildCache []*cacheRow
}

func dfDetails(d *diskUsage) details {
	out := details{Images: imageRows(d.Images, false, false)}
	for _, c := range d.Containers {
		c.SizeRootFs = 0
		out.Containers = append(out.Containers, newPsRow(c, false))
	}
	for _, v := range d.Volumes {
		out.Volumes = append(out.Volumes, newVolumeRow(v))
	}
	for _, b := range d.BuildCache {
		r := &cacheRow{
			CacheType: b.Type, CreatedSince: ago(b.CreatedAt.Unix()), Description: b.Description, ID: ellipsisID(b.ID),
			Shared: strconv.FormatBool(b.Shared), Size: units.HumanSizeWithPrecision(float64(b.Size), 3), UsageCount: strconv.Itoa(b.UsageCount),
		}
		if b.LastUsedAt != nil {
			r.LastUsedSince = units.HumanDuration(time.Since(*b.LastUsedAt)) + " ago"
		}
		out.BuildCache = append(out.BuildCache, r)
	}
	return out
}

func ellipsisID(id string) string {
	if len(id) > 12 {
		return id[:12]
	}
	return id
}

func (a *app) dfVerbose(d *diskUsage, tmpl string) error {
	if tmpl != "" && tmpl != "table" {
		return format.Value(a.out, tmpl, dfDetails(d))
	}
	all := dfDetails(d)
	fmt.Fprint(a.out, "Images space usage:\n\n")
	if err := format.Rows(a.out, "table {{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}\t{{.SharedSize}}\t{{.UniqueSize}}\t{{.Containers}}", imageHeader(), all.Images); err != nil {
		return err
	}
	fmt.Fprint(a.out, "\nContainers space usage:\n\n")
	if err := format.Rows(a.out, "table {{.ID}}\t{{.Image}}\t{{.Command}}\t{{.LocalVolumes}}\t{{.Size}}\t{{.RunningFor}}\t{{.Status}}\t{{.Names}}", psHeader(), all.Containers); err != nil {
		return err
	}
	fmt.Fprint(a.out, "\nLocal Volumes space usage:\n\n")
	if err := format.Rows(a.out, "table {{.Name}}\t{{.Links}}\t{{.Size}}", volumeHeader(), all.Volumes); err != nil {
		return err
	}
	fmt.Fprintf(a.out, "\nBuild cache usage: %s\n\n", d.totals[3].Size)
	header := &cacheRow{CacheType: "CACHE TYPE", CreatedSince: "CREATED", Description: "DESCRIPTION", ID: "CACHE ID", LastUsedSince: "LAST USED", Shared: "SHARED", Size: "SIZE", UsageCount: "USAGE"}
	return format.Rows(a.out, "table {{.ID}}\t{{.CacheType}}\t{{.Size}}\t{{.CreatedSince}}\t{{.LastUsedSince}}\t{{.UsageCount}}\t{{.Shared}}", header, all.BuildCache)
}
