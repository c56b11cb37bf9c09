package store

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/pkg/archive"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
)

// maxName bounds a path in a layer, in bytes (PATH_MAX).
const maxName = 4096

// applyLayer unpacks a layer's blob into dir and checks that what it unpacked
// is what the configuration says. overlay writes whiteouts as overlayfs has
// them. It returns the directories that the layer implies but does not
// describe. InvalidArgument for hostile or damaged layers.
func (s *Store) applyLayer(ctx context.Context, desc ocispec.Descriptor, dir string, want digest.Digest, overlay bool, out sink) (implied []string, err error) {
	ra, err := s.ContentStore().ReaderAt(ctx, desc)
	if err != nil {
		return nil, err
	}
	defer ra.Close()
	m := &meter{sink: out, id: short(desc.Digest), action: "Extracting", total: ra.Size()}
	plainReader, _, err := decompress(&counted{r: content.NewReader(ra), m: m})
	if err != nil {
		return nil, fmt.Errorf("layer %s: %w", desc.Digest, err)
	}
	defer plainReader.Close()
	implied, err = applyVerified(ctx, plainReader, desc, dir, want, overlay)
	if err == nil {
		m.at(m.total)
	}
	return implied, err
}

// applyStream unpacks a layer whose bytes are just coming.
func (s *Store) applyStream(ctx context.Context, t *tee, desc ocispec.Descriptor, dir string, want digest.Digest) ([]string, error) {
	defer context.AfterFunc(ctx, t.leave)()
	z, _, err := decompress(t)
	if err != nil {
		return nil, fmt.Errorf("layer %s: %w", desc.Digest, err)
	}
	defer z.Close()
	implied, err := applyVerified(ctx, z, desc, dir, want, true)
	if err != nil {
		return nil, err
	}
	// The stream is whole when it ends without an error.
	_, err = io.Copy(io.Discard, t)
	return implied, err
}

// applyVerified unpacks and compares what was unpacked with the diff ID.
func applyVerified(ctx context.Context, r io.Reader, desc ocispec.Descriptor, dir string, want digest.Digest, overlay bool) ([]string, error) {
	implied, got, err := applyTar(ctx, r, dir, overlay)
	if err != nil {
		return nil, fmt.Errorf("unpack layer %s: %w", desc.Digest, err)
	}
	if got != want {
		return nil, fmt.Errorf("wrong diff id calculated on extraction of layer %s: %q, expected %q: %w", desc.Digest, got, want, errdefs.ErrInvalidArgument)
	}
	return implied, nil
}

// applyTar unpacks an uncompressed layer and returns its digest.
func applyTar(ctx context.Context, r io.Reader, dir string, overlay bool) (implied []string, _ digest.Digest, err error) {
	h := sha256.New()
	pipe := newPipeline(r, h)
	defer pipe.Close()
	seen := newEntries()
	if overlay {
		err = extractTar(ctx, pipe, dir, seen.check)
	} else {
		_, err = archive.Apply(ctx, dir, pipe, archive.WithFilter(seen.check))
	}
	if err != nil {
		return nil, "", classify(err)
	}
	// What follows the end of the archive is part of the digest.
	if _, err := io.Copy(io.Discard, pipe); err != nil {
		return nil, "", classify(err)
	}
	return seen.implied(), digest.NewDigest(digest.SHA256, h), nil
}

// classify tells damage in the archive from trouble of the machine.
func classify(err error) error {
	var errno syscall.Errno
	if errdefs.Resolve(err) != errdefs.ErrUnknown || errors.As(err, &errno) && errno != unix.ENOENT && errno != unix.ENOTDIR && errno != unix.ENAMETOOLONG {
		return err
	}
	return fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
}

// entries watches the headers of a layer.
type entries struct {
	dirs    map[string]bool // described
	parents map[string]bool
}

func newEntries() *entries {
	return &entries{dirs: map[string]bool{}, parents: map[string]bool{}}
}

