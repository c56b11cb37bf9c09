package store

import (
	"context"
	"sync"

	"github.com/containerd/containerd/v2/core/images"
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

// Create implements images.Store.
func (r *records) Create(ctx context.Context, img images.Image) (images.Image, error) {
	defer r.changed()
	return r.Store.Create(ctx, img)
}

// Update implements images.Store.
func (r *records) Update(ctx context.Context, img images.Image, fields ...string) (images.Image, error) {
	defer r.dropped()
	defer r.changed()
	return r.Store.Update(ctx, img, fields...)
}

// Delete implements images.Store.
func (r *records) Delete(ctx context.Context, name string, opts ...images.DeleteOpt) error {
	defer r.dropped()
	defer r.changed()
	return r.Store.Delete(ctx, name, opts...)
}
