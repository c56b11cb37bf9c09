package ocirun

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// otherRoot takes a source such as /proc/123/root/dev/shm apart: a mount of
// another container, shared with this one. It cannot be cloned from outside of
// the mount namespace it is in.
func otherRoot(source string) (pid int, inside string, ok bool) {
	rest, ok := strings.CutPrefix(source, "/proc/")
	if !ok {
		return 0, "", false
	}
	number, rest, ok := strings.Cut(rest, "/")
	if !ok {
		return 0, "", false
	}
	pid, err := strconv.Atoi(number)
	inside, ok = strings.CutPrefix(rest, "root/")
	return pid, "/" + inside, ok && err == nil && pid > 0
}

// openOther clones a mount in the mount namespace of another process, on a
// thread that goes there and does not come back.
func openOther(pid int, inside string, recursive bool) (*os.File, error) {
	type result struct {
		fd  int
		err error
	}
	ch := make(chan result, 1)
	go disposable(func() {
		fd, err := openThere(pid, inside, recursive)
		ch <- result{fd, err}
	})
	res := <-ch
	if res.err != nil {
		return nil, res.err
	}
	return os.NewFile(uintptr(res.fd), inside), nil
}

func openThere(pid int, inside string, recursive bool) (int, error) {
	ns, err := unix.Open(fmt.Sprintf("/proc/%d/ns/mnt", pid), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(ns)
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return -1, err
	}
	if err := unix.Setns(ns, unix.CLONE_NEWNS); err != nil {
		return -1, fmt.Errorf("enter the mount namespace: %w", err)
	}
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_MAGICLINKS}
	place, err := unix.Openat2(unix.AT_FDCWD, inside, &how)
	if err != nil {
		return -1, err
	}
	defer unix.Close(place)
	flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC | unix.AT_EMPTY_PATH)
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	return unix.OpenTree(place, "", flags)
}

// openPart clones what is at a path below a directory of the host. The
// directory may be shared with containers: the path is resolved as if the
// directory were the root, by descriptor, so that no link leads out of it.
func openPart(dir, sub string, recursive bool) (*os.File, error) {
	place, err := resolvePart(dir, sub)
	if err != nil {
		return nil, err
	}
	defer unix.Close(place)
	flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC | unix.AT_EMPTY_PATH)
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	fd, err := unix.OpenTree(place, "", flags)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), sub), nil
}

func resolvePart(dir, sub string) (int, error) {
	top, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(top)
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	for range openTries {
		var place int
		place, err = unix.Openat2(top, sub, &how)
		if err == nil {
			return place, nil
		}
		if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) { // a rename raced with a ".."
			break
		}
	}
	return -1, err
}

// openTries bounds how often a path is resolved anew while it changes.
const openTries = 64
