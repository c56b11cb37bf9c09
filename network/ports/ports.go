// Package ports reserves ports of the host: it binds a socket to each, so that
// a conflict with any process is found by the kernel, and remembers which the
// engine itself gave out. TCP sockets listen: a connection that address
// translation did not catch waits there for the proxy.
package ports

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// Key is a port of one address of the host.
type Key struct {
	Proto uint8 // unix.IPPROTO_TCP or unix.IPPROTO_UDP
	Addr  netip.Addr
	Port  uint16
}

func (k Key) String() string { return netip.AddrPortFrom(k.Addr, k.Port).String() }

// slot is what the addresses of one port share.
type slot struct {
	proto uint8
	port  uint16
}

// Table is the ports that the engine gave out. It is safe for concurrent use.
type Table struct {
	mu     sync.Mutex
	used   map[slot][]netip.Addr
	cursor uint16 // where the search for a free port goes on
}

// NewTable returns an empty table.
func NewTable() *Table { return &Table{used: map[slot][]netip.Addr{}} }

// Claim notes a port as given out. FailedPrecondition if it is, in Docker's words.
func (t *Table) Claim(k Key) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := slot{k.Proto, k.Port}
	for _, a := range t.used[s] {
		if a == k.Addr || a.Is4() == k.Addr.Is4() && (a.IsUnspecified() || k.Addr.IsUnspecified()) {
			return errdefs.ErrFailedPrecondition.WithMessage(fmt.Sprintf("Bind for %s failed: port is already allocated", k))
		}
	}
	t.used[s] = append(t.used[s], k.Addr)
	return nil
}

// Release undoes Claim.
func (t *Table) Release(k Key) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := slot{k.Proto, k.Port}
	for i, a := range t.used[s] {
		if a == k.Addr {
			t.used[s] = append(t.used[s][:i], t.used[s][i+1:]...)
			break
		}
	}
	if len(t.used[s]) == 0 {
		delete(t.used, s)
	}
}

// Bound is a reserved port with the socket that holds it.
type Bound struct {
	Key
	FD int // -1 if it was handed on
}

// Reserve finds a port in [start, end] that is free on all the addresses, and
// takes it; 0 for both means any of the ephemeral ones. FailedPrecondition.
func (t *Table) Reserve(proto uint8, addrs []netip.Addr, start, end uint16) ([]Bound, error) {
	first, count := uint32(start), uint32(end)-uint32(start)+1
	if start == 0 {
		first, count = t.ephemeral()
	}
	base := first
	if start == 0 {
		base, count = t.advance(first, count)
	}
	var failed error
	for i := range count {
		port := base + i
		if start == 0 && port >= first+count {
			port -= count
		}
		b, err := t.reserve(proto, addrs, uint16(port))
		if err == nil {
			if start == 0 {
				t.moveTo(uint16(port) + 1)
			}
			return b, nil
		}
		failed = err
		if !errdefs.IsFailedPrecondition(err) {
			break
		}
	}
	if start != end {
		if errdefs.IsFailedPrecondition(failed) {
			failed = errdefs.ErrFailedPrecondition.WithMessage(fmt.Sprintf("all ports are allocated: the last failure was: %v", failed))
		}
	}
	return nil, failed
}

// advance returns where to begin in the range.
func (t *Table) advance(first, count uint32) (uint32, uint32) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if c := uint32(t.cursor); c >= first && c < first+count {
		return c, count
	}
	return first, count
}

func (t *Table) moveTo(port uint16) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.cursor = port
}

// ephemeral is the kernel's range of ephemeral ports: the first and how many.
func (t *Table) ephemeral() (first, count uint32) {
	b, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if f := strings.Fields(string(b)); err == nil && len(f) == 2 {
		lo, err1 := strconv.ParseUint(f[0], 10, 16)
		hi, err2 := strconv.ParseUint(f[1], 10, 16)
		if err1 == nil && err2 == nil && lo > 0 && lo <= hi {
			return uint32(lo), uint32(hi-lo) + 1
		}
	}
	return 49153, 65535 - 49153 + 1
}

// reserve takes one port on all the addresses, or none.
func (t *Table) reserve(proto uint8, addrs []netip.Addr, port uint16) (out []Bound, err error) {
	defer func() {
		if err != nil {
			t.Free(out)
		}
	}()
	for _, a := range addrs {
		k := Key{proto, a, port}
		if err := t.Claim(k); err != nil {
			return out, err
		}
		fd, err := Bind(k)
		if err != nil {
			t.Release(k)
			return out, err
		}
		out = append(out, Bound{k, fd})
	}
	return out, nil
}

// Free releases ports and closes their sockets.
func (t *Table) Free(bound []Bound) {
	CloseAll(bound)
	for _, b := range bound {
		t.Release(b.Key)
	}
}

// CloseAll closes the sockets; the ports stay given out.
func CloseAll(bound []Bound) {
	for i := range bound {
		if bound[i].FD >= 0 {
			_ = unix.Close(bound[i].FD)
			bound[i].FD = -1
		}
	}
}

// Bind makes the socket that holds a port. FailedPrecondition if another
// process has it or the host has no such address.
func Bind(k Key) (int, error) {
	fd, err := bind(k)
	switch {
	case err == nil:
		return fd, nil
	case errors.Is(err, unix.EADDRINUSE):
		return -1, errdefs.ErrFailedPrecondition.WithMessage(fmt.Sprintf("failed to bind host port for %s/%s: address already in use", k, ProtoName(k.Proto)))
	default:
		// Not of the class that a further port could cure.
		return -1, fmt.Errorf("failed to bind host port for %s/%s: %w", k, ProtoName(k.Proto), err)
	}
}

func bind(k Key) (fd int, err error) {
	dom, typ := unix.AF_INET, unix.SOCK_STREAM
	if k.Addr.Is6() {
		dom = unix.AF_INET6
	}
	if k.Proto == unix.IPPROTO_UDP {
		typ = unix.SOCK_DGRAM
	}
	fd, err = unix.Socket(dom, typ|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, int(k.Proto))
	if err != nil {
		return -1, err
	}
	defer func() {
		if err != nil {
			_ = unix.Close(fd)
		}
	}()
	if k.Addr.Is6() {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1); err != nil {
			return -1, err
		}
	}
	if typ == unix.SOCK_DGRAM {
		if err := packetInfo(fd, k.Addr.Is6()); err != nil {
			return -1, err
		}
		return fd, unix.Bind(fd, sockaddr(k))
	}
	// Connections that linger must not keep the port; one who listens does.
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return -1, err
	}
	if err := unix.Bind(fd, sockaddr(k)); err != nil {
		return -1, err
	}
	return fd, unix.Listen(fd, 128)
}

// packetInfo asks for the address each datagram was sent to, to answer from it.
func packetInfo(fd int, v6 bool) error {
	if v6 {
		return unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)
	}
	return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
}

func sockaddr(k Key) unix.Sockaddr {
	if k.Addr.Is4() {
		return &unix.SockaddrInet4{Port: int(k.Port), Addr: k.Addr.As4()}
	}
	return &unix.SockaddrInet6{Port: int(k.Port), Addr: k.Addr.As16()}
}

// ProtoName is "tcp" or "udp".
func ProtoName(p uint8) string {
	if p == unix.IPPROTO_UDP {
		return "udp"
	}
	return "tcp"
}
