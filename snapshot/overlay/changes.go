package overlay

import (
	"cmp"
	"context"
	"path"
	"path/filepath"
	"slices"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/container"
	"github.com/wherry-engine/wherry/snapshot"
	"github.com/wherry-engine/wherry/snapshot/tree"
)

// Changes implements snapshot.Driver.
func (d *Driver) Changes(ctx context.Context, id container.ID) ([]snapshot.Change, error) {
	chain, err := d.held(id)
	if err != nil {
		return nil, err
	}
	lower, err := d.under(ctx, chain)
	if err != nil {
		return nil, err
	}
	var list []snapshot.Change
	err = tree.Walk(ctx, filepath.Join(d.dir(id), upperName), lower, func(e *tree.Entry) error {
		more, err := changesOf(e)
		list = append(list, more...)
		return err
	})
	slices.SortFunc(list, func(a, b snapshot.Change) int { return cmp.Compare(a.Path, b.Path) })
	return list, err
}

func changesOf(e *tree.Entry) ([]snapshot.Change, error) {
	switch {
	case e.IsWhiteout() && e.Lower != "":
		return []snapshot.Change{{Path: e.Path, Kind: snapshot.Deleted}}, nil
	case e.IsWhiteout():
		return nil, nil
	case e.Lower == "":
		return []snapshot.Change{{Path: e.Path, Kind: snapshot.Added}}, nil
	}
	list := []snapshot.Change{{Path: e.Path, Kind: snapshot.Modified}}
	if !e.Opaque {
		return list, nil
	}
	// What an opaque directory hides and does not have itself is deleted.
	names, err := tree.List(e.Below)
	if err != nil {
		return nil, err
	}
	for _, n := range names {
		if !e.Has(n) {
			list = append(list, snapshot.Change{Path: path.Join(e.Path, n), Kind: snapshot.Deleted})
		}
	}
	return list, nil
}

// Usage implements snapshot.Driver: apparent sizes, each file once. What is
// nested too deep is left out.
func (d *Driver) Usage(ctx context.Context, id container.ID) (snapshot.Usage, error) {
	if _, err := d.held(id); err != nil {
		return snapshot.Usage{}, err
	}
	var u snapshot.Usage
	seen := map[uint64]bool{}
	err := tree.Walk(ctx, filepath.Join(d.dir(id), upperName), nil, func(e *tree.Entry) error {
		if e.Stat.Nlink > 1 && !e.IsDir() {
			if seen[e.Stat.Ino] {
				return nil
			}
			seen[e.Stat.Ino] = true
		}
		u.Inodes++
		if e.Kind() == unix.S_IFREG || e.Kind() == unix.S_IFLNK {
			u.Bytes += e.Stat.Size
		}
		return nil
	})
	if errdefs.IsOutOfRange(err) {
		err = nil // one hostile container must not spoil the sum of all
	}
	return u, err
}
