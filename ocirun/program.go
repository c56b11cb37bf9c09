package ocirun

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"
)

// An init becomes a process of the container, and what it executes must not be
// the way to the host's binary (CVE-2019-5736): a container may execute
// /proc/self/exe and open that of others. Two ways keep the host's file out of
// reach, and both give the container a file that nobody can ever write.

// protect opens name by a way that no container can write it, without copying
// it where that is possible. The mount it needed is closed by the goroutine that
// done waits for: closing one takes the kernel a grace period.
func protect(name string, done *sync.WaitGroup) (*os.File, error) {
	if f, mount, err := readOnlyView(name); err == nil {
		done.Go(func() { unix.Close(mount) })
		return f, nil
	}
	return seal(name)
}

// readOnlyView opens name through an overlay of its directory. Without an upper
// layer the kernel makes the whole file system read-only, not only the mount,
// and nobody can change that; it is attached nowhere. The caller closes mount.
func readOnlyView(name string) (f *os.File, mount int, err error) {
	src, err := os.Open(name)
	if err != nil {
		return nil, -1, err
	}
	defer src.Close()
	real, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", src.Fd()))
	if err != nil {
		return nil, -1, err
	}
	// The kernel wants two lower directories, apart from each other; the first
	// one wins. Without xino inodes keep their numbers.
	view := rootDirs{root: Root{Layers: []string{filepath.Dir(real), "/run"}, Options: []string{"xino=off"}}}
	defer view.close()
	mount, err = view.overlay()
	if err != nil {
		return nil, -1, err
	}
	fd, err := unix.Openat(mount, filepath.Base(real), unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		unix.Close(mount)
		return nil, -1, err
	}
	f = os.NewFile(uintptr(fd), "wherry-runtime")
	// The name may lead to a newer binary by now.
	var want, got unix.Stat_t
	err = errors.Join(unix.Fstat(int(src.Fd()), &want), unix.Fstat(fd, &got))
	if err == nil && (want.Ino != got.Ino || want.Size != got.Size || want.Ctim != got.Ctim) {
		err = fmt.Errorf("%s is another file by now", real)
	}
	if err != nil {
		f.Close()
		unix.Close(mount)
		return nil, -1, err
	}
	return f, mount, nil
}

// lasting opens what reapers execute, which are in their containers for as long as
// these live. Root of a container can change the mode of the file of /proc/1/exe
// even if nobody can write it, and then no reaper would start any more; not so on
// a read-only file system. Without one (before Linux 6.5) it is nil, and they
// execute the sealed copy, which is replaced.
func (r *Runtime) lasting(name string) *os.File {
	f, mount, err := readOnlyView(name)
	if err != nil {
		r.log.Debug("no read-only view of the program, reapers execute its sealed copy", "err", err)
		return nil
	}
	r.protecting.Go(func() { unix.Close(mount) })
	return f
}

// sealedProgram is a sealed copy of a binary. An init that executes itself at the
// behest of a container shows it there, and root can take the right to execute it
// from everybody: by its mode before Linux 6.3, by an access control list still.
// Then it is replaced.
type sealedProgram struct {
	name string
	mu   sync.Mutex
	f    *os.File
}

// open returns the copy, which stays open as long as somebody has it.
func (p *sealedProgram) open() (*os.File, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	name := p.name
	if p.f != nil {
		var st unix.Stat_t
		if err := unix.Fstat(int(p.f.Fd()), &st); err != nil || st.Mode&0o111 == 0o111 {
			return p.f, err
		}
		name = fmt.Sprintf("/proc/self/fd/%d", p.f.Fd()) // its contents are what they were
	}
	f, err := seal(name)
	if err == nil {
		p.f = f
	}
	return f, err
}

// seal copies a binary into memory and forbids every change: whatever a
// container does to /proc/self/exe, the next container runs this.
func seal(name string) (*os.File, error) {
	f, err := sealedCopy(name)
	if err != nil {
		return nil, fmt.Errorf("seal %s: %w", name, err)
	}
	return f, nil
}

func sealedCopy(name string) (*os.File, error) {
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
	_, err = unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, all|unix.F_SEAL_EXEC)
	if errors.Is(err, unix.EINVAL) { // before Linux 6.3, where the mode is not sealed
		_, err = unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, all)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("add seals: %w", err)
	}
	// A read-only descriptor of its own: the writable one stays closed.
	ro, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
	f.Close()
	return ro, err
}
