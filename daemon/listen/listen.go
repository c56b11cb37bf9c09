// Package listen opens the daemon's sockets: unix, TCP with or without TLS, and
// those handed over by a service manager.
package listen

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Options for All.
type Options struct {
	// Hosts are addresses such as unix:///run/x.sock, tcp://:2376, fd://.
	Hosts []string
	// Group is the name or number of the group that may use unix sockets.
	Group string
	// GroupRequired makes a missing group an error instead of a warning.
	GroupRequired bool
	// TLS for TCP; nil means plain.
	TLS *TLS
	// Logger is required.
	Logger *slog.Logger
}

// All opens every host. On error, nothing stays open.
func All(opts Options) (_ []net.Listener, err error) {
	var all []net.Listener
	defer func() {
		if err != nil {
			for _, l := range all {
				err = errors.Join(err, l.Close())
			}
		}
	}()
	for _, host := range opts.Hosts {
		ls, err := open(host, opts)
		if err != nil {
			return nil, fmt.Errorf("failed to load listener: %s: %w", host, err)
		}
		all = append(all, ls...)
	}
	return all, nil
}

func open(host string, opts Options) ([]net.Listener, error) {
	proto, addr, _ := strings.Cut(host, "://")
	switch proto {
	case "unix":
		l, err := openUnix(addr, opts)
		return []net.Listener{l}, err
	case "tcp":
		l, err := openTCP(addr, opts)
		return []net.Listener{l}, err
	case "fd":
		return inherited(addr, opts.TLS)
	}
	return nil, fmt.Errorf("invalid protocol format: %q", proto)
}

// openUnix makes a socket that only root and the group may open. A socket that
// nobody answers on is replaced; one that is in use is not.
func openUnix(path string, opts Options) (net.Listener, error) {
	if path == "" {
		path = "/run/wherry.sock"
	}
	gid, err := lookupGroup(opts.Group)
	if err != nil {
		if opts.GroupRequired {
			return nil, err
		}
		opts.Logger.Debug("the socket belongs to root alone", "err", err)
		gid = 0
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	if err := clearStale(path); err != nil {
		return nil, err
	}
	// bind(2) applies the umask: the socket never exists with wider permissions.
	old := unix.Umask(0o777)
	l, err := net.Listen("unix", path)
	unix.Umask(old)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(os.Chown(path, 0, gid), os.Chmod(path, 0o660)); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// clearStale removes a socket left by a process that died.
func clearStale(path string) error {
	fi, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if fi.Mode()&fs.ModeSocket == 0 {
		return fmt.Errorf("%s exists and is not a socket", path)
	}
	conn, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		return errors.Join(fmt.Errorf("%s is in use by another process", path), conn.Close())
	}
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func openTCP(addr string, opts Options) (net.Listener, error) {
	port := "2375"
	if opts.TLS != nil {
		port = "2376"
	}
	addr = strings.TrimSuffix(addr, "/")
	host, p, err := net.SplitHostPort(addr)
	switch {
	case addr == "":
		host, p = "localhost", port
	case err != nil:
		host, p = strings.Trim(addr, "[]"), port
	case p == "":
		p = port
	}
	if opts.TLS == nil {
		opts.Logger.Warn("anyone who reaches this address is root on this machine: it has no TLS", "address", net.JoinHostPort(host, p))
	}
	l, err := net.Listen("tcp", net.JoinHostPort(host, p))
	if err != nil || opts.TLS == nil {
		return l, err
	}
	return opts.TLS.wrap(l), nil
}
