package store

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	apievents "github.com/moby/moby/api/types/events"

	"github.com/wherry-engine/wherry/image"
	"github.com/wherry-engine/wherry/ociref"
)

// Delete removes a name, and the image when its last name goes; by ID it
// removes all names. Conflict, with Docker's texts, when a container needs the
// image or several names have it. NotFound.
func (s *Store) Delete(ctx context.Context, ref string, opts image.DeleteOptions) ([]image.Deleted, error) {
	ctx = s.context(ctx)
	if len(opts.Platforms) > 0 {
		return nil, fmt.Errorf("removing single platforms of an image is not supported: %w", errdefs.ErrNotImplemented)
	}
	g, err := s.find(ctx, ref)
	if err != nil {
		return nil, err
	}
	d := &deletion{s: s, g: g, opts: opts}
	d.lookForUsers(ctx)
	if rec := g.recordOf(ref); rec != nil {
		err = d.byName(ctx, ref, *rec)
	} else {
		err = d.byID(ctx)
	}
	if len(d.done) > 0 {
		s.afterDelete(ctx)
	}
	return d.done, err
}

// afterDelete asks for a collection; with the last image go partial downloads.
func (s *Store) afterDelete(ctx context.Context) {
	if x, err := s.images.index(ctx); err == nil && len(x.all) == 0 {
		s.dropPartial(ctx, time.Now())
	}
	s.gc.poke()
}

// recordOf finds the record that a reference names; nil if it is an ID.
func (g *group) recordOf(ref string) *images.Image {
	if _, ok := asDigest(ref); ok {
		return nil
	}
	r, err := ociref.ParseTagged(ref)
	if err != nil {
		return nil
	}
	full := r
	if r.Digest != "" {
		r.Tag = ""
	}
	for i, rec := range g.records {
		if rec.Name == r.String() {
			return &g.records[i]
		}
	}
	if full.Digest == "" {
		return nil
	}
	for i, rec := range g.records {
		have, err := ociref.Parse(rec.Name)
		if err == nil && have.Name() == r.Name() && (full.Tag == "" || have.Tag == full.Tag) {
			return &g.records[i]
		}
	}
	return nil
}

// deletion is one image being removed.
type deletion struct {
	s    *Store
	g    *group
	opts image.DeleteOptions

	user    string // a container that needs the image
	running bool
	done    []image.Deleted
}

// lookForUsers asks whether a container needs any platform of the image; a
// running one counts before a stopped one.
func (d *deletion) lookForUsers(ctx context.Context) {
	if d.opts.InUse == nil {
		return
	}
	for _, p := range d.s.present(ctx, d.g.target) {
		id, running := d.opts.InUse(d.g.target.Digest, p.manifest.Config.Digest)
		if id != "" && (d.user == "" || running && !d.running) {
			d.user, d.running = id, running
		}
	}
}

func (d *deletion) named() []images.Image {
	return slices.DeleteFunc(slices.Clone(d.g.records), func(r images.Image) bool { return isDangling(r.Name) })
}

// byName untags, and deletes the image if that was its last name.
func (d *deletion) byName(ctx context.Context, ref string, rec images.Image) error {
	if len(d.named()) > 1 {
		return d.untag(ctx, rec)
	}
	if d.user != "" && !d.opts.Force {
		return fmt.Errorf("conflict: unable to remove repository reference %q (must force) - container %s is using its referenced image %s: %w",
			ref, shortID(d.user), short(d.g.target.Digest), errdefs.ErrConflict)
	}
	if d.running {
		// The name goes, what the container runs from stays as a dangling image.
		if err := d.s.images.nameless(ctx, rec); err != nil {
			return err
		}
		return d.untag(ctx, rec)
	}
	return d.all(ctx)
}

// byID deletes the image with all its names.
func (d *deletion) byID(ctx context.Context) error {
	named := d.named()
	repos := map[string]bool{}
	for _, r := range named {
		if p, err := ociref.Parse(r.Name); err == nil {
			repos[p.Name()] = true
		}
	}
	id := short(d.g.target.Digest)
	switch {
	case d.running:
		return fmt.Errorf("conflict: unable to delete %s (cannot be forced) - image is being used by running container %s: %w", id, shortID(d.user), errdefs.ErrConflict)
	case len(repos) > 1 && !d.opts.Force:
		return fmt.Errorf("conflict: unable to delete %s (must be forced) - image is referenced in multiple repositories: %w", id, errdefs.ErrConflict)
	case d.user != "" && !d.opts.Force:
		return fmt.Errorf("conflict: unable to delete %s (must be forced) - image is being used by stopped container %s: %w", id, shortID(d.user), errdefs.ErrConflict)
	}
	return d.all(ctx)
}

