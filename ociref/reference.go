package ociref

import (
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
)

// Docker's defaults.
const (
	DefaultDomain = "docker.io"
	DefaultTag    = "latest"

	legacyDomain = "index.docker.io"
	officialPath = "library/"
	maxRepoPath  = 255
)

// Reference names an image in full: a registry, a repository, and a tag, a
// digest, both or neither. The zero value names nothing.
type Reference struct {
	Domain string // "docker.io", "localhost:5000"
	Path   string // "library/busybox"
	Tag    string
	Digest Digest
}

// Parse reads a reference as a user writes it and adds what Docker adds to
// the name: the default registry and "library/". No tag is added; see
// WithDefaultTag. InvalidArgument, with Docker's texts.
func Parse(s string) (Reference, error) {
	if IsID(s) {
		return Reference{}, fmt.Errorf("invalid repository name (%s), cannot specify 64-byte hexadecimal strings: %w", s, errdefs.ErrInvalidArgument)
	}
	domain, rest := splitDomain(s)
	repo, _, _ := strings.Cut(rest, ":")
	if strings.ToLower(repo) != repo {
		return Reference{}, fmt.Errorf("invalid reference format: repository name (%s) must be lowercase: %w", repo, errdefs.ErrInvalidArgument)
	}
	return parseFull(domain, rest)
}

// ParseTagged is Parse with the default tag where neither tag nor digest was given.
func ParseTagged(s string) (Reference, error) {
	r, err := Parse(s)
	if err != nil {
		return r, err
	}
	return r.WithDefaultTag(), nil
}

func errFormat() error {
	return fmt.Errorf("invalid reference format: %w", errdefs.ErrInvalidArgument)
}

func parseFull(domain, rest string) (Reference, error) {
	ref := Reference{Domain: domain}
	rest, dgst, hasDigest := strings.Cut(rest, "@")
	path, tag, hasTag := strings.Cut(rest, ":")
	if !validDomain(domain) || !validPath(path) || hasTag && !ValidTag(tag) {
		return Reference{}, errFormat()
	}
	if hasDigest {
		if !wellFormedDigest(dgst, 32) {
			return Reference{}, errFormat()
		}
		if err := Digest(dgst).Validate(); err != nil {
			return Reference{}, err
		}
		ref.Digest = Digest(dgst)
	}
	if len(path) > maxRepoPath {
		return Reference{}, fmt.Errorf("repository name must not be more than %d characters: %w", maxRepoPath, errdefs.ErrInvalidArgument)
	}
	ref.Path, ref.Tag = path, tag
	return ref, nil
}

// splitDomain finds the registry in a name: the first component if it cannot
// be a repository's (it has a dot, a colon or a capital, or is localhost).
func splitDomain(s string) (domain, rest string) {
	first, after, ok := strings.Cut(s, "/")
	switch {
	case !ok:
		return DefaultDomain, officialPath + s
	case first == "localhost", strings.ContainsAny(first, ".:"), strings.ToLower(first) != first:
		domain, rest = first, after
	default:
		domain, rest = DefaultDomain, s
	}
	if domain == legacyDomain {
		domain = DefaultDomain
	}
	if domain == DefaultDomain && !strings.Contains(rest, "/") {
		rest = officialPath + rest
	}
	return domain, rest
}

// Name is the repository with its registry: "docker.io/library/busybox".
func (r Reference) Name() string { return r.Domain + "/" + r.Path }

// FamiliarName is Name without what Docker adds: "busybox".
func (r Reference) FamiliarName() string {
	if r.Domain != DefaultDomain {
		return r.Name()
	}
	if rest, ok := strings.CutPrefix(r.Path, officialPath); ok && !strings.Contains(rest, "/") {
		return rest
	}
	return r.Path
}

func (r Reference) suffix() string {
	var s string
	if r.Tag != "" {
		s = ":" + r.Tag
	}
	if r.Digest != "" {
		s += "@" + string(r.Digest)
	}
	return s
}

// String is the canonical form, with the registry.
func (r Reference) String() string { return r.Name() + r.suffix() }

// Familiar is the form people read.
func (r Reference) Familiar() string { return r.FamiliarName() + r.suffix() }

// IsZero reports whether the reference names nothing.
func (r Reference) IsZero() bool { return r.Path == "" }

// NameOnly reports whether neither tag nor digest is given.
func (r Reference) NameOnly() bool { return r.Tag == "" && r.Digest == "" }

// WithDefaultTag adds "latest" if neither tag nor digest is given.
func (r Reference) WithDefaultTag() Reference {
	if r.NameOnly() {
		r.Tag = DefaultTag
	}
	return r
}

// WithTag replaces tag and digest by a tag. InvalidArgument.
func (r Reference) WithTag(tag string) (Reference, error) {
	if !ValidTag(tag) {
		return r, fmt.Errorf("invalid tag format: %w", errdefs.ErrInvalidArgument)
	}
	r.Tag, r.Digest = tag, ""
	return r, nil
}

// WithDigest replaces tag and digest by a digest.
func (r Reference) WithDigest(d Digest) Reference {
	r.Tag, r.Digest = "", d
	return r
}

// Repository removes tag and digest.
func (r Reference) Repository() Reference {
	r.Tag, r.Digest = "", ""
	return r
}
