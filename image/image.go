// Package image is the contract of the image store: what images are here, how
// they arrive, leave, are named and removed. Manifests, configurations and
// layers live in the content store; unpacked layers in snapshot chains.
package image

import (
	"context"
	"io"
	"time"

	"github.com/moby/moby/api/types/registry"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Config is the image configuration with Docker's additions to the OCI format.
type Config struct {
	ocispec.Image
	DockerConfig
}

// DockerConfig holds the fields of config that OCI does not define.
type DockerConfig struct {
	Healthcheck []byte // raw JSON of the Docker health check, if any
	Shell       []string
	OnBuild     []string
	Comment     string
}

// Image is one image for one platform.
type Image struct {
	// ID is what `docker images` shows: the digest of the image target
	// (manifest, index or config, as the store decided; see docs/adr).
	ID digest.Digest
	// ConfigDigest and Manifest identify this platform's image.
	ConfigDigest digest.Digest
	Manifest     ocispec.Descriptor
	Target       ocispec.Descriptor
	Platform     ocispec.Platform
	Config       Config
	// RawConfig is the JSON as stored.
	RawConfig []byte
	// Chain is the chain ID of all layers.
	Chain       digest.Digest
	RepoTags    []string
	RepoDigests []string
	Created     time.Time
	// Size in bytes of the unpacked layers.
	Size       int64
	LastTagged time.Time
	Dangling   bool
}

// Progress receives what a transfer does; implementations must be safe for
// concurrent use. It is nil-safe through the helper functions of the store.
type Progress interface {
	// Update reports one item ("layer id", "Downloading", 10, 100).
	Update(id, action string, current, total int64)
	// Status reports a line without numbers; id may be empty.
	Status(id, message string)
	// Aux sends an auxiliary object.
	Aux(v any)
}

// PullRequest asks for an image from a registry.
type PullRequest struct {
	Ref         string // as the user wrote it
	All         bool   // every tag
	Platform    *ocispec.Platform
	Auth        *registry.AuthConfig
	MetaHeaders map[string][]string
}

// PushRequest sends an image to a registry.
type PushRequest struct {
	Ref      string
	All      bool
	Platform *ocispec.Platform
	Auth     *registry.AuthConfig
}

// Resolver finds images. Implementations return NotFound with the text
// "No such image: REF".
type Resolver interface {
	// Resolve accepts a reference, an ID or an unambiguous ID prefix.
	Resolve(ctx context.Context, ref string, platform *ocispec.Platform) (Image, error)
	List(ctx context.Context) ([]Image, error)
	// Prepare makes sure the image's layers are unpacked and returns its chain.
	Prepare(ctx context.Context, img Image) (digest.Digest, error)
}

// Transfer moves images in and out.
type Transfer interface {
	Pull(ctx context.Context, req PullRequest, p Progress) error
	Push(ctx context.Context, req PushRequest, p Progress) error
	Load(ctx context.Context, r io.Reader, platforms []ocispec.Platform, p Progress) error
	Save(ctx context.Context, refs []string, platforms []ocispec.Platform, w io.Writer) error
	// Import makes an image of one layer from a tar stream.
	Import(ctx context.Context, r io.Reader, ref string, cfg Config, p Progress) (digest.Digest, error)
	// Commit stores a new image made of parent plus one layer, which diff writes
	// as an uncompressed tar. ref may be empty. It returns the image ID.
	Commit(ctx context.Context, parent *Image, cfg Config, ref string, diff func(io.Writer) error) (digest.Digest, error)
}

// Tagger names and removes images.
type Tagger interface {
	Tag(ctx context.Context, ref, newRef string) error
	// Delete follows the API: untag, and delete when the last name goes.
	// inUse tells whether a container needs the image (and whether it runs).
	Delete(ctx context.Context, ref string, opts DeleteOptions) ([]Deleted, error)
	// Prune removes what filters select; it returns the bytes freed.
	Prune(ctx context.Context, opts PruneOptions) ([]Deleted, int64, error)
}

// DeleteOptions for Delete.
type DeleteOptions struct {
	Force, NoPrune bool
	Platforms      []ocispec.Platform
	// InUse answers for a given image which container uses it ("" for none) and whether it runs.
	InUse func(id, config digest.Digest) (containerID string, running bool)
}

// PruneOptions for Prune.
type PruneOptions struct {
	DanglingOnly bool
	Until        time.Time
	Labels       func(map[string]string) bool // nil: all
	InUse        func(id, config digest.Digest) (containerID string, running bool)
}

// Deleted is one line of a delete answer.
type Deleted struct{ Untagged, Deleted string }
