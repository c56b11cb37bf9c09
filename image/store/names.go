package store

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wherry-engine/wherry/ociref"
)

// DanglingPrefix begins the record names of images that have no name; the
// target digest follows.
const DanglingPrefix = "dangling@"

// parentLabel on an image record names the image it was committed from.
const parentLabel = "wherry.parent"

func isDangling(name string) bool { return strings.HasPrefix(name, DanglingPrefix) }

func danglingName(d digest.Digest) string { return DanglingPrefix + d.String() }

// familiar is a record's name as people read it; "" for none.
func familiar(name string) string {
	ref, err := ociref.Parse(name)
	if err != nil {
		return ""
	}
	return ref.Familiar()
}

// setName points a name at a target. The image that had the name before stays
// as a dangling one if the name was its last.
func (s *Store) setName(ctx context.Context, name string, target ocispec.Descriptor, labels map[string]string) error {
	unlock := s.keys.lock("name:" + name)
	defer unlock()
	target.Annotations, target.Platform = nil, nil
	now := time.Now().UTC()
	img := images.Image{Name: name, Target: target, Labels: labels, CreatedAt: now, UpdatedAt: now}
	old, err := s.images.Get(ctx, name)
	switch {
	case errdefs.IsNotFound(err):
		_, err = s.images.Create(ctx, img)
	case err == nil && old.Target.Digest == target.Digest:
		if len(labels) > 0 {
			_, err = s.images.Update(ctx, img, "labels")
		}
	case err == nil:
		_, err = s.images.Update(ctx, img)
	}
	return err
}

// Name points a name, as the records have it, at an image's target.
func (s *Store) Name(ctx context.Context, name string, target ocispec.Descriptor) error {
	return s.setName(s.context(ctx), name, target, nil)
}

// namesOf lists the records of a target.
func (s *Store) namesOf(ctx context.Context, target digest.Digest) ([]images.Image, error) {
	x, err := s.images.index(ctx)
	if err != nil {
		return nil, err
	}
	return slices.Clone(x.byTarget[target]), nil
}

// group is an image with all its records.
type group struct {
	target  ocispec.Descriptor
	records []images.Image
}

// groups lists all images, each once, by target digest.
func (s *Store) groups(ctx context.Context) ([]*group, error) {
	x, err := s.images.index(ctx)
	if err != nil {
		return nil, err
	}
	byDigest := map[digest.Digest]*group{}
	var all []*group
	for _, img := range x.all {
		g := byDigest[img.Target.Digest]
		if g == nil {
			g = &group{target: img.Target}
			byDigest[img.Target.Digest] = g
			all = append(all, g)
		}
		g.records = append(g.records, img)
	}
	return all, nil
}

// names returns what the API shows of a group's records.
func (g *group) names() (tags, digests []string, dangling bool, tagged time.Time) {
	dangling = true
	for _, r := range g.records {
		if r.UpdatedAt.After(tagged) {
			tagged = r.UpdatedAt
		}
		if isDangling(r.Name) {
			continue
		}
		dangling = false
		ref, err := ociref.Parse(r.Name)
		if err != nil {
			tags = append(tags, r.Name)
			continue
		}
		if ref.Tag != "" {
			t := ref
			t.Digest = ""
			tags = append(tags, t.Familiar())
		}
		d := ref.WithDigest(ociref.Digest(g.target.Digest)).Familiar()
		if !slices.Contains(digests, d) {
			digests = append(digests, d)
		}
	}
	slices.Sort(tags)
	slices.Sort(digests)
	return tags, digests, dangling, tagged
}
