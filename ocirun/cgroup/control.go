package cgroup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// leader is the hierarchy in which processes are looked for.
func (h *Host) leader() *Hierarchy {
	if h.V2 {
		return h.Unified()
	}
	for _, c := range []string{"devices", "freezer", "memory", "pids"} {
		if hi := h.V1(c); hi != nil {
			return hi
		}
	}
	return &h.All[0]
}

// Exists tells whether the cgroup is there.
func (h *Host) Exists(path string) bool {
	_, err := os.Stat(h.leader().Dir(path))
	return err == nil
}

// Pids lists the processes of the cgroup and all below. NotFound.
func (h *Host) Pids(path string) ([]int, error) {
	root := h.leader().Dir(path)
	var pids []int
	err := filepath.WalkDir(root, func(dir string, d fs.DirEntry, err error) error {
		if err != nil {
			if dir != root && errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			return err
		}
		if !d.IsDir() {
			return nil
		}
		b, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		if err != nil && (dir == root || !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENODEV)) {
			return err
		}
		for _, f := range strings.Fields(string(b)) {
			if pid, err := strconv.Atoi(f); err == nil && pid > 0 {
				pids = append(pids, pid)
			}
		}
		return nil
	})
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		return nil, fmt.Errorf("cgroup %s: %w", path, errdefs.ErrNotFound)
	}
	return pids, err
}

// Kill signals every process of the cgroup.
func (h *Host) Kill(path string, sig syscall.Signal) error {
	if sig == unix.SIGKILL {
		if hi := h.Unified(); hi != nil && h.V2 {
			if err := write(hi.Dir(path), "cgroup.kill", "1"); err == nil || !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
		// Frozen, nothing can fork between being listed and being killed.
		if h.freeze(path, true) == nil {
			defer func() { _ = h.freeze(path, false) }()
		}
		defer h.thawBelow(path)
	}
	pids, err := h.Pids(path)
	if err != nil {
		return err
	}
	for _, pid := range pids {
		if err := unix.Kill(pid, sig); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("signal process %d: %w", pid, err)
		}
	}
	return nil
}

// KillFrozen kills a container whose processes froze each other in v1 groups of
// their own, where SIGKILL waits for the thaw. It does nothing, cheaply, if there
// are no groups below the container's; on v2 the frozen die like others.
func (h *Host) KillFrozen(path string) error {
	hi := h.V1("freezer")
	if hi == nil {
		return nil
	}
	var st unix.Stat_t
	// A directory has a link for each directory in it.
	if err := unix.Stat(hi.Dir(path), &st); err != nil || st.Nlink <= 2 {
		return nil //nolint:nilerr // removed already
	}
	err := h.Kill(path, unix.SIGKILL)
	if errdefs.IsNotFound(err) {
		return nil
	}
	return err
}

// thawBelow lets go on what was frozen in v1 groups below path.
func (h *Host) thawBelow(path string) {
	hi := h.V1("freezer")
	if hi == nil {
		return
	}
	top := hi.Dir(path)
	_ = filepath.WalkDir(top, func(dir string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && dir != top {
			_ = write(dir, "freezer.state", "THAWED") // gone, or not ours to say
		}
		return nil
	})
}

func (h *Host) freeze(path string, frozen bool) error {
	if h.V2 {
		v := "0"
		if frozen {
			v = "1"
		}
		return write(h.Unified().Dir(path), "cgroup.freeze", v)
	}
	hi := h.V1("freezer")
	if hi == nil {
		return fmt.Errorf("the freezer cgroup is not mounted: %w", errdefs.ErrNotImplemented)
	}
	v := "THAWED"
	if frozen {
		v = "FROZEN"
	}
	return write(hi.Dir(path), "freezer.state", v)
}

// Frozen tells whether the cgroup's processes are all stopped by Freeze.
func (h *Host) Frozen(path string) (bool, error) {
	if h.V2 {
		b, err := readShort(filepath.Join(h.Unified().Dir(path), "cgroup.events"))
		return strings.Contains(string(b), "frozen 1"), err
	}
	hi := h.V1("freezer")
	if hi == nil {
		return false, nil
	}
	b, err := readShort(filepath.Join(hi.Dir(path), "freezer.state"))
	return strings.TrimSpace(string(b)) == "FROZEN", err
}

// readShort reads a file of a few bytes. It is on the way of every exec, and
// os.ReadFile would offer the file to Go's poller.
func readShort(name string) ([]byte, error) {
	fd, err := unix.Open(name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	defer unix.Close(fd)
	b := make([]byte, 128)
	n, err := unix.Read(fd, b)
	if err != nil {
		return nil, &os.PathError{Op: "read", Path: name, Err: err}
	}
	return b[:n], nil
}

// Freeze stops every process and waits until all are stopped; on error they run.
func (h *Host) Freeze(ctx context.Context, path string) error {
	err := h.retry(ctx, func(round int) (bool, error) {
		// v1 may miss a process that forks: asking again catches it, and a
		// short thaw lets those go on that block each other.
		if !h.V2 && round > 0 && round%25 == 0 {
			_ = h.freeze(path, false)
		}
		if round == 0 || !h.V2 {
			if err := h.freeze(path, true); err != nil {
				return false, err
			}
		}
		return h.Frozen(path)
	})
	if err != nil {
		return errors.Join(fmt.Errorf("freeze: %w", err), h.freeze(path, false))
	}
	return nil
}

// Thaw undoes Freeze.
func (h *Host) Thaw(path string) error { return h.freeze(path, false) }

// OOMKills counts processes killed for lack of memory.
func (h *Host) OOMKills(path string) (uint64, error) {
	file := ""
	if h.V2 {
		file = filepath.Join(h.Unified().Dir(path), "memory.events")
	} else if hi := h.V1("memory"); hi != nil {
		file = filepath.Join(hi.Dir(path), "memory.oom_control")
	} else {
		return 0, nil
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if n, ok := strings.CutPrefix(line, "oom_kill "); ok {
			return strconv.ParseUint(strings.TrimSpace(n), 10, 64)
		}
	}
	return 0, nil
}

// Delete removes the cgroup and all below from every hierarchy. It waits for
// processes that are about to be gone. Not an error if there is none.
func (h *Host) Delete(ctx context.Context, path string) error {
	if err := Check(path); err != nil {
		return err
	}
	var errs []error
	for i := range h.All {
		dir := h.All[i].Dir(path)
		err := h.retry(ctx, func(int) (bool, error) {
			err := removeTree(dir)
			if errors.Is(err, unix.EBUSY) && len(errs) == 0 { // waiting once is enough
				return false, nil
			}
			return true, err
		})
		if err != nil {
			errs = append(errs, fmt.Errorf("remove cgroup %s: %w", dir, err))
		}
	}
	return errors.Join(errs...)
}

func removeTree(dir string) error {
	err := unix.Rmdir(dir)
	if err == nil || errors.Is(err, unix.ENOENT) {
		return nil
	}
	entries, rerr := os.ReadDir(dir)
	if rerr != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeTree(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	if err = unix.Rmdir(dir); errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}

// retry calls f until it is done, for about two seconds: the kernel tells
// nobody when a v1 cgroup becomes empty or frozen.
func (h *Host) retry(ctx context.Context, f func(round int) (done bool, err error)) error {
	wait := 100 * time.Microsecond
	for round := 0; ; round++ {
		done, err := f(round)
		if done || err != nil {
			return err
		}
		if round > 200 {
			return fmt.Errorf("still busy: %w", errdefs.ErrUnavailable)
		}
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return ctx.Err()
		}
		wait = min(2*wait, 10*time.Millisecond)
	}
}
