// Package snapshot is the contract of root file systems: read-only chains of
// image layers, and the writable layer of one container above them.
//
// # Lifecycle
//
// A chain is prepared when an image is unpacked and pinned by its image; it is
// never written again. Create makes the writable layer of a container over a
// chain without copying anything; Root describes how to mount it; only the
// supervisor mounts it, and never twice. Remove deletes it.
package snapshot

import (
	"context"
	"io"

	"github.com/opencontainers/go-digest"

	"github.com/wherry-engine/wherry/container"
	"github.com/wherry-engine/wherry/task"
)

// Driver is one way to hold writable layers, such as overlayfs.
type Driver interface {
	Name() string
	// Create makes the writable layer of id over chain. AlreadyExists, NotFound (chain).
	Create(ctx context.Context, id container.ID, chain digest.Digest) error
	// Root tells how to mount it. NotFound.
	Root(ctx context.Context, id container.ID) (task.Root, error)
	// View tells how to mount a chain read-only.
	View(ctx context.Context, chain digest.Digest) (task.Root, error)
	// Changes lists what differs from the chain. root is a directory of the mounted layer.
	Changes(ctx context.Context, id container.ID) ([]Change, error)
	// Diff writes the writable layer as an uncompressed OCI layer (with whiteouts).
	Diff(ctx context.Context, id container.ID, w io.Writer) error
	// Usage returns the bytes and inodes of the writable layer.
	Usage(ctx context.Context, id container.ID) (Usage, error)
	// Remove deletes the writable layer; NotFound is not an error.
	Remove(ctx context.Context, id container.ID) error
	// List returns every writable layer, for the garbage collector.
	List(ctx context.Context) ([]container.ID, error)
	// Status is the key-value list shown by info.
	Status() [][2]string
}

// Chains knows the read-only chains that layers stand on; the image store does.
type Chains interface {
	// Acquire keeps the chain until Release and returns its directories, topmost
	// first (none for drivers without). NotFound.
	Acquire(ctx context.Context, chain digest.Digest) ([]string, error)
	Release(chain digest.Digest)
	// Adopt is called once with the chains of the layers that exist.
	Adopt(ctx context.Context, chains []digest.Digest)
}

// Usage of disk.
type Usage struct{ Bytes, Inodes int64 }

// ChangeKind uses the API's numbers.
type ChangeKind uint8

// Kinds.
const (
	Modified ChangeKind = 0
	Added    ChangeKind = 1
	Deleted  ChangeKind = 2
)

// Change is one path that differs.
type Change struct {
	Path string
	Kind ChangeKind
}
