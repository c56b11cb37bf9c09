package ocirun

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/ocirun/cgroup"
	"github.com/wherry-engine/wherry/ocirun/systemd"
)

// Options of a Runtime; the zero value works.
type Options struct {
	// Logger receives what is worth a developer's look; nil discards.
	Logger *slog.Logger
	// Program is the binary whose sealed copy becomes the first process of
	// every container; it must dispatch its argument "init" to initproc.Main.
	// Default /proc/self/exe.
	Program string
	// Single is for a process that makes one container or process at most and
	// ends: no init waits for the next exec, and the program is protected when
	// there is an init to be made, in the quickest way (see protect).
	Single bool
	// Creates, with Single, tells that there will be an init.
	Creates bool
}

// Runtime creates containers. It is safe for concurrent use.
type Runtime struct {
	log *slog.Logger
	// program opens what inits execute.
	program func() (*os.File, error)
	// reaper opens what stays as the first process of containers.
	reaper     func() (*os.File, error)
	protecting sync.WaitGroup // see protect
	null       *os.File
	cgroups    *cgroup.Host
	// held are the capabilities of this process: it can give no others.
	held uint64

	locks     cgroupLocks
	standby   standby
	noStandby bool

	mu     sync.Mutex
	holder *holder // for kernels that cannot clone detached mounts, made when needed
	// forceHolder is for tests on newer kernels.
	forceHolder bool
}

// New makes the sealed copy of the program, unless opts.Single is set.
func New(opts Options) (*Runtime, error) {
	r := &Runtime{log: opts.Logger, noStandby: opts.Single}
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	name := opts.Program
	if name == "" {
		name = "/proc/self/exe"
	}
	var err error
	if r.cgroups, err = cgroup.Detect(); err != nil {
		return nil, fmt.Errorf("detect control groups: %w", err)
	}
	if r.held, err = heldCaps(); err != nil {
		return nil, err
	}
	if r.null, err = os.OpenFile("/dev/null", os.O_RDWR, 0); err != nil {
		return nil, err
	}
	if opts.Single {
		r.program = sync.OnceValues(func() (*os.File, error) { return protect(name, &r.protecting) })
		if opts.Creates {
			go func() { _, _ = r.program() }() // whoever needs it learns of errors
		}
		r.reaper = r.program
		return r, nil
	}
	sealed := &sealedProgram{name: name}
	r.program = sealed.open
	r.reaper = r.program
	if view := r.lasting(name); view != nil {
		r.reaper = func() (*os.File, error) { return view, nil }
	}
	if _, err = r.program(); err == nil {
		err = r.harmlessNull()
	}
	if err != nil {
		r.null.Close()
		return nil, err
	}
	return r, nil
}

// harmlessNull opens the null device once more, on a read-only mount: a process
// that is given it cannot change its mode, even where a container has no null
// device of its own.
func (r *Runtime) harmlessNull() error {
	mount, err := unix.OpenTree(int(r.null.Fd()), "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH)
	if errors.Is(err, unix.EPERM) {
		return nil // there will be no containers, either
	}
	if err != nil {
		return fmt.Errorf("clone /dev/null: %w", err)
	}
	defer unix.Close(mount)
	if err := unix.MountSetattr(mount, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}); err != nil {
		return fmt.Errorf("make the mount of /dev/null read-only: %w", err)
	}
	null, err := os.OpenFile("/proc/self/fd/"+strconv.Itoa(mount), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	r.null.Close()
	r.null = null
	return nil
}

// Close releases what New made. Containers go on running.
func (r *Runtime) Close() error {
	r.standby.close()
	r.mu.Lock()
	h := r.holder
	r.holder = nil
	r.mu.Unlock()
	err := errors.Join(r.null.Close(), h.close())
	if r.noStandby {
		r.protecting.Wait()
		return err // the process ends, and what it opened for an init with it
	}
	r.protecting.Wait()
	program, perr := r.program()
	reaper, rerr := r.reaper()
	if perr != nil || rerr != nil {
		return err
	}
	if reaper != program {
		err = errors.Join(err, reaper.Close())
	}
	return errors.Join(err, program.Close())
}

// heldCaps are the capabilities this process may hand on: its permitted set
// within its bounding set.
func heldCaps() (uint64, error) {
	var d [2]unix.CapUserData
	h := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	if err := unix.Capget(&h, &d[0]); err != nil {
		return 0, fmt.Errorf("get capabilities: %w", err)
	}
	held := uint64(d[1].Permitted)<<32 | uint64(d[0].Permitted)
	for c := range 64 {
		v, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(c), 0, 0, 0)
		if err != nil {
			break
		}
		if v == 0 {
			held &^= 1 << c
		}
	}
	return held, nil
}

// CgroupOf names a container's cgroup from its cgroupsPath, which is a path, or
// SLICE:PREFIX:NAME for the systemd driver. InvalidArgument.
func CgroupOf(id, cgroupsPath string, byScope bool) (string, error) {
	if byScope {
		unit, err := systemd.Parse(cgroupsPath, id)
		if err != nil {
			return "", err
		}
		return unit.Cgroup()
	}
	name := path.Clean("/" + cmp.Or(cgroupsPath, id))
	return name, cgroup.Check(name)
}
