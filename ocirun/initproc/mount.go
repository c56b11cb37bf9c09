package initproc

import (
	"errors"
	"fmt"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/ocirun/wire"
)

// mounts makes all mounts of the configuration, in its order.
func (s *setup) mounts() error {
	for i := range s.cfg.Mounts {
		m := &s.cfg.Mounts[i]
		if err := s.mount(m); err != nil {
			return fmt.Errorf("mount %s at %s: %w", cmpOr(m.Source, m.Type), m.Target, err)
		}
	}
	return nil
}

func cmpOr(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

func (s *setup) mount(m *wire.Mount) error {
	switch m.Kind {
	case wire.MountBind:
		return s.bind(m)
	case wire.MountCgroup:
		return s.cgroup(m)
	case wire.MountRemount:
		return s.remount(m)
	}
	if m.IVersion {
		return s.mountByCall(m)
	}
	data := s.withMode(m)
	if m.Label != "" && m.Type != "mqueue" {
		data = append(data[:len(data):len(data)], "context="+m.Label)
	}
	fd, err := newMount(m.Type, m.Source, data, s.initialAttr(m))
	if err != nil {
		return err
	}
	kernel := m.Type == "proc" || m.Type == "sysfs"
	if !kernel {
		defer unix.Close(fd)
	}
	if m.Label != "" && m.Type == "mqueue" { // the kernel has made it, with a label, together with the namespace
		if err := unix.Setxattr("/proc/self/fd/"+itoa(fd), "security.selinux", []byte(m.Label), 0); err != nil {
			return fmt.Errorf("set SELinux context %s: %w", m.Label, err)
		}
	}
	target, err := s.mountPoint(m)
	if err != nil {
		return err
	}
	defer unix.Close(target)
	if m.CopyUp {
		if err := copyUp(target, fd); err != nil {
			return fmt.Errorf("copy what is there: %w", err)
		}
	}
	if err := s.finish(m, fd); err != nil {
		return err
	}
	if err := attach(fd, target); err != nil {
		return err
	}
	if kernel {
		s.kernel = append(s.kernel, kernelFS{target: path.Clean(m.Target), fd: fd})
	}
	if m.Type == "proc" && s.newProc < 0 {
		s.newProc = fd
	}
	return nil
}

// mountByCall makes a mount by mount(2), for a flag that the calls by descriptor
// do not have.
func (s *setup) mountByCall(m *wire.Mount) error {
	target, err := s.mountPoint(m)
	if err != nil {
		return err
	}
	defer unix.Close(target)
	data := strings.Join(s.withMode(m), ",")
	if m.Label != "" {
		data += `,context="` + m.Label + `"` // which has commas
	}
	if err := unix.Mount(m.Source, "/proc/self/fd/"+itoa(target), m.Type, unix.MS_I_VERSION, data); err != nil {
		return fmt.Errorf("mount with iversion: %w", err)
	}
	if m.CopyUp {
		return errors.New("tmpcopyup together with iversion")
	}
	return s.remount(m)
}

// withMode gives a tmpfs the mode of the directory it covers, unless another
// one is asked for: a volatile /tmp stays open to all, a home does not become so.
func (s *setup) withMode(m *wire.Mount) []string {
	if m.Type != "tmpfs" || m.CopyUp {
		return m.Data
	}
	for _, d := range m.Data {
		if strings.HasPrefix(d, "mode=") {
			return m.Data
		}
	}
	fd, err := s.inRoot(m.Target, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return m.Data // made by us: the kernel's default
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil {
		return m.Data
	}
	return append(m.Data[:len(m.Data):len(m.Data)], fmt.Sprintf("mode=%o", st.Mode&0o7777))
}

// initialAttr are the flags a mount is born with; read-only comes last if
// something is to be written first.
func (s *setup) initialAttr(m *wire.Mount) int {
	attr := m.Set
	if m.CopyUp {
		attr &^= unix.MOUNT_ATTR_RDONLY
	}
	return int(attr)
}

// mountPoint opens the target. For the kernel's own file systems every
// component must be a real directory: through a link, the container's files
// would be taken for the kernel's.
func (s *setup) mountPoint(m *wire.Mount) (int, error) {
	if m.Type != "proc" && m.Type != "sysfs" {
		return s.target(m.Target, true)
	}
	fd, err := s.target(m.Target, true)
	if err != nil {
		return -1, err
	}
	unix.Close(fd)
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_SYMLINKS}
	fd, err = unix.Openat2(s.root, m.Target, &how)
	if err != nil {
		return -1, fmt.Errorf("%s must be mounted on an ordinary directory: %w", m.Type, err)
	}
	return fd, nil
}

// newMount makes a detached mount of a new file system.
func newMount(typ, source string, data []string, attr int) (int, error) {
	fs, err := unix.Fsopen(typ, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("open file system %s: %w", typ, err)
	}
	defer unix.Close(fs)
	if source != "" {
		if err := unix.FsconfigSetString(fs, "source", source); err != nil {
			return -1, fsError(fs, "source", err)
		}
	}
	if err := setOptions(fs, data); err != nil {
		return -1, err
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, fsError(fs, "create "+typ, err)
	}
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, attr)
	if err != nil {
		return -1, fsError(fs, "mount "+typ, err)
	}
	return fd, nil
}

