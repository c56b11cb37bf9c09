package cli

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/url"
	"strings"

	"github.com/moby/moby/api/types/build"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/volume"
	"github.com/spf13/pflag"

	"github.com/wherry-engine/wherry/cli/opts"
	"github.com/wherry-engine/wherry/client"
)

// pruneFlags are the flags of every prune.
type pruneFlags struct {
	filters opts.Filters
	force   bool
	all     bool
}

func (p *pruneFlags) add(f *pflag.FlagSet, example, all string) {
	f.Var(&p.filters, "filter", `Only remove what matches, such as "`+example+`"`)
	f.BoolVarP(&p.force, "force", "f", false, "Go ahead without asking")
	if all != "" {
		f.BoolVarP(&p.all, "all", "a", false, all)
	}
}

// query adds the filters of config.json to those given.
func (p *pruneFlags) query(a *app) url.Values {
	filters := opts.Filters{}
	for name, vals := range p.filters {
		for v := range vals {
			filters.Add(name, v)
		}
	}
	for _, s := range a.config().PruneFilters {
		_ = filters.Set(s)
	}
	q := url.Values{}
	setFilters(q, filters)
	return q
}

// pruned is what one kind of prune removed.
type pruned struct {
	title string
	names []string
	space uint64
}

func (p pruned) print(w io.Writer) {
	if len(p.names) > 0 {
		fmt.Fprintf(w, "%s:\n%s\n\n", p.title, strings.Join(p.names, "\n"))
	}
}

// confirm asks on the terminal; anything but y refuses.
func (a *app) confirm(ctx context.Context, warning string) (bool, error) {
	fmt.Fprintf(a.out, "%s\nAre you sure you want to continue? [y/N] ", warning)
	a.signals.watch()
	answer := make(chan string, 1)
	go func() {
		line, _ := bufio.NewReader(a.in).ReadString('\n')
		answer <- line
	}()
	select {
	case line := <-answer:
		switch strings.ToLower(strings.TrimSpace(line)) {
		case "y", "yes":
			return true, nil
		}
		return false, nil
	case <-ctx.Done():
		fmt.Fprintln(a.out)
		return false, context.Cause(ctx)
	}
}

// pruneCommand makes a prune of one kind. all is the help of --all, if any.
func pruneCommand(group, short, all, example, warning, warningAll string, do func(ctx context.Context, cl *client.Client, p *pruneFlags, q url.Values) (pruned, error)) command {
	return command{
		group: group, name: "prune", usage: "[OPTIONS]", short: short, args: noArgs(),
		run: func(a *app, f *pflag.FlagSet) runFunc {
			p := &pruneFlags{}
			p.add(f, example, all)
			return func(ctx context.Context, _ []string) error {
				return a.prune(ctx, p, warning, warningAll, do)
			}
		},
	}
}

func (a *app) prune(ctx context.Context, p *pruneFlags, warning, warningAll string, do func(ctx context.Context, cl *client.Client, p *pruneFlags, q url.Values) (pruned, error)) error {
	if p.all && warningAll != "" {
		warning = warningAll
	}
	if !p.force {
		ok, err := a.confirm(ctx, warning)
		if err != nil || !ok {
			return err
		}
	}
	cl, err := a.client()
	if err != nil {
		return err
	}
	r, err := do(ctx, cl, p, p.query(a))
	if err != nil {
		return err
	}
	r.print(a.out)
	if r.title != "Deleted Networks" {
		fmt.Fprintf(a.out, "Total reclaimed space: %s\n", human(r.space))
	}
	return nil
}

func human(n uint64) string { return size(int64(n)) }

func containerPruneCommand() command {
	return pruneCommand("container", "Delete every container that is not running", "", "until=<timestamp>",
		"WARNING! This will remove all stopped containers.", "", pruneContainers)
}

func pruneContainers(ctx context.Context, cl *client.Client, _ *pruneFlags, q url.Values) (pruned, error) {
	var r container.PruneReport
	err := cl.Post(ctx, "/containers/prune", q, nil, &r)
	return pruned{"Deleted Containers", r.ContainersDeleted, r.SpaceReclaimed}, err
}

