package ocirun

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path"
	"sync"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/ocirun/cgroup"
)

// Options of a Runtime; the zero value works.
type Options struct {
	// Logger receives what is worth a developer's look; nil discards.
	Logger *slog.Logger
	// Program is the binary whose sealed copy becomes the first process of
	// every container; it must dispatch its argument "init" to initproc.Main.
	// Default /proc/self/exe.
	Program string
	// NoStandby keeps no init waiting for the next exec; for a process that
	// makes one and ends.
	NoStandby bool
}

// Runtime creates containers. It is safe for concurrent use.
type Runtime struct {
	log     *slog.Logger
	program *os.File // the sealed copy
	null    *os.File
	cgroups *cgroup.Host
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

// New makes the sealed copy of the program.
func New(opts Options) (*Runtime, error) {
	r := &Runtime{log: opts.Logger, noStandby: opts.NoStandby}
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
	if r.program, err = seal(name); err != nil {
		r.null.Close()
		return nil, fmt.Errorf("seal %s: %w", name, err)
	}
	return r, nil
}

// Close releases what New made. Containers go on running.
func (r *Runtime) Close() error {
	r.standby.close()
	r.mu.Lock()
	h := r.holder
	r.holder = nil
	r.mu.Unlock()
	return errors.Join(r.program.Close(), r.null.Close(), h.close())
}

// seal copies a binary into memory and forbids every change: whatever a
// container does to /proc/self/exe, the next container runs this.
func seal(name string) (*os.File, error) {
	src, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer src.Close()
	fd, err := unix.MemfdCreate("wherry-runtime", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_EXEC)
	if errors.Is(err, unix.EINVAL) { // before Linux 6.3
		fd, err = unix.MemfdCreate("wherry-runtime", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	f := os.NewFile(uintptr(fd), "wherry-runtime")
	if _, err := io.Copy(f, src); err != nil {
		f.Close()
		return nil, err
	}
	const all = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, all); err != nil {
		f.Close()
		return nil, fmt.Errorf("add seals: %w", err)
	}
	// A read-only descriptor of its own: the writable one stays closed.
	ro, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
	f.Close()
	return ro, err
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

// cgroupOf names the container's cgroup.
func cgroupOf(id string, spec *specs.Spec, systemd bool) (string, error) {
	if systemd {
		return "", lackf("the systemd cgroup driver")
	}
	name := "/" + id
	if spec.Linux != nil && spec.Linux.CgroupsPath != "" {
		name = path.Clean("/" + spec.Linux.CgroupsPath)
	}
	return name, cgroup.Check(name)
}
