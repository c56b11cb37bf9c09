// Package netns makes network namespaces without names and keeps a few of them
// ready. A namespace lives as long as a descriptor or a process holds it.
package netns

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/network/rtnl"
)

const self = "/proc/thread-self/ns/net"

// Open returns a descriptor of the calling thread's namespace.
func Open() (*os.File, error) {
	f, err := os.OpenFile(self, os.O_RDONLY, 0)
	if err != nil {
		return nil, fmt.Errorf("open network namespace: %w", err)
	}
	return f, nil
}

// Do runs fn on a thread that is inside the namespace. The thread returns to
// its namespace afterwards, or dies if it cannot.
func Do(ns *os.File, fn func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		home, err := Open()
		if err != nil {
			runtime.UnlockOSThread()
			done <- err
			return
		}
		defer home.Close()
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			runtime.UnlockOSThread()
			done <- fmt.Errorf("enter network namespace: %w", err)
			return
		}
		err = fn()
		if back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); back == nil {
			runtime.UnlockOSThread()
		}
		done <- err
	}()
	return <-done
}

// Dial opens a route netlink socket inside the namespace.
func Dial(ns *os.File) (c *rtnl.Conn, err error) {
	err = Do(ns, func() error {
		c, err = rtnl.Dial()
		return err
	})
	return c, err
}

// Sysctl writes a net.* setting of the calling thread's namespace.
// NotFound-like errors are those of the file system.
func Sysctl(key, value string) error {
	path := sysctlPath(key)
	if path == "" {
		return fmt.Errorf("sysctl %s is not of the network: %w", key, os.ErrInvalid)
	}
	// Not by package os, which would offer the file to Go's poller and wake it.
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("sysctl %s: %w", key, err)
	}
	defer unix.Close(fd)
	if _, err := unix.Write(fd, []byte(value)); err != nil {
		return fmt.Errorf("sysctl %s=%s: %w", key, value, err)
	}
	return nil
}

// ReadSysctl returns a net.* setting of the calling thread's namespace.
func ReadSysctl(key string) (string, error) {
	b, err := os.ReadFile(sysctlPath(key))
	return strings.TrimSpace(string(b)), err
}

// sysctlPath follows sysctl(8): where the first separator is a slash, dots are
// part of names, as in net/ipv4/conf/eth0.1/forwarding. "" if it leads elsewhere.
func sysctlPath(key string) string {
	if i := strings.IndexAny(key, "./"); i >= 0 && key[i] == '.' {
		key = strings.Map(func(r rune) rune {
			switch r {
			case '.':
				return '/'
			case '/':
				return '.'
			}
			return r
		}, key)
	}
	path := filepath.Join("/proc/sys", key)
	if !strings.HasPrefix(path, "/proc/sys/net/") {
		return ""
	}
	return path
}
