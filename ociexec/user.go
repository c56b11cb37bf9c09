package ociexec

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/ocirun"
	"github.com/wherry-engine/wherry/ocirun/passwd"
)

// complete fills in what ocirun finds out inside of the container: the user's
// numbers, from the files of the image, and the variable HOME.
func complete(p *specs.Process, root *os.File, resolve bool, user string, groups []string) error {
	if p.Cwd == "" {
		p.Cwd = "/"
	}
	open := func(name string) (io.ReadCloser, error) { return openRegular(root, name) }
	home := ""
	if resolve {
		u, err := passwd.Resolve(open, user, groups)
		var perr *passwd.Error
		if errors.As(err, &perr) {
			return &ocirun.StartError{Code: 126, Msg: err.Error()}
		}
		if err != nil {
			return err
		}
		p.User.UID, p.User.GID, p.User.AdditionalGids, home = u.UID, u.GID, u.GIDs, u.Home
	}
	var env []string
	for _, e := range p.Env {
		if strings.HasPrefix(e, "HOME=") && e != "HOME=" {
			return nil
		}
		if e != "HOME=" {
			env = append(env, e)
		}
	}
	if home == "" {
		var err error
		if home, err = passwd.Home(open, p.User.UID); err != nil {
			home = "/"
		}
	}
	p.Env = append(env, "HOME="+home)
	return nil
}

// openRegular opens a regular file of the image; it returns nil if there is
// none. The root is that of the image and the container's own layer, without
// what is mounted in the container.
func openRegular(root *os.File, name string) (io.ReadCloser, error) {
	fd, err := unix.Openat2(int(root.Fd()), strings.TrimPrefix(name, "/"), &unix.OpenHow{
		Flags: unix.O_RDONLY | unix.O_CLOEXEC | unix.O_NONBLOCK | unix.O_NOCTTY, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	f := os.NewFile(uintptr(fd), name)
	if fi, err := f.Stat(); err != nil || !fi.Mode().IsRegular() {
		return nil, errors.Join(fmt.Errorf("%s is not a regular file", name), err, f.Close())
	}
	return f, nil
}
