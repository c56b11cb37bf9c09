package supervisor

import (
	"context"
	"fmt"
	"os"
	"sync"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/task"
)

// roots are the root mounts, one for each task at most, counted: the task
// itself is a user while it runs, and so is each borrower (cp, diff, commit).
type roots struct {
	rt   runtime
	keep keeperStore

	mu sync.Mutex
	m  map[string]*root
}

type root struct {
	mu   sync.Mutex // held while mounting and unmounting
	file *os.File
	meta rootMeta
	refs int // guarded by roots.mu
}

// keeperStore is where duplicates of descriptors go.
type keeperStore interface {
	put(name string, meta any, files ...int)
	drop(name string)
}

func rootSet(id string) string { return "root/" + id }

// rootMeta is what the keeper is told of a root.
type rootMeta struct {
	// IDs are the mappings that it is mounted with; empty for none.
	IDs string `json:"ids,omitempty"`
}

func metaOf(how task.Root) rootMeta {
	if len(how.UIDMappings) == 0 {
		return rootMeta{}
	}
	return rootMeta{IDs: fmt.Sprint(how.UIDMappings, how.GIDMappings)}
}

// open returns the root of a task, mounting it for the first user. The file
// stays the table's. FailedPrecondition if it is mounted with other mappings.
func (rs *roots) open(ctx context.Context, id string, how task.Root) (*os.File, error) {
	rs.mu.Lock()
	r := rs.m[id]
	if r == nil {
		r = &root{}
		rs.m[id] = r
	}
	r.refs++
	rs.mu.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.file != nil && r.meta != metaOf(how) {
		rs.unref(r)
		return nil, fmt.Errorf("mount root: it is in use with other user and group ids: %w", errdefs.ErrFailedPrecondition)
	}
	if r.file != nil {
		return r.file, nil
	}
	f, err := rs.rt.OpenRoot(ctx, how)
	if err != nil {
		rs.unref(r)
		rs.forget(id, r)
		return nil, fmt.Errorf("mount root: %w", err)
	}
	r.file, r.meta = f, metaOf(how)
	rs.keep.put(rootSet(id), r.meta, int(f.Fd()))
	return f, nil
}

// of returns a duplicate of the root of a task that has it open. NotFound.
func (rs *roots) of(id string) (*os.File, error) {
	rs.mu.Lock()
	r := rs.m[id]
	rs.mu.Unlock()
	if r == nil {
		return nil, fmt.Errorf("root of %s is not open: %w", id, errdefs.ErrNotFound)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.file == nil {
		return nil, fmt.Errorf("root of %s is not open: %w", id, errdefs.ErrNotFound)
	}
	fd, err := unix.FcntlInt(r.file.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "root"), nil
}

// adopt puts back a root that an earlier supervisor had mounted.
func (rs *roots) adopt(id string, f *os.File, meta rootMeta) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	rs.m[id] = &root{file: f, meta: meta, refs: 1}
}

// release undoes one open. The last one unmounts, which may write out what the
// file system still holds: callers in a hurry use a goroutine.
func (rs *roots) release(id string) error {
	rs.mu.Lock()
	r := rs.m[id]
	rs.mu.Unlock()
	if r == nil {
		return fmt.Errorf("root of %s is not open: %w", id, errdefs.ErrNotFound)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if rs.unref(r) > 0 {
		return nil
	}
	defer rs.forget(id, r)
	f := r.file
	r.file = nil
	if f == nil {
		return nil
	}
	rs.keep.drop(rootSet(id))
	return rs.rt.CloseRoot(f)
}

func (rs *roots) unref(r *root) int {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	if r.refs > 0 {
		r.refs--
	}
	return r.refs
}

// forget removes an entry that nobody uses. It stays until the mount is gone,
// so that the next user waits for that: one upper directory is never mounted twice.
func (rs *roots) forget(id string, r *root) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	if r.refs == 0 && rs.m[id] == r {
		delete(rs.m, id)
	}
}
