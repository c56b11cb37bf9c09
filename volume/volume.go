// Package volume is the contract of volumes: named directories that outlive
// containers.
package volume

import (
	"context"

	apivolume "github.com/moby/moby/api/types/volume"
)

// Store keeps volumes of every driver.
type Store interface {
	// Create returns the existing volume if name and driver agree. Conflict
	// if the name exists with another driver; InvalidArgument for a bad name.
	Create(ctx context.Context, req apivolume.CreateRequest) (apivolume.Volume, error)
	Get(ctx context.Context, name string) (apivolume.Volume, error)
	List(ctx context.Context) ([]apivolume.Volume, error)
	// Delete: NotFound unless force, FailedPrecondition while referenced.
	Delete(ctx context.Context, name string, force bool) error
	// Mount returns the directory of the volume on the host, mounting it if its
	// driver needs that, and counts a use by the container.
	Mount(ctx context.Context, name, containerID string) (path string, err error)
	Unmount(ctx context.Context, name, containerID string) error
	// Reference records that a container (running or not) needs the volume.
	Reference(ctx context.Context, name, containerID string) error
	Release(ctx context.Context, name, containerID string) error
	// Users returns the containers that reference the volume.
	Users(name string) []string
	// NeedsPopulating reports whether the volume was never written, so that it
	// is to be filled from the image; Populated records that it was.
	NeedsPopulating(ctx context.Context, name string) (bool, error)
	Populated(ctx context.Context, name string) error
	// Usage returns the bytes of a volume.
	Usage(ctx context.Context, name string) (int64, error)
}
