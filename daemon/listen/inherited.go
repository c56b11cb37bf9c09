package listen

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// firstFD is where a service manager's descriptors begin (sd_listen_fds(3)).
const firstFD = 3

// inherited returns the sockets of the service manager: all of them, or the
// one that addr names ("3", or its place in the list, or its name).
func inherited(addr string, t *TLS) ([]net.Listener, error) {
	if pid, err := strconv.Atoi(os.Getenv("LISTEN_PID")); err != nil || pid != os.Getpid() {
		return nil, errors.New("no sockets found via socket activation: make sure the service was started by systemd")
	}
	n, err := strconv.Atoi(os.Getenv("LISTEN_FDS"))
	if err != nil || n < 1 {
		return nil, errors.New("no sockets found via socket activation: make sure the service was started by systemd")
	}
	names := strings.Split(os.Getenv("LISTEN_FDNAMES"), ":")
	var all []net.Listener
	for i := range n {
		fd := firstFD + i
		if !wanted(addr, fd, i, names) {
			continue
		}
		l, err := adopt(fd)
		if err != nil {
			return nil, fmt.Errorf("descriptor %d: %w", fd, err)
		}
		if t != nil && l.Addr().Network() == "tcp" {
			l = t.wrap(l)
		}
		all = append(all, l)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("failed to find systemd activated sockets for fd://%s", addr)
	}
	return all, nil
}

func wanted(addr string, fd, i int, names []string) bool {
	return addr == "" || addr == "*" || addr == strconv.Itoa(fd) || i < len(names) && addr == names[i]
}

// adopt turns a descriptor into a listener that does not unlink its socket when closed.
func adopt(fd int) (net.Listener, error) {
	unix.CloseOnExec(fd)
	f := os.NewFile(uintptr(fd), "listen")
	l, err := net.FileListener(f)
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	if u, ok := l.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false)
	}
	return l, nil
}
