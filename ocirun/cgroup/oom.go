package cgroup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// WatchOOM calls f whenever the kernel kills a process of the cgroup for lack
// of memory, until ctx ends or the cgroup is removed. It calls ready first: from
// then on nothing is missed. NotFound, and NotImplemented without a memory cgroup.
func (h *Host) WatchOOM(ctx context.Context, path string, ready, f func()) error {
	if !h.V2 && h.V1("memory") == nil {
		return fmt.Errorf("the memory cgroup is not mounted: %w", errdefs.ErrNotImplemented)
	}
	if _, err := h.OOMKills(path); err != nil {
		return fmt.Errorf("cgroup %s: %w: %w", path, err, errdefs.ErrNotFound)
	}
	fd, err := h.oomEvents(path)
	if err != nil {
		return err
	}
	last, err := h.OOMKills(path) // what comes after it is an event, too
	if err != nil {
		return errors.Join(fmt.Errorf("cgroup %s: %w: %w", path, err, errdefs.ErrNotFound), unix.Close(fd))
	}
	events := os.NewFile(uintptr(fd), "oom")
	defer events.Close()
	stop := context.AfterFunc(ctx, func() { _ = events.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	ready()
	buf := make([]byte, 4096)
	for {
		if _, err := events.Read(buf); err != nil {
			return ctx.Err()
		}
		now, err := h.OOMKills(path)
		if err != nil {
			return nil //nolint:nilerr // removed
		}
		if !h.V2 {
			f() // told before the kernel has killed anybody
			continue
		}
		for ; last < now; last++ {
			f()
		}
	}
}

// oomEvents is a descriptor that becomes readable when there may be news: an
// eventfd on v1, on v2 changes of the file of events.
func (h *Host) oomEvents(path string) (int, error) {
	if h.V2 {
		fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
		if err != nil {
			return -1, err
		}
		_, err = unix.InotifyAddWatch(fd, filepath.Join(h.Unified().Dir(path), "memory.events"), unix.IN_MODIFY|unix.IN_DELETE_SELF)
		if err != nil {
			unix.Close(fd)
			return -1, fmt.Errorf("watch memory.events: %w", err)
		}
		return fd, nil
	}
	dir := h.V1("memory").Dir(path)
	control, err := os.Open(filepath.Join(dir, "memory.oom_control"))
	if err != nil {
		return -1, err
	}
	defer control.Close()
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return -1, err
	}
	err = write(dir, "cgroup.event_control", strconv.Itoa(fd)+" "+strconv.Itoa(int(control.Fd())))
	if err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}
