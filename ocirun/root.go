package ocirun

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/internal/fsid"
)

// Root says how a root file system is made; it converts from task.Root.
type Root struct {
	Layers   []string // read-only lower directories, topmost first
	Upper    string   // with Work: the writable pair
	Work     string
	Bind     string   // a directory instead of an overlay
	Options  []string // further file-system options, such as "metacopy=on"
	ReadOnly bool
	// UIDMappings and GIDMappings, both or none, show the files as other users':
	// those of ContainerID on the disk as HostID's, for containers in a user
	// namespace with the same mappings. Upper and Work need one parent directory.
	UIDMappings, GIDMappings []specs.LinuxIDMapping
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
	l := &rootDirs{root: root}
	defer l.close()
	if len(root.UIDMappings) > 0 {
		if l.userNS, err = r.idNamespace(root.UIDMappings, root.GIDMappings); err != nil {
			return nil, rootError(err)
		}
	}
	if h != nil {
		return h.open(l)
	}
	var fd int
	if root.bind() {
		fd, err = l.bind()
	} else {
		fd, err = l.overlay()
	}
	if err != nil {
		return nil, rootError(err)
	}
	return os.NewFile(uintptr(fd), "root"), nil
}

// bind tells whether the root is a directory as it is.
func (root *Root) bind() bool {
	return root.Bind != "" || len(root.Layers) == 1 && root.Upper == ""
}

// rootDirs are the directories of a root that is being mounted.
type rootDirs struct {
	root   Root
	userNS *os.File // with the root's mappings, or nil
	// attach puts a mount where the kernel needs it to be; nil if it need not be anywhere.
	attach func(fd int) error
	fds    []int // until close
}

func (l *rootDirs) close() {
	closeFDs(l.fds)
	if l.userNS != nil {
		l.userNS.Close()
	}
}

// open opens a directory, mapped if the root is.
func (l *rootDirs) open(dir string) (int, error) {
	if l.userNS == nil {
		fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return -1, &os.PathError{Op: "open", Path: dir, Err: err}
		}
		l.fds = append(l.fds, fd)
		return fd, nil
	}
	fd, err := unix.OpenTree(unix.AT_FDCWD, dir, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("clone %s: %w", dir, err)
	}
	l.fds = append(l.fds, fd)
	if err := mapIDs(fd, false, l.userNS); err != nil {
		return -1, noIDMaps(dir, err)
	}
	if l.attach != nil {
		err = l.attach(fd)
	}
	return fd, err
}

// asRoot calls mount with the file-system ids that root of the mappings has. The
// overlay keeps them for what it does by itself: user 0 has no number there, so that
// it could make nothing in a mapped upper directory and would be read-only.
func (l *rootDirs) asRoot(mount func() error) error {
	if l.userNS == nil {
		return mount()
	}
	uid, _ := rootOf(l.root.UIDMappings)
	gid, _ := rootOf(l.root.GIDMappings)
	err := fsid.As(uid, gid, mount)
	if errors.Is(err, unix.EINVAL) {
		err = fmt.Errorf("%w (layers with mapped ids need Linux 5.19)", err)
	}
	return err
}

// noIDMaps explains why ids of a mount cannot be mapped.
func noIDMaps(dir string, err error) error {
	switch {
	case errors.Is(err, unix.EINVAL):
		return lackf("map ids of %s: its file system does not support idmapped mounts", dir)
	case errors.Is(err, unix.ENOSYS):
		return lackf("map ids of %s: idmapped mounts need Linux 5.12", dir)
	}
	return fmt.Errorf("map ids of %s: %w", dir, err)
}

// name is a path by which the kernel finds a directory, mapped if the root is.
func (l *rootDirs) name(dir string) (string, error) {
	fd, err := l.open(dir)
	return fmt.Sprintf("/proc/self/fd/%d", fd), err
}

// short is dir itself where fsconfig takes it, or else its name.
func (l *rootDirs) short(dir string) (string, error) {
	if l.userNS == nil && len(dir) <= maxString {
		return dir, nil
	}
	return l.name(dir)
}

// writable returns the names of the upper and the work directory, which are to
// be on one mount.
func (l *rootDirs) writable(name func(dir string) (string, error)) (upper, work string, err error) {
	if l.userNS == nil {
		if upper, err = name(l.root.Upper); err == nil {
			work, err = name(l.root.Work)
		}
		return upper, work, err
	}
	parent, err := l.name(filepath.Dir(l.root.Upper))
	return parent + "/" + filepath.Base(l.root.Upper), parent + "/" + filepath.Base(l.root.Work), err
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
	case (len(root.UIDMappings) == 0) != (len(root.GIDMappings) == 0):
		return invalidf("root: mappings of users and groups belong together")
	case len(root.UIDMappings) > 0 && filepath.Dir(root.Upper) != filepath.Dir(root.Work):
		return invalidf("root: mapped upper and work directories need one parent")
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

// bind clones a directory of the host.
func (l *rootDirs) bind() (int, error) {
	root := &l.root
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
	if l.userNS != nil {
		attr.Attr_set |= unix.MOUNT_ATTR_IDMAP
		attr.Userns_fd = uint64(l.userNS.Fd())
	}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &attr); err != nil {
		unix.Close(fd)
		if l.userNS != nil {
			return -1, noIDMaps(dir, err)
		}
		return -1, fmt.Errorf("set flags of %s: %w", dir, err)
	}
	return fd, nil
}

// maxString is what fsconfig takes, without the final zero.
const maxString = 255

// overlay makes a detached overlay mount, layer by layer (Linux 6.5).
func (l *rootDirs) overlay() (int, error) {
	root := &l.root
	fs, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("open overlay: %w", err)
	}
	defer unix.Close(fs)
	set := func(key, dir string) error {
		if err := unix.FsconfigSetString(fs, key, dir); err != nil {
			return fmt.Errorf("%s %s: %w", key, dir, err)
		}
		return nil
	}
	for _, dir := range root.Layers {
		if dir, err = l.short(dir); err != nil {
			return -1, err
		}
		if err := set("lowerdir+", dir); err != nil {
			return -1, err
		}
	}
	if root.Upper != "" {
		upper, work, err := l.writable(l.short)
		if err != nil {
			return -1, err
		}
		if err := errors.Join(set("upperdir", upper), set("workdir", work)); err != nil {
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
	if err := l.asRoot(func() error { return unix.FsconfigCreate(fs) }); err != nil {
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
	if len(uids) == 0 && userNS != nil { // the container's, which is joined
		return os.Open("/proc/self/fd/" + strconv.Itoa(int(userNS.Fd())))
	}
	if len(uids) == 0 {
		uids, gids = l.UIDMappings, l.GIDMappings
	}
	if len(uids) == 0 || len(gids) == 0 {
		return nil, invalidf("mount at %s: an idmapped mount needs mappings", m.Destination)
	}
	f, err := r.idNamespace(uids, gids)
	if err != nil {
		return nil, fmt.Errorf("mount at %s: %w", m.Destination, err)
	}
	return f, nil
}

// idNamespace makes a user namespace for its mappings alone.
func (r *Runtime) idNamespace(uids, gids []specs.LinuxIDMapping) (*os.File, error) {
	// It is born with a process; this one only waits.
	s, err := r.spawn(&birth{clone: unix.CLONE_NEWUSER, uidMap: uids, gidMap: gids})
	if err != nil {
		return nil, err
	}
	f, err := os.Open(fmt.Sprintf("/proc/%d/ns/user", s.pid))
	r.drop(s)
	return f, err
}