func setOptions(fs int, data []string) (err error) {
	for _, d := range data {
		key, value, has := strings.Cut(d, "=")
		if has {
			err = unix.FsconfigSetString(fs, key, value)
		} else {
			err = unix.FsconfigSetFlag(fs, key)
		}
		if err != nil {
			return fsError(fs, "option "+d, err)
		}
	}
	return nil
}

// fsError adds what the kernel had to say.
func fsError(fs int, what string, err error) error {
	buf := make([]byte, 1024)
	n, rerr := unix.Read(fs, buf)
	if rerr == nil && n > 2 {
		return fmt.Errorf("%s: %w (%s)", what, err, strings.TrimSpace(string(buf[2:n])))
	}
	return fmt.Errorf("%s: %w", what, err)
}

// attach puts a detached mount where target is.
func attach(fd, target int) error {
	err := unix.MoveMount(fd, "", target, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
	if err != nil {
		return fmt.Errorf("attach: %w", err)
	}
	return nil
}

// bind clones a tree of the host and attaches it.
func (s *setup) bind(m *wire.Mount) error {
	fd, err := s.openTree(m)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if err := s.finish(m, fd); err != nil {
		return err
	}
	target, err := s.target(m.Target, st.Mode&unix.S_IFMT == unix.S_IFDIR)
	if err != nil {
		return err
	}
	defer unix.Close(target)
	return attach(fd, target)
}

func (s *setup) openTree(m *wire.Mount) (int, error) {
	flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC)
	if m.Recursive {
		flags |= unix.AT_RECURSIVE
	}
	if m.SourceFD >= 0 {
		fd, err := s.fd(m.SourceFD)
		if err == nil {
			s.fds[m.SourceFD] = -1 // the caller closes it, and its number becomes another's
		}
		return fd, err
	}
	fd, err := unix.OpenTree(unix.AT_FDCWD, m.Source, flags)
	if err != nil {
		return -1, fmt.Errorf("open source: %w", err)
	}
	return fd, nil
}

// finish gives a mount that is still detached its flags and propagation.
func (s *setup) finish(m *wire.Mount, fd int) error {
	if m.IDMapFD >= 0 {
		ns, err := s.fd(m.IDMapFD)
		if err != nil {
			return err
		}
		attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(ns)}
		if err := mountSetattr(fd, m.IDMapRecursive, &attr); err != nil {
			return fmt.Errorf("map ids: %w", err)
		}
	}
	if set, clr := m.Set, m.Clear; set|clr != 0 && (m.Kind != wire.MountFS || m.CopyUp || m.IVersion) {
		if err := mountSetattr(fd, false, &unix.MountAttr{Attr_set: set, Attr_clr: clr}); err != nil {
			return fmt.Errorf("set flags: %w", err)
		}
	}
	if m.RecSet|m.RecClear != 0 {
		if err := mountSetattr(fd, true, &unix.MountAttr{Attr_set: m.RecSet, Attr_clr: m.RecClear}); err != nil {
			return fmt.Errorf("set flags recursively: %w", err)
		}
	}
	for _, p := range m.Propagation {
		attr := unix.MountAttr{Propagation: p &^ unix.MS_REC}
		if err := mountSetattr(fd, p&unix.MS_REC != 0, &attr); err != nil {
			return fmt.Errorf("set propagation: %w", err)
		}
	}
	return nil
}

// remount changes the flags of what is mounted at the target.
func (s *setup) remount(m *wire.Mount) error {
	fd, err := s.inRoot(m.Target, unix.O_PATH)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if m.Kind == wire.MountRemount && len(m.Data) > 0 {
		if err := reconfigure(fd, m.Data); err != nil {
			return err
		}
	}
	return s.finish(m, fd)
}

// reconfigure changes options of a mounted file system.
func reconfigure(mount int, data []string) error {
	fs, err := unix.Fspick(mount, "", unix.FSPICK_CLOEXEC|unix.FSPICK_EMPTY_PATH)
	if err != nil {
		return fmt.Errorf("pick the file system: %w", err)
	}
	defer unix.Close(fs)
	if err := setOptions(fs, data); err != nil {
		return err
	}
	if err := unix.FsconfigReconfigure(fs); err != nil {
		return fsError(fs, "change options", err)
	}
	return nil
}

func mountSetattr(fd int, recursive bool, attr *unix.MountAttr) error {
	flags := uint(unix.AT_EMPTY_PATH)
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	err := unix.MountSetattr(fd, "", flags, attr)
	if errors.Is(err, unix.ENOSYS) {
		return fmt.Errorf("mount_setattr needs Linux 5.12: %w", err)
	}
	return err
}
