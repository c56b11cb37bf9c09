package initproc

import (
	"errors"
	"fmt"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// inRoot opens a path of the container. Symbolic links are followed as a
// process inside would, and never lead out. /proc's magic links are refused.
func (s *setup) inRoot(name string, flags uint64) (int, error) {
	how := unix.OpenHow{
		Flags:   flags | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	}
	return retry(func() (int, error) { return unix.Openat2(s.root, name, &how) })
}

// maxTries bounds how often a path is looked up while others rename. Each try
// fails that has a rename, anywhere on the machine, between its start and a
// ".." (openat2(2)); whoever renames without a pause makes most of them fail, and
// may not keep this process for ever, as the client waits for it.
const maxTries = 10000

var errRenames = fmt.Errorf("something is renamed without a pause, and looking up %d times did not help: %w", maxTries, unix.EAGAIN)

// retry looks up a path until nobody renames meanwhile.
func retry(lookUp func() (int, error)) (int, error) {
	for range maxTries {
		fd, err := lookUp()
		if err == nil || !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.EAGAIN) {
			return fd, err
		}
	}
	return -1, errRenames
}

// target opens the place for a mount, making what is missing: a directory, or
// an empty file.
func (s *setup) target(name string, dir bool) (int, error) {
	fd, err := s.inRoot(name, unix.O_PATH)
	if errors.Is(err, unix.ELOOP) && !dir {
		return s.replaceLink(name)
	}
	if !errors.Is(err, unix.ENOENT) {
		if err != nil {
			return -1, fmt.Errorf("open %s: %w", name, err)
		}
		return s.harmless(fd, name)
	}
	if dir {
		if fd, err = s.mkdirAll(name, 0o755); err != nil {
			return -1, err
		}
		return s.harmless(fd, name)
	}
	asked := name
	name = s.follow(name)
	if ofKernel, err := s.ofKernel(path.Dir(name)); err == nil && ofKernel && name != path.Clean(asked) {
		return s.replaceLink(asked)
	}
	parent, err := s.mkdirAll(path.Dir(name), 0o755)
	if err != nil {
		return -1, err
	}
	defer unix.Close(parent)
	return s.newFile(parent, path.Base(name), name)
}

// newFile makes an empty file for a mount.
func (s *setup) newFile(parent int, base, name string) (int, error) {
	fd, err := unix.Openat(parent, base, unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_WRONLY|unix.O_CLOEXEC, 0o755)
	if err != nil {
		return -1, fmt.Errorf("create %s: %w", name, err)
	}
	unix.Close(fd)
	return s.child(parent, base)
}

// ofKernel reports whether a directory, or the nearest one above it that is
// there, belongs to procfs or sysfs, where nothing can be made.
func (s *setup) ofKernel(dir string) (bool, error) {
	for {
		fd, err := s.inRoot(dir, unix.O_PATH)
		if errors.Is(err, unix.ENOENT) && dir != "/" {
			dir = path.Dir(dir)
			continue
		}
		if err != nil {
			return false, err
		}
		defer unix.Close(fd)
		var fs unix.Statfs_t
		err = unix.Fstatfs(fd, &fs)
		return fs.Type == unix.PROC_SUPER_MAGIC || fs.Type == unix.SYSFS_MAGIC, err
	}
}

