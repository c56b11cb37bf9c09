package store

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

// records are the image records: containerd's store, with all of them in
// memory for looking up, since creating a container does that. Everybody
// writes through it.
type records struct {
	images.Store
	dropped func() // a record lost its target: something may be collected

	mu    sync.Mutex
	epoch uint64
	known *index
}

// index is all records; it is not changed once made.
type index struct {
	all      []images.Image
	byName   map[string]images.Image
	byTarget map[digest.Digest][]images.Image
}

// index returns all records as they are now.
func (r *records) index(ctx context.Context) (*index, error) {
	r.mu.Lock()
	known, epoch := r.known, r.epoch
	r.mu.Unlock()
	if known != nil {
		return known, nil
	}
	all, err := r.List(ctx)
	if err != nil {
		return nil, err
	}
	x := &index{all: all, byName: make(map[string]images.Image, len(all)), byTarget: make(map[digest.Digest][]images.Image, len(all))}
	for _, img := range all {
		x.byName[img.Name] = img
		x.byTarget[img.Target.Digest] = append(x.byTarget[img.Target.Digest], img)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.epoch == epoch { // nobody wrote meanwhile
		r.known = x
	}
	return x, nil
}

func (r *records) changed() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.known = nil
	r.epoch++
}

// Create implements images.Store. An image that gets a name is not dangling any more.
func (r *records) Create(ctx context.Context, img images.Image) (images.Image, error) {
	out, err := r.Store.Create(ctx, img)
	r.changed()
	if err != nil {
		return out, err
	}
	return out, r.dropDangling(ctx, out)
}

// Update implements images.Store. An image that loses its last name because
// the name is given to another one stays as a dangling one.
func (r *records) Update(ctx context.Context, img images.Image, fields ...string) (images.Image, error) {
	moves := len(fields) == 0 || slices.ContainsFunc(fields, func(f string) bool { return strings.HasPrefix(f, "target") })
	if moves {
		if err := r.keepDangling(ctx, img); err != nil {
			return images.Image{}, err
		}
	}
	out, err := r.Store.Update(ctx, img, fields...)
	r.changed()
	if err != nil {
		return out, err
	}
	if !moves {
		return out, nil
	}
	r.dropped()
	return out, r.dropDangling(ctx, out)
}

// Delete implements images.Store.
func (r *records) Delete(ctx context.Context, name string, opts ...images.DeleteOpt) error {
	defer r.dropped()
	defer r.changed()
	return r.Store.Delete(ctx, name, opts...)
}

// keepDangling gives the image that img's name has now a record without a
// name, if it has no other.
func (r *records) keepDangling(ctx context.Context, img images.Image) error {
	x, err := r.index(ctx)
	if err != nil {
		return err
	}
	old, ok := x.byName[img.Name]
	if !ok || isDangling(old.Name) || old.Target.Digest == img.Target.Digest || len(x.byTarget[old.Target.Digest]) > 1 {
		return nil
	}
	return r.nameless(ctx, old)
}

// nameless makes a record without a name for an image.
func (r *records) nameless(ctx context.Context, img images.Image) error {
	now := time.Now().UTC()
	_, err := r.Store.Create(ctx, images.Image{
		Name: danglingName(img.Target.Digest), Target: img.Target, Labels: img.Labels, CreatedAt: now, UpdatedAt: now,
	})
	r.changed()
	if errdefs.IsAlreadyExists(err) {
		return nil
	}
	return err
}

// dropDangling removes the record without a name of an image that has one.
func (r *records) dropDangling(ctx context.Context, img images.Image) error {
	if isDangling(img.Name) {
		return nil
	}
	x, err := r.index(ctx)
	if err != nil {
		return err
	}
	name := danglingName(img.Target.Digest)
	if _, ok := x.byName[name]; !ok {
		return nil
	}
	if err := r.Delete(ctx, name); err != nil && !errdefs.IsNotFound(err) {
		return err
	}
	return nil
}
