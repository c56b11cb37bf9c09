package cli

import (
	"context"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/image"
	"github.com/spf13/pflag"

	"github.com/wherry-engine/wherry/cli/format"
	"github.com/wherry-engine/wherry/ociref"
)

func imagesCommand() command {
	return command{
		group: "image", name: "ls", aliases: []string{"list"}, top: "images", common: 7,
		usage: "[OPTIONS] [REPOSITORY[:TAG]]", short: "List images",
		args: maxArgs(1),
		run: func(a *app, f *pflag.FlagSet) runFunc {
			i := &imagesFlags{}
			f.BoolVarP(&i.all, "all", "a", false, "Include intermediate images")
			f.BoolVar(&i.digests, "digests", false, "Show digests")
			f.BoolVar(&i.noTrunc, "no-trunc", false, "Print long values in full")
			f.BoolVarP(&i.quiet, "quiet", "q", false, "Print nothing but image IDs")
			i.addFormat(f)
			i.addFilter(f, "")
			refuse(f, "tree")
			return func(ctx context.Context, args []string) error { return a.images(ctx, i, args) }
		},
	}
}

type imagesFlags struct {
	listFlags
	all, digests bool
}

const imagesRaw = "repository: {{.Repository}}\ntag: {{.Tag}}\nimage_id: {{.ID}}\ncreated_at: {{.CreatedAt}}\nvirtual_size: {{.Size}}\n"

func (a *app) images(ctx context.Context, i *imagesFlags, args []string) error {
	q := url.Values{}
	if i.all {
		q.Set("all", "1")
	}
	if len(args) == 1 {
		i.filters.Add("reference", args[0])
	}
	setFilters(q, i.filters)
	cl, err := a.client()
	if err != nil {
		return err
	}
	var list []image.Summary
	if err := cl.Get(ctx, "/images/json", q, &list); err != nil {
		return err
	}
	tmpl := i.template(a)
	rows := imageRows(list, i.wantsDigest(tmpl), i.noTrunc)
	return format.Rows(a.out, tmpl, imageHeader(), rows)
}

func (i *imagesFlags) wantsDigest(tmpl string) bool {
	return i.digests || strings.Contains(tmpl, "{{.Digest}}")
}

func (i *imagesFlags) template(a *app) string {
	digest := ""
	if i.digests {
		digest = "{{.Digest}}\t"
	}
	switch {
	case i.quiet && (i.format == "" || i.format == "table"):
		return "{{.ID}}"
	case i.format == "raw":
		return imagesRaw
	}
	return format.Resolve(i.format, a.config().ImagesFormat,
		"{{.Repository}}\t{{.Tag}}\t"+digest+"{{.ID}}\t{{.CreatedSince}}\t{{.Size}}")
}

// imageRow is what templates of `images --format` see.
type imageRow struct {
	Containers, CreatedAt, CreatedSince, Digest, ID, Repository, SharedSize, Size, Tag, UniqueSize, VirtualSize string
}

func imageHeader() *imageRow {
	return &imageRow{
		Containers: "CONTAINERS", CreatedAt: "CREATED AT", CreatedSince: "CREATED", Digest: "DIGEST", ID: "IMAGE ID",
		Repository: "REPOSITORY", SharedSize: "SHARED SIZE", Size: "SIZE", Tag: "TAG", UniqueSize: "UNIQUE SIZE",
		VirtualSize: "SIZE",
	}
}

// imageRows makes a row for each name of each image.
func imageRows(list []image.Summary, digests, noTrunc bool) []*imageRow {
	var rows []*imageRow
	for _, s := range list {
		for _, n := range imageNames(s, digests) {
			r := newImageRow(s, noTrunc)
			r.Repository, r.Tag, r.Digest = n.repo, n.tag, n.digest
			rows = append(rows, r)
		}
	}
	return rows
}

func newImageRow(s image.Summary, noTrunc bool) *imageRow {
	r := &imageRow{
		Containers: "N/A", SharedSize: "N/A", UniqueSize: "N/A",
		CreatedAt: time.Unix(s.Created, 0).String(), CreatedSince: ago(s.Created), ID: s.ID,
		Size: size(s.Size), VirtualSize: units.HumanSize(float64(s.Size)),
	}
	if s.Created == 0 || s.Created == -62135596800 {
		r.CreatedSince = "N/A"
	}
	if !noTrunc {
		r.ID = shortID(s.ID)
	}
	if s.Containers != -1 {
		r.Containers = strconv.FormatInt(s.Containers, 10)
	}
	if s.SharedSize != -1 {
		r.SharedSize = units.HumanSize(float64(s.SharedSize))
		r.UniqueSize = units.HumanSize(float64(s.Size - s.SharedSize))
	}
	return r
}

type imageName struct{ repo, tag, digest string }

const none = "<none>"

// imageNames lists repository, tag and digest of an image. Without digests a
// repository known only by digest has one row with no tag.
func imageNames(s image.Summary, digests bool) []imageName {
	byRepo := map[string][]string{} // repository → digests
	for _, d := range s.RepoDigests {
		if ref, err := ociref.Parse(d); err == nil {
			byRepo[ref.FamiliarName()] = append(byRepo[ref.FamiliarName()], ref.Digest.String())
		}
	}
	var names []imageName
	tagged := map[string]bool{}
	for _, t := range s.RepoTags {
		ref, err := ociref.Parse(t)
		if err != nil || t == "<none>:<none>" {
			continue
		}
		repo := ref.FamiliarName()
		tagged[repo] = true
		if !digests || len(byRepo[repo]) == 0 {
			names = append(names, imageName{repo, ref.Tag, none})
			continue
		}
		for _, d := range byRepo[repo] {
			names = append(names, imageName{repo, ref.Tag, d})
		}
	}
	repos := make([]string, 0, len(byRepo))
	for r := range byRepo {
		repos = append(repos, r)
	}
	slices.Sort(repos)
	for _, r := range repos {
		if tagged[r] {
			continue
		}
		for i, d := range byRepo[r] {
			if !digests && i > 0 {
				break
			}
			names = append(names, imageName{r, none, d})
		}
	}
	if names == nil {
		names = []imageName{{none, none, none}}
	}
	return names
}