// replaceLink makes an empty file in place of a symbolic link that leads
// nowhere a file can be made: what is to be mounted there hides the link anyway.
func (s *setup) replaceLink(name string) (int, error) {
	dir, base := path.Split(path.Clean("/" + name))
	parent, err := s.inRoot(dir, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return -1, fmt.Errorf("open %s: %w", dir, err)
	}
	defer unix.Close(parent)
	var st unix.Stat_t
	if err := unix.Fstatat(parent, base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return -1, fmt.Errorf("open %s: %w", name, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFLNK {
		return -1, fmt.Errorf("open %s: %w", name, unix.ELOOP)
	}
	if err := unix.Unlinkat(parent, base, 0); err != nil {
		return -1, fmt.Errorf("replace the link %s: %w", name, err)
	}
	return s.newFile(parent, base, name)
}

// harmless gives a mount point back if it may be used. A link of the image
// must not lead a mount onto the root, nor onto the kernel's own file systems:
// it would lay the container's files over /proc and undo what is hidden there.
// Those are reached by the path that was asked for, or not at all. It closes
// what it does not return.
func (s *setup) harmless(fd int, name string) (int, error) {
	var fs unix.Statfs_t
	var at, root unix.Stat_t
	err := errors.Join(unix.Fstatfs(fd, &fs), unix.Fstat(fd, &at), unix.Fstat(s.root, &root))
	if err == nil && at.Dev == root.Dev && at.Ino == root.Ino {
		err = fmt.Errorf("open %s: it is the root of the container", name)
	}
	kernel := fs.Type == unix.PROC_SUPER_MAGIC || fs.Type == unix.SYSFS_MAGIC
	asked := path.Clean(name)
	if err == nil && (strings.HasPrefix(asked, "/proc/") || !kernel && asked != "/dev") {
		return fd, nil
	}
	unix.Close(fd)
	if err != nil {
		return -1, err
	}
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_SYMLINKS}
	if fd, err = unix.Openat2(s.root, name, &how); err != nil {
		return -1, fmt.Errorf("open %s without symbolic links: %w", name, err)
	}
	return fd, nil
}

// child opens an entry of dir without following it.
func (s *setup) child(dir int, base string) (int, error) {
	return unix.Openat(dir, base, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
}

// maxLinks is how many symbolic links one path may pass, as in the kernel.
const maxLinks = 40

// follow replaces the links in a path whose end is missing, such as that of an
// /etc/resolv.conf which points to a directory of a service that does not run
// yet. The answer is only a proposal: whoever uses it opens every component anew
// without following links.
func (s *setup) follow(name string) string {
	done, rest := "/", path.Clean("/" + name)[1:]
	for links := 0; rest != "" && links <= maxLinks; {
		base, more, _ := strings.Cut(rest, "/")
		rest = more
		if base == "" || base == "." {
			continue
		}
		if base == ".." {
			done = path.Dir(done)
			continue
		}
		to, ok := s.readlink(path.Join(done, base))
		switch {
		case !ok:
			done = path.Join(done, base)
		case strings.HasPrefix(to, "/"):
			done, rest = "/", to+"/"+rest
			links++
		default:
			rest = to + "/" + rest
			links++
		}
	}
	return path.Join(done, path.Clean("/"+rest))
}

func (s *setup) readlink(name string) (to string, ok bool) {
	fd, err := s.inRoot(name, unix.O_PATH|unix.O_NOFOLLOW)
	if err != nil {
		return "", false
	}
	defer unix.Close(fd)
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(fd, "", buf)
	return string(buf[:max(n, 0)]), err == nil && n > 0
}

// mkdirAll opens a directory of the container, making what is missing.
func (s *setup) mkdirAll(name string, mode uint32) (int, error) {
	name = path.Clean("/" + name)
	if fd, err := s.inRoot(name, unix.O_PATH|unix.O_DIRECTORY); !errors.Is(err, unix.ENOENT) {
		if err != nil {
			return -1, fmt.Errorf("mkdir %s: %w", name, err)
		}
		return fd, nil
	}
	name = s.follow(name)
	have, rest := name, ""
	var fd int
	for {
		var err error
		fd, err = s.inRoot(have, unix.O_PATH|unix.O_DIRECTORY)
		if err == nil {
			break
		}
		if !errors.Is(err, unix.ENOENT) || have == "/" {
			return -1, fmt.Errorf("mkdir %s: %w", name, err)
		}
		rest = path.Join(path.Base(have), rest)
		have = path.Dir(have)
	}
	for rest != "" {
		base, more, _ := strings.Cut(rest, "/")
		rest = more
		if err := unix.Mkdirat(fd, base, mode); err != nil && !errors.Is(err, unix.EEXIST) {
			unix.Close(fd)
			return -1, fmt.Errorf("mkdir %s: %w", name, err)
		}
		next, err := unix.Openat(fd, base, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		unix.Close(fd)
		if err != nil {
			return -1, fmt.Errorf("mkdir %s: %w", name, err)
		}
		fd = next
	}
	return fd, nil
}

// openProc opens a file of the host's procfs: the container's may be forged.
func (s *setup) openProc(name string, flags int) (int, error) {
	return unix.Openat(s.proc, name, flags|unix.O_CLOEXEC, 0)
}

// writeProc sets a file of the calling thread's directory in procfs.
func (s *setup) writeProc(name, value string) error {
	fd, err := s.openProc("thread-self/"+name, unix.O_WRONLY)
	if err != nil {
		return fmt.Errorf("open /proc/thread-self/%s: %w", name, err)
	}
	defer unix.Close(fd)
	if _, err := unix.Write(fd, []byte(value)); err != nil {
		return fmt.Errorf("write %q to /proc/thread-self/%s: %w", value, name, err)
	}
	return nil
}

func itoa(n int) string { return strconv.Itoa(n) }
