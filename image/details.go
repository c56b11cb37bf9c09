package image

import (
	"context"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Inspector tells what only some callers want to know.
type Inspector interface {
	// Details adds to a resolved image. NotFound.
	Details(ctx context.Context, img Image) (Details, error)
	// History lists the steps that made an image, newest first. NotFound.
	History(ctx context.Context, img Image) ([]Step, error)
	// DiskUsage returns what the images take together.
	DiskUsage(ctx context.Context) (Usage, error)
	// Shared maps image IDs to the bytes of unpacked layers that other images have too.
	Shared(ctx context.Context) (map[digest.Digest]int64, error)
	// Platforms lists the configurations of all platforms of an image that are here.
	Platforms(ctx context.Context, img Image) ([]Image, error)
}

// Details of an image.
type Details struct {
	// ParentID is the image it was committed from, if known.
	ParentID digest.Digest
	// Driver and Dirs are the storage driver and the directories of the
	// unpacked layers, topmost first, if the driver has such.
	Driver string
	Dirs   []string
	// Manifests are all manifests of the target, here or not.
	Manifests []Manifest
}

// Manifest is one manifest of an image with what is known of it.
type Manifest struct {
	Desc ocispec.Descriptor
	// Attestation manifests describe another one, For.
	Attestation bool
	For         digest.Digest
	// Available: the manifest, its configuration and all layers are here.
	Available bool
	Platform  ocispec.Platform
	Config    digest.Digest
	// Content is the bytes of blobs that are here; Unpacked those of the unpacked layers.
	Content, Unpacked int64
}

// Usage is the disk that images take, in bytes.
type Usage struct {
	// Total is all blobs and unpacked layers that images need, each counted
	// once; what the build cache alone keeps is not in it.
	Total int64
	// Shared is as Inspector.Shared says.
	Shared map[digest.Digest]int64
}

// Step is one entry of an image's history with the size of its layer in bytes.
type Step struct {
	ocispec.History
	Size int64
}
