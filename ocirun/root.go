package ocirun

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Root says how a root file system is made; it converts from task.Root.
type Root struct {
	Layers   []string // read-only lower directories, topmost first
	Upper    string   // with Work: the writable pair
	Work     string
	Bind     string   // a directory instead of an overlay
	Options  []string // further file-system options, such as "metacopy=on"
	ReadOnly bool
}

// OpenRoot mounts root where no mount table of the host shows it. The same
// upper directory must not be mounted twice: keep the file, and pass it to every
// Create. NotFound if a directory is missing, InvalidArgument for a root
// that is none.
func (r *Runtime) OpenRoot(_ context.Context, root Root) (*os.File, error) {
	if err := root.check(); err != nil {
		return nil, err
	}
	h, err := r.needHolder()
	if err != nil {
		return nil, err
	}
	var fd int
	if h != nil {
		return h.open(root)
	}
	if root.Bind != "" || len(root.Layers) == 1 && root.Upper == "" {
		fd, err = bindRoot(root)
	} else {
		fd, err = overlayRoot(root)
	}
	if err != nil {
		return nil, rootError(err)
	}
	return os.NewFile(uintptr(fd), "root"), nil
}

func rootError(err error) error {
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		err = fmt.Errorf("%w: %w", err, errdefs.ErrNotFound)
	}
	return fmt.Errorf("open root: %w", err)
}

func (root *Root) check() error {
	switch {
	case root.Bind != "" && (len(root.Layers) > 0 || root.Upper != ""):
		return invalidf("root: a directory and layers exclude each other")
	case root.Bind == "" && len(root.Layers) == 0:
		return invalidf("root: no layers")
	case (root.Upper == "") != (root.Work == ""):
		return invalidf("root: upper and work directories belong together")
	}
	return nil
}

// CloneRoot returns a further mount of the same file system as root, which
// came from OpenRoot. The caller closes it.
func (r *Runtime) CloneRoot(root *os.File) (*os.File, error) {
	fd, err := r.cloneRoot(root)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "root"), nil
}

func (r *Runtime) cloneRoot(root *os.File) (int, error) {
	r.mu.Lock()
	h := r.holder
	r.mu.Unlock()
	if h != nil && h.has(root) {
		return h.clone(root)
	}
	return cloneTree(int(root.Fd()))
}

func cloneTree(fd int) (int, error) {
	clone, err := unix.OpenTree(fd, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH|unix.AT_RECURSIVE)
	if err != nil {
		return -1, fmt.Errorf("clone root: %w", err)
	}
	return clone, nil
}

// CloseRoot unmounts what OpenRoot made and closes root. Containers that run
// on clones of it keep theirs.
func (r *Runtime) CloseRoot(root *os.File) error {
	r.mu.Lock()
	h := r.holder
	r.mu.Unlock()
	if h != nil && h.has(root) {
		return h.closeRoot(root)
	}
	return root.Close()
}

// bindRoot clones a directory of the host.
func bindRoot(root Root) (int, error) {
	dir := root.Bind
	if dir == "" {
		dir = root.Layers[0]
	}
	if len(root.Options) > 0 && root.Bind != "" {
		return -1, invalidf("options %q for a directory", root.Options)
	}
	fd, err := unix.OpenTree(unix.AT_FDCWD, dir, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("clone %s: %w", dir, err)
	}
	attr := unix.MountAttr{Propagation: unix.MS_PRIVATE}
	if root.ReadOnly || root.Bind == "" {
		attr.Attr_set = unix.MOUNT_ATTR_RDONLY
	}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &attr); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("set flags of %s: %w", dir, err)
	}
	return fd, nil
}

// maxString is what fsconfig takes, without the final zero.
const maxString = 255

// overlayRoot makes a detached overlay mount, layer by layer (Linux 6.5).
func overlayRoot(root Root) (int, error) {
	fs, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("open overlay: %w", err)
	}
	defer unix.Close(fs)
	set := func(key, dir string) error {
		if len(dir) > maxString {
			fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
			if err != nil {
				return fmt.Errorf("%s %s: %w", key, dir, err)
			}
			defer unix.Close(fd)
			dir = fmt.Sprintf("/proc/self/fd/%d", fd)
		}
		if err := unix.FsconfigSetString(fs, key, dir); err != nil {
			return fmt.Errorf("%s %s: %w", key, dir, err)
		}
		return nil
	}
	for _, dir := range root.Layers {
		if err := set("lowerdir+", dir); err != nil {
			return -1, err
		}
	}
	if root.Upper != "" {
		if err := errors.Join(set("upperdir", root.Upper), set("workdir", root.Work)); err != nil {
			return -1, err
		}
	}
	for _, o := range root.Options {
		key, value, has := strings.Cut(o, "=")
		if has {
			err = unix.FsconfigSetString(fs, key, value)
		} else {
			err = unix.FsconfigSetFlag(fs, key)
		}
		if err != nil {
			return -1, fmt.Errorf("option %s: %w", o, err)
		}
	}
	if err := unix.FsconfigSetString(fs, "source", "overlay"); err != nil {
		return -1, err
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, fmt.Errorf("create overlay of %d layers: %w%s", len(root.Layers), err, kernelLog(fs))
	}
	attr := 0
	if root.ReadOnly || root.Upper == "" {
		attr = unix.MOUNT_ATTR_RDONLY
	}
	return unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, attr)
}

// kernelLog is what the kernel had to say about a file system context.
func kernelLog(fs int) string {
	buf := make([]byte, 1024)
	n, err := unix.Read(fs, buf)
	if err != nil || n < 3 {
		return ""
	}
	return " (" + strings.TrimSpace(string(buf[2:n])) + ")"
}

// mountIDs makes the user namespace whose mapping an idmapped mount takes.
func (r *Runtime) mountIDs(m *specs.Mount, l *specs.Linux, userNS *os.File) (*os.File, error) {
	uids, gids := m.UIDMappings, m.GIDMappings
	if len(uids) == 0 {
		uids, gids = l.UIDMappings, l.GIDMappings
	}
	if len(uids) == 0 && userNS != nil { // the container's, which is joined
		return os.Open("/proc/self/fd/" + strconv.Itoa(int(userNS.Fd())))
	}
	if len(uids) == 0 || len(gids) == 0 {
		return nil, invalidf("mount at %s: an idmapped mount needs mappings", m.Destination)
	}
	// A user namespace is born with a process; this one only waits.
	s, err := r.spawn(&birth{clone: unix.CLONE_NEWUSER, uidMap: uids, gidMap: gids})
	if err != nil {
		return nil, fmt.Errorf("mount at %s: %w", m.Destination, err)
	}
	f, err := os.Open(fmt.Sprintf("/proc/%d/ns/user", s.pid))
	r.drop(s)
	return f, err
}
