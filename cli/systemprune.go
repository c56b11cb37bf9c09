package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/spf13/pflag"
)

func systemPruneCommand() command {
	return command{
		group: "system", name: "prune", usage: "[OPTIONS]", short: "Delete stopped containers, unused networks, images without a name and build cache", args: noArgs(),
		run: func(a *app, f *pflag.FlagSet) runFunc {
			p := &pruneFlags{}
			var volumes bool
			p.add(f, "label=<key>=<value>", "Include images that have names but no container")
			f.BoolVar(&volumes, "volumes", false, "Remove unused anonymous volumes too")
			return func(ctx context.Context, _ []string) error { return a.systemPrune(ctx, p, volumes) }
		},
	}
}

func (a *app) systemPrune(ctx context.Context, p *pruneFlags, volumes bool) error {
	if volumes && p.filters["until"] != nil {
		return invalidf(`the "until" filter is not supported with "--volumes"`)
	}
	if !p.force {
		ok, err := a.confirm(ctx, systemPruneWarning(p, volumes))
		if err != nil || !ok {
			return err
		}
	}
	cl, err := a.client()
	if err != nil {
		return err
	}
	var space uint64
	anonymous := &pruneFlags{filters: p.filters}
	steps := []func() (pruned, error){
		func() (pruned, error) { return pruneContainers(ctx, cl, p, p.query(a)) },
		func() (pruned, error) { return pruneNetworks(ctx, cl, p, p.query(a)) },
	}
	if volumes {
		steps = append(steps, func() (pruned, error) { return pruneVolumes(ctx, cl, anonymous, p.query(a)) })
	}
	steps = append(steps,
		func() (pruned, error) { return pruneImages(ctx, cl, p, p.query(a)) },
		func() (pruned, error) { return pruneBuildCache(ctx, cl, p, p.query(a)) })
	var failed []error
	for _, step := range steps {
		r, err := step()
		if err != nil {
			if !errdefs.IsNotImplemented(err) {
				failed = append(failed, err)
			}
			continue
		}
		r.print(a.out)
		space += r.space
	}
	fmt.Fprintf(a.out, "Total reclaimed space: %s\n", human(space))
	return errors.Join(failed...)
}

func systemPruneWarning(p *pruneFlags, volumes bool) string {
	items := []string{"all stopped containers", "all networks not used by at least one container"}
	if volumes {
		items = append(items, "all anonymous volumes not used by at least one container")
	}
	if p.all {
		items = append(items, "all images without at least one container associated to them", "all build cache")
	} else {
		items = append(items, "all dangling images", "unused build cache")
	}
	var b strings.Builder
	b.WriteString("WARNING! This will remove:\n")
	for _, i := range items {
		b.WriteString("  - " + i + "\n")
	}
	if len(p.filters) > 0 {
		b.WriteString("\n  Items to be pruned will be filtered with:\n")
		for name, vals := range p.filters {
			for v := range vals {
				b.WriteString("  - " + name + "=" + v + "\n")
			}
		}
	}
	return b.String()
}
