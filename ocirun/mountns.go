package ocirun

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// A container without a mount namespace of its own, be it that the
// specification joins one by its path or names none, has its mounts in a table
// that others use and that outlives it. Its root is entered by chroot(2), and
// deleting it unmounts what it mounted there.

// foreignMounts tells whether the container's mount namespace is not its own,
// and the path of that namespace, "" for the runtime's.
func foreignMounts(l *specs.Linux) (path string, foreign bool) {
	i := slices.IndexFunc(l.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.MountNamespace })
	if i < 0 {
		return "", true
	}
	path = l.Namespaces[i].Path
	return path, path != ""
}

// rootPath of the specification, absolute and without symbolic links, as the
// kernel lists mounts below it.
func rootPath(spec *specs.Spec, bundle string) (string, error) {
	name := spec.Root.Path
	if !filepath.IsAbs(name) {
		name = filepath.Join(bundle, name)
	}
	return filepath.EvalSymlinks(name)
}

// ForeignMounts lists the mounts (by id) at and below the root of a container
// that is about to be made in a mount namespace not its own; nil for others.
func ForeignMounts(spec *specs.Spec, bundle string) ([]int, error) {
	ns, foreign := foreignMounts(spec.Linux)
	if !foreign {
		return nil, nil
	}
	root, err := rootPath(spec, bundle)
	if err != nil {
		return nil, err
	}
	ids := []int{}
	err = inMountNS(ns, func() error {
		mounts, err := mountsBelow(root)
		for _, m := range mounts {
			ids = append(ids, m.id)
		}
		return err
	})
	return ids, err
}

// UnmountForeign unmounts what a container without a mount namespace of its own
// mounted: all at and below its root but those to keep, which ForeignMounts
// listed before. It is not an error if the namespace is gone.
func UnmountForeign(spec *specs.Spec, bundle string, keep []int) error {
	ns, foreign := foreignMounts(spec.Linux)
	if !foreign {
		return nil
	}
	root, err := rootPath(spec, bundle)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	err = inMountNS(ns, func() error {
		mounts, err := mountsBelow(root)
		if err != nil {
			return err
		}
		slices.Reverse(mounts) // the latest first
		for _, m := range mounts {
			if slices.Contains(keep, m.id) {
				continue
			}
			if err := unmountAt(m.point); err != nil {
				return fmt.Errorf("unmount %s: %w", m.point, err)
			}
		}
		return nil
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// unmountAt follows no link: the container, whose processes may be alive, can put
// some where there were directories.
func unmountAt(point string) error {
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_SYMLINKS}
	fd, err := unix.Openat2(unix.AT_FDCWD, point, &how)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENOTDIR) {
		return nil // not where it was
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	err = unix.Unmount(fmt.Sprintf("/proc/self/fd/%d", fd), unix.MNT_DETACH)
	if errors.Is(err, unix.EINVAL) {
		return nil // went with the one it was on
	}
	return err
}

// foreignRoot opens the root directory of a container that is not that of its
// mount namespace; nil for others.
func foreignRoot(req *ExecRequest) (*os.File, error) {
	if _, foreign := foreignMounts(req.Spec.Linux); !foreign {
		return nil, nil
	}
	fd, err := unix.Open(fmt.Sprintf("/proc/%d/root", req.Pid), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open the container's root: %w", err)
	}
	root := os.NewFile(uintptr(fd), "root")
	if exited(req.PidFD) { // the number may be another's
		root.Close()
		return nil, invalidf("the container is not running")
	}
	return root, nil
}

// inMountNS runs f in the mount namespace at path, or in this one if it is "".
func inMountNS(path string, f func() error) error {
	if path == "" {
		return f()
	}
	ns, err := os.Open(path)
	if err != nil {
		return err
	}
	defer ns.Close()
	ch := make(chan error, 1)
	go disposable(func() {
		err := unix.Unshare(unix.CLONE_FS)
		if err == nil {
			err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNS)
		}
		if err != nil {
			ch <- fmt.Errorf("enter the mount namespace %s: %w", path, err)
			return
		}
		ch <- f()
	})
	return <-ch
}

type mountAt struct {
	id    int
	point string
}

// mountsBelow reads the calling thread's mount table, in its order.
func mountsBelow(root string) ([]mountAt, error) {
	table, err := os.ReadFile("/proc/thread-self/mountinfo")
	if err != nil {
		return nil, err
	}
	unescape := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	var out []mountAt
	for line := range bytes.Lines(table) {
		f := strings.Fields(string(line))
		if len(f) < 5 {
			continue
		}
		point := unescape.Replace(f[4])
		if point != root && !strings.HasPrefix(point, strings.TrimSuffix(root, "/")+"/") {
			continue
		}
		id, err := strconv.Atoi(f[0])
		if err != nil {
			return nil, fmt.Errorf("mount table: %w", err)
		}
		out = append(out, mountAt{id, point})
	}
	return out, nil
}
