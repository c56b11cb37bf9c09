package store

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/plugins/snapshots/native"
	"github.com/containerd/containerd/v2/plugins/snapshots/overlay"
	"github.com/containerd/containerd/v2/plugins/snapshots/overlay/overlayutils"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/wherry-engine/wherry/internal/topdir"
)

// upperLabel is where the overlay snapshotter tells a snapshot's directory.
const upperLabel = "containerd.io/snapshot/overlay.upperdir"

// driver is a storage driver and what it can do.
type driver struct {
	name string
	sn   snapshots.Snapshotter
	// stacked: each layer is a directory of its own, unpacked without its
	// parents and put on top of them when it is committed.
	stacked bool
}

// openDriver opens a storage driver by the name Docker or containerd use for it.
func openDriver(name, root string) (driver, error) {
	auto := name == ""
	switch name {
	case "", "overlay2", "overlayfs", "overlay":
		err := overlayutils.Supported(root)
		if err == nil {
			return openOverlay(root)
		}
		if !auto {
			return driver{}, fmt.Errorf("storage driver %s: %w: %w", name, err, errdefs.ErrFailedPrecondition)
		}
		fallthrough
	case "native", "vfs":
		sn, err := native.NewSnapshotter(root)
		topdir.Mark(filepath.Join(root, "snapshots"))
		return driver{name: "native", sn: sn}, err
	case "btrfs", "zfs", "devicemapper", "fuse-overlayfs", "erofs", "aufs", "windowsfilter":
		return driver{}, fmt.Errorf("storage driver %s is not built in: %w", name, errdefs.ErrNotImplemented)
	}
	return driver{}, fmt.Errorf("unknown storage driver %q: %w", name, errdefs.ErrInvalidArgument)
}

func openOverlay(root string) (driver, error) {
	sn, err := overlay.NewSnapshotter(root, overlay.AsynchronousRemove, overlay.WithUpperdirLabel)
	if err != nil {
		return driver{}, err
	}
	dirs := filepath.Join(root, "snapshots")
	topdir.Mark(dirs)
	d := &deepRemoval{Snapshotter: sn}
	if err := d.addStrays(context.Background(), dirs); err != nil {
		return driver{}, errors.Join(err, sn.Close())
	}
	return driver{name: "overlayfs", sn: d, stacked: true}, nil
}

// layerDirs lists the directories of a chain, topmost first.
func (s *Store) layerDirs(ctx context.Context, chain digest.Digest) ([]string, error) {
	if !s.driver.stacked {
		return nil, fmt.Errorf("storage driver %s has no layer directories: %w", s.driver.name, errdefs.ErrNotImplemented)
	}
	var dirs []string
	for key := chain.String(); key != ""; {
		info, err := s.snap.Stat(ctx, key)
		if err != nil {
			return nil, fmt.Errorf("chain %s: %w", chain, err)
		}
		dirs = append(dirs, info.Labels[upperLabel])
		key = info.Parent
	}
	return dirs, nil
}
