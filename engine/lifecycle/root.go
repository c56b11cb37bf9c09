package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/containerd/errdefs"
	apicontainer "github.com/moby/moby/api/types/container"
	apievents "github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/mount"

	"github.com/wherry-engine/wherry/container"
	"github.com/wherry-engine/wherry/engine/archive"
	"github.com/wherry-engine/wherry/engine/rootfs"
	"github.com/wherry-engine/wherry/engine/stubs"
	"github.com/wherry-engine/wherry/engine/undo"
)

// openRoot opens the root mount of a container; the supervisor mounts it if it
// is not. close gives it back.
func (e *Engine) openRoot(ctx context.Context, id container.ID, ids container.IDMap) (root rootfs.Root, closeRoot func(), err error) {
	root.IDs = ids
	desc, err := e.describeRoot(ctx, id, ids)
	if err != nil {
		return root, nil, err
	}
	err = persist(func() (err error) {
		root.File, err = e.o.Tasks.OpenRoot(ctx, string(id), desc)
		return err
	})
	if err != nil {
		return root, nil, fmt.Errorf("open the root file system: %w", err)
	}
	return root, func() {
		if err := errors.Join(root.File.Close(), e.o.Tasks.CloseRoot(context.WithoutCancel(ctx), string(id))); err != nil {
			e.log.Warn("close root file system", "container", id, "err", err)
		}
	}, nil
}

// openImage opens the root of a container that was never started.
func (e *Engine) openImage(ctx context.Context, s *container.Spec) (rootfs.Root, func(), error) {
	return e.openRoot(ctx, s.ID, e.defaults.Load().IDsOf(s.HostConfig))
}

// view opens the file system of a container as it sees it: the root and what
// is mounted in it.
func (e *Engine) view(ctx context.Context, u *unit) (*archive.View, func(), error) {
	root, closeRoot, err := e.openRoot(ctx, u.id, e.idsOf(u))
	if err != nil {
		return nil, nil, err
	}
	v := &archive.View{Root: root, Mounts: map[string]archive.Mount{}}
	done := undo.List{func(context.Context) error { closeRoot(); return nil }}
	closeAll := func() {
		if err := done.Run(context.WithoutCancel(ctx)); err != nil {
			e.log.Warn("close mounts of container", "container", u.id, "err", err)
		}
	}
	for _, m := range u.spec.Load().Mounts {
		f, err := e.openMount(ctx, u, m, &done)
		if err != nil {
			closeAll()
			return nil, nil, fmt.Errorf("open mount %s: %w", m.Destination, err)
		}
		if f != nil {
			am := archive.Mount{Root: rootfs.Root{File: f}, ReadOnly: !m.RW}
			if m.Type == mount.TypeTmpfs { // as the container has it; all others are the host's
				am.Root.IDs = root.IDs
			}
			v.Mounts[m.Destination] = am
			done.Add(func(context.Context) error { return f.Close() })
		}
	}
	return v, closeAll, nil
}

// openMount opens what is mounted at one place, or returns nil if there is
// nothing to see: a bind whose source is gone, a tmpfs of a stopped container.
func (e *Engine) openMount(ctx context.Context, u *unit, m container.Mount, done *undo.List) (*os.File, error) {
	if m.Type == mount.TypeTmpfs {
		return rootfs.OpenLive(func() int { return u.status.Load().Pid }, m.Destination), nil
	}
	return e.volumes.Open(ctx, u.id, m, done)
}

// withView runs fn on the file system of a container.
func (e *Engine) withView(ctx context.Context, ref string, fn func(*unit, *archive.View) error) error {
	u, err := e.index.find(ref)
	if err != nil {
		return err
	}
	if u.status.Load().State == container.StateRemoving {
		return conflict("container %s is being removed", u.id)
	}
	v, closeView, err := e.view(ctx, u)
	if err != nil {
		return u.orGone(err)
	}
	defer closeView()
	return fn(u, v)
}

// ArchiveStat describes a path of a container. NotFound.
func (e *Engine) ArchiveStat(ctx context.Context, ref, path string) (st apicontainer.PathStat, err error) {
	err = e.withView(ctx, ref, func(u *unit, v *archive.View) error {
		st, err = v.Stat(path)
		return pathError(u, path, err)
	})
	return st, err
}

// pathError names the container in an error of a path.
func pathError(u *unit, path string, err error) error {
	if errdefs.IsNotFound(err) {
		return errdefs.ErrNotFound.WithMessage(fmt.Sprintf("Could not find the file %s in container %s", path, u.name()))
	}
	return err
}

// ArchiveGet writes a path of a container as a tar stream; begin is called with
// its description first. NotFound.
func (e *Engine) ArchiveGet(ctx context.Context, ref, path string, begin func(apicontainer.PathStat) io.Writer) error {
	return e.withView(ctx, ref, func(u *unit, v *archive.View) error {
		st, err := v.Stat(path)
		if err != nil {
			return pathError(u, path, err)
		}
		e.emit(u, apievents.ActionArchivePath, nil)
		return v.Get(ctx, path, begin(st))
	})
}

// ArchivePut unpacks an uncompressed tar stream into a container. NotFound,
// InvalidArgument, PermissionDenied (read-only).
func (e *Engine) ArchivePut(ctx context.Context, ref string, req container.PutRequest, r io.Reader) error {
	return e.withView(ctx, ref, func(u *unit, v *archive.View) error {
		s := u.spec.Load()
		if err := v.CheckWritable(req.Path, s.HostConfig.ReadonlyRootfs); err != nil {
			return pathError(u, req.Path, err)
		}
		opts := archive.PutOptions{Path: req.Path, NoOverwriteDirNonDir: req.NoOverwriteDirNonDir, CopyUIDGID: req.CopyUIDGID}
		if req.CopyUIDGID && s.Config.User != "" {
			uid, gid, err := rootfs.User(v.Root.File, s.Config.User)
			if err != nil {
				return err
			}
			opts.Owner = &[2]int{uid, gid}
		}
		if err := v.Put(ctx, opts, r); err != nil {
			return pathError(u, req.Path, err)
		}
		e.emit(u, apievents.ActionExtractToDir, nil)
		return nil
	})
}

// Export writes the root file system as a tar stream.
func (e *Engine) Export(ctx context.Context, ref string, begin func() io.Writer) error {
	u, err := e.index.find(ref)
	if err != nil {
		return err
	}
	root, closeRoot, err := e.openRoot(ctx, u.id, e.idsOf(u))
	if err != nil {
		return u.orGone(err)
	}
	defer closeRoot()
	e.emit(u, apievents.ActionExport, nil)
	return (&archive.View{Root: root}).Export(ctx, begin())
}

// Changes lists what differs from the image.
func (e *Engine) Changes(ctx context.Context, ref string) ([]apicontainer.FilesystemChange, error) {
	u, err := e.index.find(ref)
	if err != nil {
		return nil, err
	}
	changes, err := e.o.Layers.Changes(ctx, u.id)
	if err != nil {
		return nil, u.orGone(err)
	}
	out := make([]apicontainer.FilesystemChange, 0, len(changes))
	for _, c := range stubs.Changes(changes) {
		out = append(out, apicontainer.FilesystemChange{Kind: apicontainer.ChangeType(c.Kind), Path: c.Path})
	}
	return out, nil
}
