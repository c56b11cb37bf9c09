package initproc

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/ocirun/passwd"
)

// user is who the process becomes.
type user struct {
	uid, gid uint32
	gids     []uint32
}

// openRegular opens a file of the container for the passwd parser.
func (s *setup) openRegular(name string) (io.ReadCloser, error) {
	fd, err := s.inRoot(name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY)
	if absent(err) || errors.Is(err, unix.ELOOP) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		unix.Close(fd)
		return nil, errors.Join(err, notRegular(name, &st))
	}
	return &rawFile{fd}, nil
}

func notRegular(name string, st *unix.Stat_t) error {
	if st.Mode&unix.S_IFMT == unix.S_IFREG {
		return nil
	}
	return fmt.Errorf("%s is not a regular file", name)
}

// rawFile reads a descriptor without the poller, which an init never starts.
type rawFile struct{ fd int }

func (f *rawFile) Read(p []byte) (int, error) {
	n, err := unix.Read(f.fd, p)
	if n == 0 && err == nil && len(p) > 0 {
		return 0, io.EOF
	}
	return max(n, 0), err
}

func (f *rawFile) Close() error { return unix.Close(f.fd) }

// resolveUser finds out who the process is to be, and completes HOME.
func (s *setup) resolveUser() error {
	p := &s.cfg.Process
	s.user = user{p.UID, p.GID, p.GIDs}
	home := ""
	if p.ResolveUser {
		u, err := passwd.Resolve(s.openRegular, p.User, p.Groups)
		if err != nil {
			return userError(err)
		}
		s.user, home = user{u.UID, u.GID, u.GIDs}, u.Home
	}
	for _, e := range p.Env {
		if strings.HasPrefix(e, "HOME=") && len(e) > len("HOME=") {
			return nil
		}
	}
	if home == "" {
		var err error
		if home, err = passwd.Home(s.openRegular, s.user.uid); err != nil {
			home = "/"
		}
	}
	env := p.Env[:0:len(p.Env)]
	for _, e := range p.Env {
		if e != "HOME=" {
			env = append(env, e)
		}
	}
	p.Env = append(env, "HOME="+home)
	return nil
}

func userError(err error) error {
	var perr *passwd.Error
	if errors.As(err, &perr) {
		return &startError{code: 126, msg: err.Error()}
	}
	return err
}

// workingDir enters the working directory, making it if it is missing. A
// directory outside of the root, reached through an inherited descriptor, is
// refused.
func (s *setup) workingDir() error {
	cwd := s.cfg.Process.Cwd
	if cwd == "" {
		cwd = "/"
	}
	if err := unix.Chdir(cwd); err != nil {
		return &startError{code: 126, msg: fmt.Sprintf("chdir to cwd (%q) set in config.json failed: %v", cwd, err)}
	}
	buf := make([]byte, unix.PathMax)
	n, err := unix.Getcwd(buf)
	if err != nil || n == 0 || buf[0] != '/' {
		return &startError{code: 126, msg: fmt.Sprintf("current working directory is outside of container mount namespace root: %q", cwd)}
	}
	return nil
}

// makeWorkingDir is done with all privileges, as the root's owner.
func (s *setup) makeWorkingDir() error {
	cwd := s.cfg.Process.Cwd
	if cwd == "" || cwd == "/" {
		return nil
	}
	var st unix.Stat_t
	if err := unix.Stat(cwd, &st); !errors.Is(err, unix.ENOENT) {
		return nil // chdir tells what is wrong with it
	}
	fd, err := s.mkdirAll(cwd, 0o755)
	if errors.Is(err, unix.EROFS) || errors.Is(err, unix.EACCES) {
		return nil
	}
	if err != nil {
		return &startError{code: 126, msg: fmt.Sprintf("mkdir %s: %v", cwd, errors.Unwrap(err))}
	}
	return unix.Close(fd)
}