// check refuses entries that mean to leave the layer, and removes attributes
// that would steer overlayfs.
func (e *entries) check(h *tar.Header) (bool, error) {
	if err := inside(h.Name); err != nil {
		return false, err
	}
	if h.Typeflag == tar.TypeLink {
		if err := inside(h.Linkname); err != nil {
			return false, err
		}
	}
	for k := range h.PAXRecords {
		name := strings.TrimPrefix(k, "SCHILY.xattr.")
		if strings.HasPrefix(name, "trusted.overlay.") || strings.HasPrefix(name, "user.overlay.") {
			delete(h.PAXRecords, k)
		}
	}
	name := path.Clean("/" + h.Name)
	if h.Typeflag == tar.TypeDir {
		e.dirs[name] = true
	}
	for dir := path.Dir(name); dir != "/" && !e.parents[dir]; dir = path.Dir(dir) {
		e.parents[dir] = true
	}
	return true, nil
}

// inside refuses a path that climbs out of its root.
func inside(name string) error {
	if len(name) > maxName || strings.ContainsRune(name, 0) {
		return fmt.Errorf("name %.40q… is too long or not valid: %w", name, errdefs.ErrInvalidArgument)
	}
	if c := path.Clean(strings.TrimLeft(name, "/")); c == ".." || strings.HasPrefix(c, "../") {
		return fmt.Errorf("invalid tar entry: %q is outside of the layer: %w", name, errdefs.ErrInvalidArgument)
	}
	return nil
}

func (e *entries) implied() []string {
	var list []string
	for p := range e.parents {
		if !e.dirs[p] {
			list = append(list, p)
		}
	}
	return list
}

// inheritAttributes copies owner, mode and attributes of directories from the
// topmost lower layer that has them. Paths with symbolic links are left alone.
func inheritAttributes(dir string, lower, paths []string) error {
	for _, p := range paths {
		dst := filepath.Join(dir, p)
		if !plainDir(dir, p) {
			continue
		}
		for _, l := range lower {
			if !plainDir(l, p) {
				if _, err := os.Lstat(filepath.Join(l, p)); err == nil {
					break // hidden by something else
				}
				continue
			}
			if err := copyAttributes(filepath.Join(l, p), dst); err != nil {
				return fmt.Errorf("inherit attributes of %s: %w", p, err)
			}
			break
		}
	}
	return nil
}

// plainDir reports whether every component of p below root is a directory.
func plainDir(root, p string) bool {
	at := root
	for part := range strings.SplitSeq(strings.Trim(p, "/"), "/") {
		at = filepath.Join(at, part)
		st, err := os.Lstat(at)
		if err != nil || !st.IsDir() {
			return false
		}
	}
	return true
}

func copyAttributes(src, dst string) error {
	st, err := os.Lstat(src)
	if err != nil {
		return err
	}
	sys, ok := st.Sys().(*syscall.Stat_t)
	if !ok {
		return fs.ErrInvalid
	}
	if err := os.Lchown(dst, int(sys.Uid), int(sys.Gid)); err != nil {
		return err
	}
	if err := os.Chmod(dst, st.Mode()); err != nil {
		return err
	}
	if err := copyXattrs(src, dst); err != nil {
		return err
	}
	return unix.UtimesNanoAt(unix.AT_FDCWD, dst, []unix.Timespec{unix.Timespec(sys.Atim), unix.Timespec(sys.Mtim)}, unix.AT_SYMLINK_NOFOLLOW)
}

func copyXattrs(src, dst string) error {
	buf := make([]byte, 64<<10)
	n, err := unix.Llistxattr(src, buf)
	if err != nil {
		return nil //nolint:nilerr // a file system without extended attributes
	}
	val := make([]byte, 64<<10)
	for name := range strings.SplitSeq(strings.TrimRight(string(buf[:n]), "\x00"), "\x00") {
		if name == "" || strings.HasPrefix(name, "trusted.overlay.") {
			continue
		}
		m, err := unix.Lgetxattr(src, name, val)
		if err != nil {
			continue
		}
		if err := unix.Lsetxattr(dst, name, val[:m], 0); err != nil && !errors.Is(err, unix.ENOTSUP) && !errors.Is(err, unix.EPERM) {
			return err
		}
	}
	return nil
}

// counted reports how much of a blob was read.
type counted struct {
	r io.Reader
	m *meter
	n atomic.Int64
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.m.at(c.n.Add(int64(n)))
	return n, err
}