func shortID(id string) string {
	if len(id) > 12 {
		return id[:12]
	}
	return id
}

func (d *deletion) untag(ctx context.Context, rec images.Image) error {
	if err := d.s.images.Delete(ctx, rec.Name); err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("remove name %s: %w", rec.Name, err)
	}
	d.g.records = slices.DeleteFunc(d.g.records, func(r images.Image) bool { return r.Name == rec.Name })
	d.s.emitID(ctx, apievents.ActionUnTag, d.g.target.Digest, familiar(rec.Name), d.g.target)
	ref, err := ociref.Parse(rec.Name)
	if err != nil {
		d.done = append(d.done, image.Deleted{Untagged: rec.Name})
		return nil
	}
	d.done = append(d.done, image.Deleted{Untagged: ref.Familiar()})
	if ref.Digest == "" && !d.repoLeft(ref) {
		d.done = append(d.done, image.Deleted{Untagged: ref.WithDigest(ociref.Digest(d.g.target.Digest)).Familiar()})
	}
	return nil
}

func (d *deletion) repoLeft(ref ociref.Reference) bool {
	return slices.ContainsFunc(d.g.records, func(r images.Image) bool {
		p, err := ociref.Parse(r.Name)
		return err == nil && p.Name() == ref.Name()
	})
}

// all removes every record; what only they kept is collected later.
func (d *deletion) all(ctx context.Context) error {
	for _, r := range d.named() {
		if err := d.untag(ctx, r); err != nil {
			return err
		}
	}
	err := d.s.images.Delete(ctx, danglingName(d.g.target.Digest))
	if err != nil && !errdefs.IsNotFound(err) {
		return err
	}
	d.s.emitID(ctx, apievents.ActionDelete, d.g.target.Digest, "", d.g.target)
	d.done = append(d.done, image.Deleted{Deleted: d.g.target.Digest.String()})
	d.s.parsed.forget(d.g.target.Digest)
	return nil
}

// Prune removes the images that opts selects and no container needs, waits
// for the collection and returns the bytes of content and unpacked layers freed.
func (s *Store) Prune(ctx context.Context, opts image.PruneOptions) ([]image.Deleted, int64, error) {
	ctx = s.context(ctx)
	freed := s.dropPartial(ctx, time.Now())
	list, err := s.List(ctx)
	if err != nil {
		return nil, 0, err
	}
	before, err := s.diskTotal(ctx)
	if err != nil {
		return nil, 0, err
	}
	var done []image.Deleted
	for _, img := range list {
		if !s.prunable(ctx, img, opts) {
			continue
		}
		gone, err := s.Delete(ctx, img.ID.String(), image.DeleteOptions{Force: true, InUse: opts.InUse})
		if errdefs.IsConflict(err) || errdefs.IsNotFound(err) {
			continue
		}
		done = append(done, gone...)
		if err != nil {
			return done, 0, err
		}
	}
	// Also when no image went: what transfers that failed left goes now.
	if _, err := s.collect(ctx); err != nil {
		return done, 0, err
	}
	after, err := s.diskTotal(ctx)
	if err != nil {
		return done, 0, err
	}
	freed += max(before-after, 0)
	s.emitPrune(freed)
	return done, freed, nil
}

func (s *Store) prunable(ctx context.Context, img image.Image, opts image.PruneOptions) bool {
	if opts.DanglingOnly && !img.Dangling {
		return false
	}
	if !opts.Until.IsZero() && img.Created.After(opts.Until) {
		return false
	}
	if opts.Labels != nil && !opts.Labels(img.Config.Config.Labels) {
		return false
	}
	if opts.InUse == nil {
		return true
	}
	for _, p := range s.present(ctx, img.Target) {
		if id, _ := opts.InUse(img.ID, p.manifest.Config.Digest); id != "" {
			return false
		}
	}
	return true
}
