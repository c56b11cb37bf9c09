// Package tree reads directories of layers: what an upper directory changes
// over lower ones, and how to write that as a layer. Drivers that keep layers
// as directories share it. Upper directories may belong to running containers,
// so they are walked by descriptor and without following links.
package tree

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

const (
	opaqueXattr = "trusted.overlay.opaque"
	// maxNesting bounds the directories held open at once. Nobody gets deeper
	// with paths of the kernel's size (PATH_MAX).
	maxNesting = 2048
)

// Entry is one thing in an upper directory. A running container may change the
// directory meanwhile: entries are read through dir only, without following links.
type Entry struct {
	Path string // in the container, "/etc/hosts"
	Name string
	Stat unix.Stat_t
	// Opaque: a directory that hides the ones below it.
	Opaque bool
	// Below are the lower directories merged with it, topmost first. Lower is
	// what the lower layers show of that name; "" if nothing.
	Below []string
	Lower string

	dir *os.File
}

// Kind is the type bits of the mode.
func (e *Entry) Kind() uint32 { return e.Stat.Mode & unix.S_IFMT }

// IsDir reports a directory.
func (e *Entry) IsDir() bool { return e.Kind() == unix.S_IFDIR }

// IsWhiteout reports overlayfs' mark of a deleted name.
func (e *Entry) IsWhiteout() bool { return whiteout(&e.Stat) }

// ProcPath names the entry for calls that take no descriptor.
func (e *Entry) ProcPath() string {
	return "/proc/self/fd/" + strconv.Itoa(int(e.dir.Fd())) + "/" + e.Name
}

// Has tells whether a directory has an entry of that name.
func (e *Entry) Has(name string) bool {
	fd, err := unix.Openat(int(e.dir.Fd()), e.Name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	return unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil
}

func whiteout(st *unix.Stat_t) bool {
	return st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0
}

// Walk visits everything in an upper directory, parents first, in the order of
// names. lower are the directories below, topmost first; nil if nobody cares.
func Walk(ctx context.Context, upper string, lower []string, visit func(*Entry) error) error {
	fd, err := unix.Open(upper, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", upper, err)
	}
	root := os.NewFile(uintptr(fd), upper)
	defer root.Close()
	return walkDir(ctx, root, "/", lower, 0, visit)
}

func walkDir(ctx context.Context, dir *os.File, at string, lower []string, depth int, visit func(*Entry) error) error {
	if depth > maxNesting {
		return fmt.Errorf("directories are nested more than %d deep: %w", maxNesting, errdefs.ErrOutOfRange)
	}
	names, err := dir.Readdirnames(-1)
	if errors.Is(err, unix.ENOENT) {
		return nil // the directory was removed meanwhile
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", at, err)
	}
	slices.Sort(names)
	for _, name := range names {
		if err := ctx.Err(); err != nil {
			return err
		}
		e := &Entry{Path: path.Join(at, name), Name: name, dir: dir}
		err := unix.Fstatat(int(dir.Fd()), name, &e.Stat, unix.AT_SYMLINK_NOFOLLOW)
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			return fmt.Errorf("stat %s: %w", e.Path, err)
		}
		if err := walkEntry(ctx, e, lower, depth, visit); err != nil {
			return err
		}
	}
	return nil
}

func walkEntry(ctx context.Context, e *Entry, lower []string, depth int, visit func(*Entry) error) error {
	if e.IsDir() {
		e.Opaque = isOpaque(e.ProcPath())
	}
	e.Below, e.Lower = Merge(lower, e.Name)
	if err := visit(e); err != nil {
		return err
	}
	if !e.IsDir() {
		return nil
	}
	fd, err := unix.Openat(int(e.dir.Fd()), e.Name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return nil // it was replaced meanwhile
	}
	if err != nil {
		return fmt.Errorf("open %s: %w", e.Path, err)
	}
	sub := os.NewFile(uintptr(fd), e.Path)
	defer sub.Close()
	below := e.Below
	if e.Opaque {
		below = nil
	}
	return walkDir(ctx, sub, e.Path, below, depth+1, visit)
}

// isOpaque reads overlayfs' mark.
func isOpaque(p string) bool {
	var b [1]byte
	n, err := unix.Lgetxattr(p, opaqueXattr, b[:])
	return err == nil && n == 1 && b[0] == 'y'
}

// Merge looks for a name in lower directories: which of them are merged if it
// is a directory, and the topmost that has it ("" if none shows it). Lower
// directories do not change.
func Merge(lower []string, name string) (below []string, top string) {
	for i, l := range lower {
		p := filepath.Join(l, name)
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			continue
		}
		if whiteout(&st) {
			return below, top
		}
		isDir := st.Mode&unix.S_IFMT == unix.S_IFDIR
		if top == "" {
			top = p
		}
		if !isDir {
			return below, top
		}
		below = append(below, p)
		if i < len(lower)-1 && isOpaque(p) {
			return below, top
		}
	}
	return below, top
}

// List lists what merged lower directories show.
func List(lower []string) ([]string, error) {
	seen := map[string]bool{}
	var names []string
	for _, l := range lower {
		entries, err := os.ReadDir(l)
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			if seen[e.Name()] {
				continue
			}
			seen[e.Name()] = true
			if _, top := Merge(lower, e.Name()); top != "" {
				names = append(names, e.Name())
			}
		}
	}
	slices.Sort(names)
	return names, nil
}
