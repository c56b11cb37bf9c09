package ocirun

import (
	"os"
	"path"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/ocirun/cgroup"
	"github.com/wherry-engine/wherry/ocirun/wire"
)

// plan is a container as it will be made: the message for its init, and what
// the runtime itself has to do at the clone.
type plan struct {
	cfg wire.Config
	// fds go with the message, in order.
	fds []int
	// clone are the namespaces to make.
	clone uintptr
	// enter are the namespaces the cloning thread joins first.
	enter []nsFD
	// opened belongs to the plan and is closed with it.
	opened []*os.File
	// uidMap and gidMap of a new user namespace.
	uidMap, gidMap []specs.LinuxIDMapping
	// limits of its control groups.
	limits *cgroup.Limits
	// enterLater is set if the init enters control groups by itself.
	enterLater bool
	// cgroups are under way; nil if nobody has begun to make them.
	cgroups *making
	// userNS is a user namespace to be joined, or nil.
	userNS *os.File
	// timeNS is a time namespace to be joined; timeOffsets those of a new one,
	// as the kernel reads them. At most one is set.
	timeNS      *os.File
	newTime     bool
	timeOffsets string
	// unitStarted: systemd has made the container's scope.
	unitStarted bool
}

type nsFD struct {
	fd   int
	flag int
}

func (p *plan) close() {
	for _, f := range p.opened {
		f.Close()
	}
}

// pass adds a descriptor to the message and returns its index.
func (p *plan) pass(fd int) int {
	p.fds = append(p.fds, fd)
	return len(p.fds) - 1
}

// plan translates a request. The caller closes the plan in any case.
func (r *Runtime) plan(req *CreateRequest, cgroup string) (*plan, error) {
	p := &plan{}
	err := r.fill(p, req, cgroup)
	return p, err
}

func (r *Runtime) fill(p *plan, req *CreateRequest, cgroup string) error {
	spec := req.Spec
	if spec == nil || spec.Process == nil || spec.Linux == nil {
		return invalidf("the specification lacks its process or linux section")
	}
	if err := refuse(spec); err != nil {
		return err
	}
	p.cfg.ID = req.ID
	p.cfg.JoinFD, p.cfg.RootFD = -1, -1
	p.cfg.NoPivot = req.NoPivot
	p.cfg.Hostname, p.cfg.Domainname = spec.Hostname, spec.Domainname
	p.cfg.Masked, p.cfg.Readonly = spec.Linux.MaskedPaths, spec.Linux.ReadonlyPaths
	for _, f := range []func(*plan, *CreateRequest) error{r.namespaces, r.rootfs, r.mounts, r.devices, r.sysctls, r.process} {
		if err := f(p, req); err != nil {
			return err
		}
	}
	r.cgroupView(p, cgroup)
	return nil
}

// refuse names what this runtime does not do.
func refuse(spec *specs.Spec) error {
	l := spec.Linux
	switch {
	case spec.Root == nil:
		return invalidf("the specification has no root")
	case l.MountLabel != "" && !selinux():
		return lackf("linux.mountLabel: SELinux is not enabled in this kernel")
	case spec.Windows != nil || spec.VM != nil || spec.Solaris != nil || spec.ZOS != nil:
		return lackf("a platform other than Linux")
	}
	return nil
}

func (r *Runtime) process(p *plan, req *CreateRequest) error {
	held := r.held
	if p.cfg.UserNS {
		held = ^uint64(0) >> (63 - unix.CAP_LAST_CAP)
	}
	w, err := process(req.Spec.Process, &processOptions{
		resolveUser: req.ResolveUser, user: req.User, groups: req.Groups, width: req.Width, height: req.Height,
		filter: req.Spec.Linux.Seccomp, personality: req.Spec.Linux.Personality, memory: req.Spec.Linux.MemoryPolicy, held: held, log: r.log,
	})
	if err != nil {
		return err
	}
	w.Init = req.Init
	w.KeepFDs = len(req.ExtraFiles)
	if w.Init {
		if w.KeepFDs > 0 {
			return lackf("extra descriptors together with the built-in init")
		}
		program, err := r.reaper()
		if err != nil {
			return err
		}
		w.ProgramFD = p.pass(int(program.Fd()))
	}
	if req.StartSocket != nil {
		w.ListenFD = p.pass(int(req.StartSocket.Fd()))
	}
	if !req.NoNewKeyring {
		w.Keyring = "_ses." + req.ID
	}
	p.cfg.Process = w
	return nil
}

// cgroupView tells init what to show of the control groups.
func (r *Runtime) cgroupView(p *plan, cgroup string) {
	if !slices.ContainsFunc(p.cfg.Mounts, func(m wire.Mount) bool { return m.Kind == wire.MountCgroup }) {
		return
	}
	if p.cfg.Unshare&unix.CLONE_NEWCGROUP == 0 && !slices.ContainsFunc(p.enter, func(n nsFD) bool { return n.flag == unix.CLONE_NEWCGROUP }) {
		p.cfg.CgroupBind = cgroup
	}
	for i := range r.cgroups.All {
		h := &r.cgroups.All[i]
		p.cfg.CgroupV1 = append(p.cfg.CgroupV1, wire.Hierarchy{
			Name: path.Base(h.Mount), Mount: h.Mount, Options: h.Controllers, Unified: h.Unified,
		})
	}
}
