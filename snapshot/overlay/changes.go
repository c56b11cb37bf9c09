package overlay

import (
	"cmp"
	"context"
	"path"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/container"
	"github.com/wherry-engine/wherry/snapshot"
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
	err = walk(ctx, filepath.Join(d.dir(id), upperName), lower, func(e *entry) error {
		more, err := changesOf(e)
		list = append(list, more...)
		return err
	})
	slices.SortFunc(list, func(a, b snapshot.Change) int { return cmp.Compare(a.Path, b.Path) })
	return list, err
}

func changesOf(e *entry) ([]snapshot.Change, error) {
	switch {
	case e.isWhiteout() && e.inLower:
		return []snapshot.Change{{Path: e.path, Kind: snapshot.Deleted}}, nil
	case e.isWhiteout():
		return nil, nil
	case !e.inLower:
		return []snapshot.Change{{Path: e.path, Kind: snapshot.Added}}, nil
	}
	list := []snapshot.Change{{Path: e.path, Kind: snapshot.Modified}}
	if !e.opaque {
		return list, nil
	}
	// What an opaque directory hides and does not have itself is deleted.
	names, err := listLower(e.below)
	if err != nil {
		return nil, err
	}
	for _, n := range names {
		var st unix.Stat_t
		if unix.Lstat(e.procPath()+"/"+n, &st) != nil {
			list = append(list, snapshot.Change{Path: path.Join(e.path, n), Kind: snapshot.Deleted})
		}
	}
	return list, nil
}

// Usage implements snapshot.Driver: apparent sizes, each file once.
func (d *Driver) Usage(ctx context.Context, id container.ID) (snapshot.Usage, error) {
	if _, err := d.held(id); err != nil {
		return snapshot.Usage{}, err
	}
	var u snapshot.Usage
	seen := map[uint64]bool{}
	err := walk(ctx, filepath.Join(d.dir(id), upperName), nil, func(e *entry) error {
		if e.st.Nlink > 1 && !e.isDir() {
			if seen[e.st.Ino] {
				return nil
			}
			seen[e.st.Ino] = true
		}
		u.Inodes++
		if e.kind() == unix.S_IFREG || e.kind() == unix.S_IFLNK {
			u.Bytes += e.st.Size
		}
		return nil
	})
	return u, err
}
