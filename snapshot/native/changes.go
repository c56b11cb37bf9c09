package native

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"path"
	"slices"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/container"
	"github.com/wherry-engine/wherry/snapshot"
	"github.com/wherry-engine/wherry/snapshot/tree"
)

// compare visits what differs between a layer and its chain, parents first;
// gone is told the paths that only the chain has.
func (d *Driver) compare(ctx context.Context, id container.ID, differs func(*tree.Entry) error, gone func(string) error) error {
	chain, err := d.held(id)
	if err != nil {
		return err
	}
	lower, err := d.view(ctx, chain)
	if err != nil {
		return err
	}
	dir, err := d.dir(ctx, layerKey+string(id))
	if err != nil {
		return err
	}
	base := newBase(lower)
	has := func(name string) bool {
		_, err := os.Lstat(dir + "/" + name)
		return err == nil
	}
	if err := missing("/", has, []string{lower}, gone); err != nil {
		return err
	}
	return tree.Walk(ctx, dir, []string{lower}, func(e *tree.Entry) error {
		changed, err := differ(e)
		if err != nil {
			return err
		}
		if changed && !base.has(e) {
			if err := differs(e); err != nil {
				return err
			}
		}
		if !e.IsDir() || len(e.Below) == 0 {
			return nil
		}
		return missing(e.Path, e.Has, e.Below, gone)
	})
}

// missing reports names that lower directories have and a directory has not.
func missing(at string, has func(string) bool, lower []string, gone func(string) error) error {
	names, err := tree.List(lower)
	if err != nil {
		return err
	}
	for _, n := range names {
		if has(n) {
			continue
		}
		if err := gone(path.Join(at, n)); err != nil {
			return err
		}
	}
	return nil
}

// differ compares an entry with what the chain has of its name.
func differ(e *tree.Entry) (bool, error) {
	if e.Lower == "" {
		return true, nil
	}
	var st unix.Stat_t
	if err := unix.Lstat(e.Lower, &st); err != nil {
		return true, err
	}
	a, b := &e.Stat, &st
	if a.Mode != b.Mode || a.Uid != b.Uid || a.Gid != b.Gid || a.Rdev != b.Rdev || a.Mtim != b.Mtim {
		return true, nil
	}
	return !e.IsDir() && a.Size != b.Size, nil
}

// base knows the mount points that Create made.
type base struct{ paths map[string]bool }

func newBase(lower string) base {
	b := base{map[string]bool{}}
	for _, p := range tree.BasePaths() {
		if _, err := os.Lstat(lower + p); err != nil {
			b.paths[p] = true
		}
	}
	return b
}

// has reports an untouched mount point.
func (b base) has(e *tree.Entry) bool {
	return b.paths[e.Path] && (e.IsDir() || e.Stat.Size == 0 || e.Kind() == unix.S_IFLNK)
}

// Changes implements snapshot.Driver.
func (d *Driver) Changes(ctx context.Context, id container.ID) ([]snapshot.Change, error) {
	var list []snapshot.Change
	err := d.compare(ctx, id, func(e *tree.Entry) error {
		kind := snapshot.Modified
		if e.Lower == "" {
			kind = snapshot.Added
		}
		list = append(list, snapshot.Change{Path: e.Path, Kind: kind})
		return nil
	}, func(p string) error {
		list = append(list, snapshot.Change{Path: p, Kind: snapshot.Deleted})
		return nil
	})
	slices.SortFunc(list, func(a, b snapshot.Change) int { return cmp.Compare(a.Path, b.Path) })
	return list, err
}

// Diff implements snapshot.Driver.
func (d *Driver) Diff(ctx context.Context, id container.ID, w io.Writer) error {
	// What is in a changed directory's path must be written before it.
	needed := map[string]bool{}
	var deleted []string
	need := func(p string) {
		for ; p != "/" && !needed[p]; p = path.Dir(p) {
			needed[p] = true
		}
	}
	err := d.compare(ctx, id, func(e *tree.Entry) error {
		need(e.Path)
		return nil
	}, func(p string) error {
		need(path.Dir(p))
		deleted = append(deleted, p)
		return nil
	})
	if err != nil {
		return err
	}
	dir, err := d.dir(ctx, layerKey+string(id))
	if err != nil {
		return err
	}
	t := tree.NewWriter(w)
	err = tree.Walk(ctx, dir, nil, func(e *tree.Entry) error {
		if !needed[e.Path] {
			return nil
		}
		return t.Add(e)
	})
	if err != nil {
		return fmt.Errorf("write the difference of layer %s: %w", id.Short(), err)
	}
	for _, p := range deleted {
		if err := t.Deleted(p); err != nil {
			return err
		}
	}
	return t.Close()
}

// Usage implements snapshot.Driver: what the layer adds to its chain, without
// what is nested too deep.
func (d *Driver) Usage(ctx context.Context, id container.ID) (snapshot.Usage, error) {
	var u snapshot.Usage
	err := d.compare(ctx, id, func(e *tree.Entry) error {
		u.Inodes++
		if e.Kind() == unix.S_IFREG || e.Kind() == unix.S_IFLNK {
			u.Bytes += e.Stat.Size
		}
		return nil
	}, func(string) error { return nil })
	if errdefs.IsOutOfRange(err) {
		err = nil // one hostile container must not spoil the sum of all
	}
	return u, err
}
