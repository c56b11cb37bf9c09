package ocirun

import (
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

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
	// userNS is a user namespace to be joined, or nil.
	userNS *os.File
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
	case l.IntelRdt != nil:
		return lackf("linux.intelRdt")
	case len(l.TimeOffsets) > 0:
		return lackf("linux.timeOffsets")
	case len(l.NetDevices) > 0:
		return lackf("linux.netDevices")
	case l.MemoryPolicy != nil:
		return lackf("linux.memoryPolicy")
	case l.MountLabel != "":
		return lackf("linux.mountLabel: SELinux labels of mounts")
	case spec.Windows != nil || spec.VM != nil || spec.Solaris != nil || spec.ZOS != nil:
		return lackf("a platform other than Linux")
	}
	return nil
}

// namespaces sorts them into those to make and those to join.
func (r *Runtime) namespaces(p *plan, req *CreateRequest) error {
	var seen int
	join := func(flag int, f *os.File, name string) error {
		var err error
		if f == nil {
			if f, err = os.Open(name); err != nil {
				return invalidf("join namespace: %v", err)
			}
			p.opened = append(p.opened, f)
		}
		switch flag {
		case unix.CLONE_NEWNS:
			return lackf("joining a mount namespace")
		case unix.CLONE_NEWUSER:
			p.userNS = f
		default:
			p.enter = append(p.enter, nsFD{int(f.Fd()), flag})
		}
		return nil
	}
	for _, ns := range req.Spec.Linux.Namespaces {
		flag := nsFlag(string(ns.Type))
		if flag == 0 {
			return invalidf("unknown namespace type %q", ns.Type)
		}
		if seen&flag != 0 {
			return invalidf("namespace %q is given twice", ns.Type)
		}
		seen |= flag
		f := req.Join[ns.Type]
		if ns.Type == specs.NetworkNamespace && req.NetNS != nil {
			f = req.NetNS
		}
		if f != nil || ns.Path != "" {
			if err := join(flag, f, ns.Path); err != nil {
				return err
			}
			continue
		}
		switch flag {
		case unix.CLONE_NEWTIME:
			return lackf("time namespaces")
		case unix.CLONE_NEWCGROUP: // after it is in its cgroups
			p.cfg.Unshare |= flag
		default:
			p.clone |= uintptr(flag)
		}
	}
	for typ, f := range req.Join {
		if flag := nsFlag(string(typ)); f != nil && seen&flag == 0 {
			seen |= flag
			if err := join(flag, f, ""); err != nil {
				return err
			}
		}
	}
	if req.NetNS != nil && seen&unix.CLONE_NEWNET == 0 {
		if err := join(unix.CLONE_NEWNET, req.NetNS, ""); err != nil {
			return err
		}
		seen |= unix.CLONE_NEWNET
	}
	return r.checkNamespaces(p, req, seen)
}

func (r *Runtime) checkNamespaces(p *plan, req *CreateRequest, seen int) error {
	l := req.Spec.Linux
	if p.clone&unix.CLONE_NEWNS == 0 {
		return lackf("a container without a mount namespace of its own")
	}
	p.cfg.NewMountNS = true
	if (req.Spec.Hostname != "" || req.Spec.Domainname != "") && seen&unix.CLONE_NEWUTS == 0 {
		return invalidf("a host name needs a uts namespace")
	}
	if p.clone&unix.CLONE_NEWUSER == 0 {
		p.cfg.UserNS = p.userNS != nil
		if len(l.UIDMappings)+len(l.GIDMappings) > 0 && p.userNS == nil {
			return invalidf("id mappings need a user namespace")
		}
		return nil
	}
	if len(l.UIDMappings) == 0 || len(l.GIDMappings) == 0 {
		return invalidf("a new user namespace needs mappings of user and group ids")
	}
	p.cfg.UserNS = true
	p.uidMap, p.gidMap = l.UIDMappings, l.GIDMappings
	return nil
}

