package overlay

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
	// maxNesting bounds the directories held open at once.
	maxNesting = 4096
)

// entry is one thing in an upper directory. A running container may change the
// directory meanwhile: entries are read through dir only, without following links.
type entry struct {
	path string // in the container, "/etc/hosts"
	name string
	dir  *os.File
	st   unix.Stat_t
	// opaque: a directory that hides the ones below it.
	opaque bool
	// below are the lower directories merged with it, topmost first; inLower
	// tells whether the lower layers have anything of that name.
	below   []string
	inLower bool
}

func (e *entry) kind() uint32     { return e.st.Mode & unix.S_IFMT }
func (e *entry) isDir() bool      { return e.kind() == unix.S_IFDIR }
func (e *entry) isWhiteout() bool { return whiteout(&e.st) }

// procPath names the entry for calls that take no descriptor.
func (e *entry) procPath() string {
	return "/proc/self/fd/" + strconv.Itoa(int(e.dir.Fd())) + "/" + e.name
}

func whiteout(st *unix.Stat_t) bool {
	return st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0
}

// walk visits everything in an upper directory, parents first, in the order of
// names. lower are the directories below, topmost first; nil if nobody cares.
func walk(ctx context.Context, upper string, lower []string, visit func(*entry) error) error {
	fd, err := unix.Open(upper, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", upper, err)
	}
	root := os.NewFile(uintptr(fd), upper)
	defer root.Close()
	return walkDir(ctx, root, "/", lower, 0, visit)
}

func walkDir(ctx context.Context, dir *os.File, at string, lower []string, depth int, visit func(*entry) error) error {
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
		e := &entry{path: path.Join(at, name), name: name, dir: dir}
		err := unix.Fstatat(int(dir.Fd()), name, &e.st, unix.AT_SYMLINK_NOFOLLOW)
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			return fmt.Errorf("stat %s: %w", e.path, err)
		}
		if err := walkEntry(ctx, e, lower, depth, visit); err != nil {
			return err
		}
	}
	return nil
}

func walkEntry(ctx context.Context, e *entry, lower []string, depth int, visit func(*entry) error) error {
	if e.isDir() {
		e.opaque = isOpaque(e.procPath())
	}
	e.below, e.inLower = merge(lower, e.name)
	if err := visit(e); err != nil {
		return err
	}
	if !e.isDir() {
		return nil
	}
	fd, err := unix.Openat(int(e.dir.Fd()), e.name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return nil // it was replaced meanwhile
	}
	if err != nil {
		return fmt.Errorf("open %s: %w", e.path, err)
	}
	sub := os.NewFile(uintptr(fd), e.path)
	defer sub.Close()
	below := e.below
	if e.opaque {
		below = nil
	}
	return walkDir(ctx, sub, e.path, below, depth+1, visit)
}

// isOpaque reads overlayfs' mark.
func isOpaque(p string) bool {
	var b [1]byte
	n, err := unix.Lgetxattr(p, opaqueXattr, b[:])
	return err == nil && n == 1 && b[0] == 'y'
}

// merge looks for a name in lower directories: which of them are merged if it
// is a directory, and whether it exists at all. Lower directories do not change.
func merge(lower []string, name string) (below []string, exists bool) {
	for i, l := range lower {
		p := filepath.Join(l, name)
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			continue
		}
		if whiteout(&st) {
			return below, exists
		}
		exists = true
		if st.Mode&unix.S_IFMT != unix.S_IFDIR {
			return below, exists
		}
		below = append(below, p)
		if i < len(lower)-1 && isOpaque(p) {
			return below, exists
		}
	}
	return below, exists
}

// listLower lists what the merged lower directories show.
func listLower(lower []string) ([]string, error) {
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
			if _, exists := merge(lower, e.Name()); exists {
				names = append(names, e.Name())
			}
		}
	}
	slices.Sort(names)
	return names, nil
}