func imagePruneCommand() command {
	return pruneCommand("image", "Delete images that have no name, or all unused ones", "Include images that have names but no container", "until=<timestamp>",
		"WARNING! This will remove all dangling images.",
		"WARNING! This will remove all images without at least one container associated to them.", pruneImages)
}

func pruneImages(ctx context.Context, cl *client.Client, p *pruneFlags, q url.Values) (pruned, error) {
	f := opts.Filters{}
	for name, vals := range p.filters {
		for v := range vals {
			f.Add(name, v)
		}
	}
	f.Add("dangling", fmt.Sprint(!p.all))
	setFilters(q, f)
	var r struct {
		ImagesDeleted  []image.DeleteResponse
		SpaceReclaimed uint64
	}
	if err := cl.Post(ctx, "/images/prune", q, nil, &r); err != nil {
		return pruned{}, err
	}
	out := pruned{title: "Deleted Images", space: r.SpaceReclaimed}
	for _, i := range r.ImagesDeleted {
		if i.Untagged != "" {
			out.names = append(out.names, "untagged: "+i.Untagged)
		} else {
			out.names = append(out.names, "deleted: "+i.Deleted)
		}
	}
	return out, nil
}

func networkPruneCommand() command {
	return pruneCommand("network", "Delete the networks no container uses", "", "until=<timestamp>",
		"WARNING! This will remove all custom networks not used by at least one container.", "", pruneNetworks)
}

func pruneNetworks(ctx context.Context, cl *client.Client, _ *pruneFlags, q url.Values) (pruned, error) {
	var r network.PruneReport
	err := cl.Post(ctx, "/networks/prune", q, nil, &r)
	return pruned{"Deleted Networks", r.NetworksDeleted, 0}, err
}

func volumePruneCommand() command {
	return pruneCommand("volume", "Delete anonymous volumes no container uses, or all unused ones", "Include volumes that were given a name", "label=<label>",
		"WARNING! This will remove anonymous local volumes not used by at least one container.",
		"WARNING! This will remove all local volumes not used by at least one container.", pruneVolumes)
}

func pruneVolumes(ctx context.Context, cl *client.Client, p *pruneFlags, q url.Values) (pruned, error) {
	if p.all {
		if ok, err := cl.Negotiated(ctx, "1.42"); err != nil {
			return pruned{}, err
		} else if ok {
			f := opts.Filters{}
			for name, vals := range p.filters {
				for v := range vals {
					f.Add(name, v)
				}
			}
			f.Add("all", "true")
			setFilters(q, f)
		}
	}
	var r volume.PruneReport
	err := cl.Post(ctx, "/volumes/prune", q, nil, &r)
	return pruned{"Deleted Volumes", r.VolumesDeleted, r.SpaceReclaimed}, err
}

func builderPruneCommand() command {
	return command{
		group: "builder", name: "prune", usage: "[OPTIONS]", short: "Delete cached build steps", args: noArgs(),
		run: func(a *app, f *pflag.FlagSet) runFunc {
			p := &pruneFlags{}
			var keep opts.Bytes
			p.add(f, "until=24h", "Include cache that a later build could use")
			f.Var(&keep, "keep-storage", "Leave this many bytes of cache (suffix k, m or g allowed)")
			return func(ctx context.Context, _ []string) error {
				return a.prune(ctx, p, "WARNING! This will remove all dangling build cache.",
					"WARNING! This will remove all build cache.",
					func(ctx context.Context, cl *client.Client, p *pruneFlags, q url.Values) (pruned, error) {
						if keep.N != 0 {
							q.Set("keep-storage", fmt.Sprint(keep.N))
						}
						return pruneBuildCache(ctx, cl, p, q)
					})
			}
		},
	}
}

func pruneBuildCache(ctx context.Context, cl *client.Client, p *pruneFlags, q url.Values) (pruned, error) {
	if p.all {
		q.Set("all", "1")
	}
	var r build.CachePruneReport
	err := cl.Post(ctx, "/build/prune", q, nil, &r)
	return pruned{"Deleted build cache objects", r.CachesDeleted, r.SpaceReclaimed}, err
}
