package cgroup

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Create makes the cgroup in every hierarchy. It is not an error if it exists
// already. On error what was made is removed.
func (h *Host) Create(path string) error {
	if err := Check(path); err != nil {
		return err
	}
	for i := range h.All {
		err := h.create(&h.All[i], path)
		if err == nil {
			continue
		}
		if h.All[i].Unified && !h.V2 {
			continue // hybrid: nothing depends on it
		}
		for j := range h.All[:i+1] {
			_ = unix.Rmdir(h.All[j].Dir(path))
		}
		return err
	}
	return nil
}

// CreateUnified makes the cgroup in the unified hierarchy, if there is one, for
// CLONE_INTO_CGROUP. On a hybrid host, where nothing depends on it, it is not an
// error if that fails.
func (h *Host) CreateUnified(path string) error {
	if err := Check(path); err != nil {
		return err
	}
	hi := h.Unified()
	if hi == nil {
		return nil
	}
	if err := h.create(hi, path); err != nil && h.V2 {
		return err
	}
	return nil
}

func (h *Host) create(hi *Hierarchy, path string) error {
	dir := hi.Dir(path)
	err := unix.Mkdir(dir, 0o755)
	if err == nil && !hi.Has("cpuset") && !h.V2 {
		return nil
	}
	if errors.Is(err, unix.ENOENT) {
		parent := filepath.Dir(path)
		if parent == "/" || parent == "." {
			return &os.PathError{Op: "mkdir", Path: dir, Err: err}
		}
		if err := h.create(hi, parent); err != nil {
			return err
		}
		err = unix.Mkdir(dir, 0o755)
	}
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return &os.PathError{Op: "mkdir", Path: dir, Err: err}
	}
	switch {
	case hi.Has("cpuset"):
		return inheritCpuset(hi.Mount, dir)
	case h.V2:
		return enableControllers(hi.Mount, filepath.Dir(dir))
	}
	return nil
}

// inheritCpuset gives a new v1 cpuset its parent's processors and memory
// nodes: without them no process can enter. Children of it copy by themselves.
// A parent that has none is another's, who is about to do the same for it.
func inheritCpuset(mount, dir string) error {
	for _, name := range []string{"cpuset.cpus", "cpuset.mems"} {
		own, err := readShort(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		if strings.TrimSpace(string(own)) != "" {
			continue
		}
		parent := filepath.Dir(dir)
		value, err := os.ReadFile(filepath.Join(parent, name))
		if err == nil && strings.TrimSpace(string(value)) == "" && parent != mount {
			if err := inheritCpuset(mount, parent); err != nil {
				return err
			}
			value, err = os.ReadFile(filepath.Join(parent, name))
		}
		if err != nil {
			return err
		}
		if err := write(dir, name, strings.TrimSpace(string(value))); err != nil {
			return err
		}
		_ = write(dir, "cgroup.clone_children", "1")
	}
	return nil
}

// enableControllers hands all controllers that parent has to its children. One
// that gives nothing yet may be another's, who is about to get them for it.
func enableControllers(mount, parent string) error {
	given, err := os.ReadFile(filepath.Join(parent, "cgroup.subtree_control"))
	if err != nil {
		return err
	}
	if parent != mount && len(bytes.TrimSpace(given)) == 0 {
		if err := enableControllers(mount, filepath.Dir(parent)); err != nil {
			return err
		}
	}
	have, err := os.ReadFile(filepath.Join(parent, "cgroup.controllers"))
	if err != nil {
		return err
	}
	on := map[string]bool{}
	for _, c := range strings.Fields(string(given)) {
		on[c] = true
	}
	var missing []string
	for _, c := range strings.Fields(string(have)) {
		if !on[c] {
			missing = append(missing, "+"+c)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	if write(parent, "cgroup.subtree_control", strings.Join(missing, " ")) == nil {
		return nil
	}
	// One that cannot be given (cpu with real-time processes) hides no other;
	// a limit that needs it will name its missing file.
	for _, c := range missing {
		_ = write(parent, "cgroup.subtree_control", c)
	}
	return nil
}

// OpenTasks opens the files by which a thread enters the v1 cgroups when it
// writes "0"; on v2, where it takes its whole process along, that of the one
// hierarchy. Moving oneself needs none of the kernel's global locks on v1; moving
// another process costs 5 ms when the lock is cold. What counts at the write is
// who opened (Linux 5.16 and the stable kernels of then). If each is not nil, it
// names a cgroup of its own for every hierarchy (see Below).
func (h *Host) OpenTasks(path string, each []string) (fds []int, err error) {
	for i := range h.All {
		hi := &h.All[i]
		if hi.Unified && !h.V2 {
			continue // hybrid: by the clone
		}
		if each != nil {
			path = each[i]
		}
		name := filepath.Join(hi.Dir(path), "tasks")
		if hi.Unified {
			name = filepath.Join(hi.Dir(path), "cgroup.procs")
		}
		fd, err := unix.Open(name, unix.O_WRONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			for _, fd := range fds {
				unix.Close(fd)
			}
			return nil, &os.PathError{Op: "open", Path: name, Err: err}
		}
		fds = append(fds, fd)
	}
	return fds, nil
}

// OpenUnified opens the cgroup's v2 directory for CLONE_INTO_CGROUP; -1 if
// there is none.
func (h *Host) OpenUnified(path string) (int, error) {
	hi := h.Unified()
	if hi == nil {
		return -1, nil
	}
	fd, err := unix.Open(hi.Dir(path), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		if !h.V2 && errors.Is(err, fs.ErrNotExist) {
			return -1, nil
		}
		return -1, &os.PathError{Op: "open", Path: hi.Dir(path), Err: err}
	}
	return fd, nil
}

// write sets one file of a cgroup in one system call.
func write(dir, name, value string) error {
	w := writer{dir: dir}
	defer w.close()
	return w.write(name, value)
}

// writer sets files of a cgroup, one system call for each value. A file stays
// open until another one is written.
type writer struct {
	dir, name string
	fd        int
}

func (w *writer) write(name, value string) error {
	if name != w.name {
		w.close()
		fd, err := unix.Open(filepath.Join(w.dir, name), unix.O_WRONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return &os.PathError{Op: "open", Path: filepath.Join(w.dir, name), Err: err}
		}
		w.name, w.fd = name, fd
	}
	for {
		n, err := unix.Pwrite(w.fd, []byte(value), 0)
		switch {
		case err == nil && n == len(value):
			return nil
		case err == nil:
			return fmt.Errorf("write %q to %s: %w", value, filepath.Join(w.dir, name), io.ErrShortWrite)
		case !errors.Is(err, unix.EINTR):
			return fmt.Errorf("write %q to %s: %w", value, filepath.Join(w.dir, name), err)
		}
	}
}

func (w *writer) close() {
	if w.name != "" {
		_ = unix.Close(w.fd)
		w.name = ""
	}
}
