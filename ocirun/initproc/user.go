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

// closeUnneeded leaves no way to the host open: from here on, nothing but the
// socket, the terminal and the reaper's program is needed.
func (s *setup) closeUnneeded() error {
	p := &s.cfg.Process
	for i, fd := range s.fds {
		if i != p.ListenFD && (!p.Init || i != p.ProgramFD) {
			unix.Close(fd)
		}
	}
	own := []int{s.proc, s.null}
	for i := range s.kernel { // newProc is one of them
		own = append(own, s.kernel[i].fd)
	}
	if s.cfg.Join {
		own = append(own, s.root) // else it is one of those passed
	}
	for _, fd := range own {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
	return nil
}

// workingDir enters the working directory with all privileges; the user may
// have no right to pass through its parents.
func (s *setup) workingDir() error {
	err := s.chdir()
	s.chdirLater = errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM)
	if s.chdirLater { // a file system that distrusts root
		return nil
	}
	return cwdError(s.cwd(), err)
}

func (s *setup) workingDirAsUser() error {
	if !s.chdirLater {
		return nil
	}
	return cwdError(s.cwd(), s.chdir())
}

func (s *setup) cwd() string {
	if s.cfg.Process.Cwd == "" {
		return "/"
	}
	return s.cfg.Process.Cwd
}

func cwdError(cwd string, err error) error {
	if err == nil {
		return nil
	}
	return &startError{code: 126, msg: fmt.Sprintf("chdir to cwd (%q) set in config.json failed: %v", cwd, err)}
}

// chdir refuses a directory outside of the root, which only a descriptor that
// leads out can reach.
func (s *setup) chdir() error {
	if err := unix.Chdir(s.cwd()); err != nil {
		return err
	}
	buf := make([]byte, unix.PathMax)
	n, err := unix.Getcwd(buf)
	if err != nil || n == 0 || buf[0] != '/' {
		_ = unix.Chdir("/")
		return errors.New("current working directory is outside of container mount namespace root")
	}
	return nil
}

// makeWorkingDir is done with all privileges, as the root's owner, and while
// the root can be written.
func (s *setup) makeWorkingDir() error {
	cwd := s.cfg.Process.Cwd
	if cwd == "" || cwd == "/" {
		return nil
	}
	fd, err := s.inRoot(cwd, unix.O_PATH)
	if err == nil {
		return unix.Close(fd)
	}
	if !errors.Is(err, unix.ENOENT) {
		return nil // chdir tells what is wrong with it
	}
	fd, err = s.mkdirAll(cwd, 0o755)
	if errors.Is(err, unix.EROFS) || errors.Is(err, unix.EACCES) {
		return nil
	}
	if err != nil {
		return &startError{code: 126, msg: fmt.Sprintf("mkdir %s: %v", cwd, errors.Unwrap(err))}
	}
	return unix.Close(fd)
}