// rootfs decides on the mount that becomes the root.
func (r *Runtime) rootfs(p *plan, req *CreateRequest) error {
	p.cfg.RootReadonly = req.Spec.Root.Readonly
	p.cfg.Propagation = unix.MS_SLAVE | unix.MS_REC
	if name := req.Spec.Linux.RootfsPropagation; name != "" {
		flags, ok := propagationOf(name)
		if !ok {
			return invalidf("unknown propagation %q of the root", name)
		}
		p.cfg.RootPropagation = flags &^ unix.MS_REC
		if flags&unix.MS_UNBINDABLE == 0 {
			p.cfg.Propagation = flags
		}
	}
	if req.Root != nil {
		fd, err := r.cloneRoot(req.Root)
		if err != nil {
			return err
		}
		return r.passRoot(p, fd)
	}
	name := req.Spec.Root.Path
	if !filepath.IsAbs(name) {
		name = filepath.Join(req.Bundle, name)
	}
	fd, err := unix.OpenTree(unix.AT_FDCWD, name, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
	if err != nil {
		return invalidf("open root %s: %v", name, err)
	}
	return r.passRoot(p, fd)
}

func (r *Runtime) passRoot(p *plan, fd int) error {
	f := os.NewFile(uintptr(fd), "root")
	p.opened = append(p.opened, f)
	p.cfg.RootFD = p.pass(fd)
	return nil
}

func (r *Runtime) mounts(p *plan, req *CreateRequest) error {
	for i := range req.Spec.Mounts {
		m := &req.Spec.Mounts[i]
		w, err := parseMount(m)
		if err != nil {
			return err
		}
		if w.Kind == wire.MountBind && !filepath.IsAbs(w.Source) {
			w.Source = filepath.Join(req.Bundle, w.Source)
		}
		if pid, inside, ok := otherRoot(w.Source); ok && w.Kind == wire.MountBind {
			tree, err := openOther(pid, inside, w.Recursive)
			if err != nil {
				return invalidf("mount at %s: open source %s: %v", w.Target, w.Source, err)
			}
			p.opened = append(p.opened, tree)
			w.SourceFD = p.pass(int(tree.Fd()))
		}
		if w.IDMapFD == -2 {
			ns, err := r.mountIDs(m, req.Spec.Linux)
			if err != nil {
				return err
			}
			p.opened = append(p.opened, ns)
			w.IDMapFD = p.pass(int(ns.Fd()))
		}
		if path.Clean(w.Target) == "/dev" {
			p.cfg.DevSetup = w.Kind != wire.MountBind
		}
		p.cfg.Mounts = append(p.cfg.Mounts, w)
	}
	if len(p.cfg.Mounts) == 0 || !slices.ContainsFunc(p.cfg.Mounts, func(m wire.Mount) bool { return path.Clean(m.Target) == "/dev" }) {
		p.cfg.DevSetup = true // a /dev in the root itself
	}
	return nil
}

// standardDevices every container has.
var standardDevices = [...]wire.Device{
	{Path: "/dev/null", Type: "c", Major: 1, Minor: 3, Mode: 0o666},
	{Path: "/dev/zero", Type: "c", Major: 1, Minor: 5, Mode: 0o666},
	{Path: "/dev/full", Type: "c", Major: 1, Minor: 7, Mode: 0o666},
	{Path: "/dev/random", Type: "c", Major: 1, Minor: 8, Mode: 0o666},
	{Path: "/dev/urandom", Type: "c", Major: 1, Minor: 9, Mode: 0o666},
	{Path: "/dev/tty", Type: "c", Major: 5, Minor: 0, Mode: 0o666},
}

func (r *Runtime) devices(p *plan, req *CreateRequest) error {
	p.cfg.Devices = append(p.cfg.Devices, standardDevices[:]...)
	for i := range req.Spec.Linux.Devices {
		d := &req.Spec.Linux.Devices[i]
		name := path.Clean("/" + d.Path)
		if name == "/" || name == "/dev/ptmx" {
			continue // ptmx is a link to the container's own
		}
		w := wire.Device{Path: name, Type: d.Type, Major: d.Major, Minor: d.Minor, Mode: 0o666}
		switch d.Type {
		case "c", "u":
			w.Type = "c"
		case "b", "p":
		default:
			return invalidf("device %s: unknown type %q", d.Path, d.Type)
		}
		if d.FileMode != nil {
			w.Mode = uint32(*d.FileMode) & 0o7777
		}
		if d.UID != nil {
			w.UID = *d.UID
		}
		if d.GID != nil {
			w.GID = *d.GID
		}
		if i := slices.IndexFunc(p.cfg.Devices, func(h wire.Device) bool { return h.Path == name }); i >= 0 {
			p.cfg.Devices[i] = w
			continue
		}
		p.cfg.Devices = append(p.cfg.Devices, w)
	}
	return nil
}

// sysctls: only those that belong to a namespace of the container.
func (r *Runtime) sysctls(p *plan, req *CreateRequest) error {
	own := func(flag int) bool {
		return p.clone&uintptr(flag) != 0 || slices.ContainsFunc(p.enter, func(n nsFD) bool { return n.flag == flag })
	}
	keys := make([]string, 0, len(req.Spec.Linux.Sysctl))
	for k := range req.Spec.Linux.Sysctl {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		dotted := strings.ReplaceAll(k, "/", ".")
		need := 0
		switch {
		case strings.HasPrefix(dotted, "net."):
			need = unix.CLONE_NEWNET
		case strings.HasPrefix(dotted, "fs.mqueue."), ipcSysctl(dotted):
			need = unix.CLONE_NEWIPC
		case dotted == "kernel.domainname":
			need = unix.CLONE_NEWUTS
		case dotted == "kernel.hostname":
			return invalidf("sysctl %q is set by the host name of the specification", k)
		case strings.HasPrefix(dotted, "user."):
			need = unix.CLONE_NEWUSER
		}
		if need == 0 || strings.Contains(k, "..") {
			return invalidf("sysctl %q is not in a separate kernel namespace", k)
		}
		if !own(need) {
			return invalidf("sysctl %q is not allowed in the host's namespace", k)
		}
		p.cfg.Sysctl = append(p.cfg.Sysctl, wire.KeyValue{Key: k, Value: req.Spec.Linux.Sysctl[k]})
	}
	return nil
}

func ipcSysctl(name string) bool {
	switch name {
	case "kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall", "kernel.shmmax",
		"kernel.shmmni", "kernel.shm_rmid_forced", "kernel.msg_next_id", "kernel.sem_next_id", "kernel.shm_next_id":
		return true
	}
	return false
}

func (r *Runtime) process(p *plan, req *CreateRequest) error {
	held := r.held
	if p.cfg.UserNS {
		held = ^uint64(0) >> (63 - unix.CAP_LAST_CAP)
	}
	w, err := process(req.Spec.Process, &processOptions{
		resolveUser: req.ResolveUser, user: req.User, groups: req.Groups, width: req.Width, height: req.Height,
		filter: req.Spec.Linux.Seccomp, personality: req.Spec.Linux.Personality, held: held,
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
		w.ProgramFD = p.pass(int(r.program.Fd()))
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
