package ocirun

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// holder keeps root mounts attached in a mount namespace that nobody else
// sees: kernels before 6.15 clone only what is attached, and those before 6.5
// make an overlay of many layers by mount(2) alone, which attaches it. One
// thread lives in that namespace and does what is asked.
type holder struct {
	work chan func()
	done chan struct{}

	mu    sync.Mutex
	roots map[*os.File]string // name of each root's mount point
	next  int

	dir int // the tmpfs with the mount points; used on the thread only
}

// canCloneDetached is probed once per process.
var canCloneDetached = sync.OnceValues(func() (bool, error) {
	fs, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return false, fmt.Errorf("open tmpfs: %w", err)
	}
	defer unix.Close(fs)
	if err := unix.FsconfigCreate(fs); err != nil {
		return false, fmt.Errorf("create tmpfs: %w", err)
	}
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return false, fmt.Errorf("mount tmpfs: %w", err)
	}
	defer unix.Close(fd)
	clone, err := cloneTree(fd)
	if err != nil {
		return false, nil //nolint:nilerr // that is the answer
	}
	unix.Close(clone)
	return true, nil
})

// needHolder returns the holder on kernels that need one, else nil.
func (r *Runtime) needHolder() (*holder, error) {
	if !r.forceHolder {
		if ok, err := canCloneDetached(); ok || err != nil {
			return nil, err
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.holder != nil {
		return r.holder, nil
	}
	h := &holder{work: make(chan func()), done: make(chan struct{}), roots: map[*os.File]string{}}
	ready := make(chan error, 1)
	go disposable(func() { h.live(ready) })
	if err := <-ready; err != nil {
		return nil, fmt.Errorf("private mount namespace: %w", err)
	}
	r.holder = h
	return h, nil
}

// live is the thread.
func (h *holder) live(ready chan<- error) {
	defer close(h.done)
	err := h.enter()
	ready <- err
	if err != nil {
		return
	}
	for f := range h.work {
		f()
	}
	unix.Close(h.dir)
}

func (h *holder) enter() error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return err
	}
	// What the host unmounts must go here, too.
	if err := unix.Mount("", "/", "", unix.MS_SLAVE|unix.MS_REC, ""); err != nil {
		return err
	}
	fs, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return err
	}
	defer unix.Close(fs)
	if err := unix.FsconfigCreate(fs); err != nil {
		return err
	}
	if h.dir, err = unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0); err != nil {
		return err
	}
	// On top of "/", where no path leads, only the descriptor.
	return unix.MoveMount(h.dir, "", unix.AT_FDCWD, "/", unix.MOVE_MOUNT_F_EMPTY_PATH)
}

// do runs f on the thread.
func (h *holder) do(f func() error) error {
	ch := make(chan error, 1)
	select {
	case h.work <- func() { ch <- f() }:
		return <-ch
	case <-h.done:
		return errors.New("the runtime is closed")
	}
}

func (h *holder) close() error {
	if h == nil {
		return nil
	}
	close(h.work)
	<-h.done
	return nil
}

func (h *holder) has(root *os.File) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	_, ok := h.roots[root]
	return ok
}

func (h *holder) open(l *rootDirs) (*os.File, error) {
	var fd int
	var name string
	err := h.do(func() error {
		h.next++
		name = strconv.Itoa(h.next)
		var err error
		fd, err = h.mount(name, l)
		return err
	})
	if err != nil {
		return nil, rootError(err)
	}
	f := os.NewFile(uintptr(fd), "root")
	h.mu.Lock()
	defer h.mu.Unlock()
	h.roots[f] = name
	return f, nil
}

// mount attaches the root at name and opens it.
func (h *holder) mount(name string, l *rootDirs) (int, error) {
	if err := unix.Mkdirat(h.dir, name, 0o755); err != nil {
		return -1, err
	}
	err := h.attach(name, l)
	if err != nil {
		return -1, errors.Join(err, unix.Unlinkat(h.dir, name, unix.AT_REMOVEDIR))
	}
	return unix.Openat(h.dir, name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
}

func (h *holder) attach(name string, l *rootDirs) error {
	if l.root.bind() {
		fd, err := l.bind()
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return unix.MoveMount(fd, "", h.dir, name, unix.MOVE_MOUNT_F_EMPTY_PATH)
	}
	return h.legacyOverlay(name, l)
}

// legacyOverlay uses mount(2). Directories are named by descriptors, which
// keeps the options within the page that the kernel takes.
func (h *holder) legacyOverlay(name string, l *rootDirs) error {
	root := &l.root
	var attached []string
	l.attach = func(fd int) error { // until the overlay has clones of them
		at := name + "-" + strconv.Itoa(len(attached))
		if err := unix.Mkdirat(h.dir, at, 0o700); err != nil {
			return err
		}
		attached = append(attached, at)
		return unix.MoveMount(fd, "", h.dir, at, unix.MOVE_MOUNT_F_EMPTY_PATH)
	}
	defer func() {
		for _, at := range attached {
			_ = unix.Unmount(h.path(at), unix.MNT_DETACH)
			_ = unix.Unlinkat(h.dir, at, unix.AT_REMOVEDIR)
		}
	}()
	lower := make([]string, len(root.Layers))
	for i, dir := range root.Layers {
		var err error
		if lower[i], err = l.name(dir); err != nil {
			return err
		}
	}
	options := append([]string{"lowerdir=" + strings.Join(lower, ":")}, root.Options...)
	if root.Upper != "" {
		upper, work, err := l.writable(l.name)
		if err != nil {
			return err
		}
		options = append(options, "upperdir="+upper, "workdir="+work)
	}
	data := strings.Join(options, ",")
	if len(data) >= os.Getpagesize() {
		return fmt.Errorf("%d layers are too many for this kernel", len(root.Layers))
	}
	flags := uintptr(0)
	if root.ReadOnly || root.Upper == "" {
		flags = unix.MS_RDONLY
	}
	err := l.asRoot(func() error { return unix.Mount("overlay", h.path(name), "overlay", flags, data) })
	if err != nil {
		return fmt.Errorf("mount overlay of %d layers: %w", len(root.Layers), err)
	}
	return nil
}

// path of a mount point, for the thread.
func (h *holder) path(name string) string { return "/proc/self/fd/" + strconv.Itoa(h.dir) + "/" + name }

func (h *holder) clone(root *os.File) (fd int, err error) {
	err = h.do(func() error {
		fd, err = cloneTree(int(root.Fd()))
		return err
	})
	return fd, err
}

func (h *holder) closeRoot(root *os.File) error {
	h.mu.Lock()
	name := h.roots[root]
	delete(h.roots, root)
	h.mu.Unlock()
	root.Close()
	return h.do(func() error {
		if err := unix.Unmount(h.path(name), unix.MNT_DETACH); err != nil {
			return fmt.Errorf("unmount root: %w", err)
		}
		return unix.Unlinkat(h.dir, name, unix.AT_REMOVEDIR)
	})
}
