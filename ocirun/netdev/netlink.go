package netdev

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Socket speaks rtnetlink(7) in the network namespace it was opened in. The
// library for it would double the start of an init.
type Socket struct {
	fd  int
	seq uint32
}

// Open makes a socket in the calling thread's network namespace.
func Open() (*Socket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("netlink socket: %w", err)
	}
	return &Socket{fd: fd}, nil
}

// Close closes the socket.
func (s *Socket) Close() error { return unix.Close(s.fd) }

// message is one answer: its type and what follows the header.
type message struct {
	typ  uint16
	body []byte
}

// ask sends a request and collects the answers. Errors are the kernel's.
func (s *Socket) ask(typ, flags uint16, body []byte) ([]message, error) {
	s.seq++
	b := make([]byte, unix.NLMSG_HDRLEN, unix.NLMSG_HDRLEN+len(body))
	binary.NativeEndian.PutUint32(b, uint32(unix.NLMSG_HDRLEN+len(body)))
	binary.NativeEndian.PutUint16(b[4:], typ)
	binary.NativeEndian.PutUint16(b[6:], unix.NLM_F_REQUEST|flags)
	binary.NativeEndian.PutUint32(b[8:], s.seq)
	b = append(b, body...)
	if err := unix.Sendto(s.fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, err
	}
	var out []message
	buf := make([]byte, 1<<16)
	for {
		n, _, err := unix.Recvfrom(s.fd, buf, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for rest := buf[:n]; len(rest) >= unix.NLMSG_HDRLEN; {
			size := int(binary.NativeEndian.Uint32(rest))
			if size < unix.NLMSG_HDRLEN || size > len(rest) {
				return nil, unix.EBADMSG
			}
			m := message{binary.NativeEndian.Uint16(rest[4:]), append([]byte(nil), rest[unix.NLMSG_HDRLEN:size]...)}
			ours := binary.NativeEndian.Uint32(rest[8:]) == s.seq
			rest = rest[min(align(size), len(rest)):]
			switch {
			case !ours:
			case m.typ == unix.NLMSG_DONE:
				return out, nil
			case m.typ == unix.NLMSG_ERROR:
				if len(m.body) < 4 {
					return nil, unix.EBADMSG
				}
				if code := int32(binary.NativeEndian.Uint32(m.body)); code != 0 {
					return nil, unix.Errno(-code)
				}
				return out, nil
			default:
				out = append(out, m)
			}
		}
	}
}

func align(n int) int { return (n + 3) &^ 3 }

// attribute appends one of a message.
func attribute(b []byte, typ uint16, value []byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(4+len(value)))
	b = binary.NativeEndian.AppendUint16(b, typ)
	b = append(b, value...)
	return append(b, make([]byte, align(len(value))-len(value))...)
}

// link is struct ifinfomsg.
func link(index int32, flags, change uint32) []byte {
	b := make([]byte, unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(b[4:], uint32(index))
	binary.NativeEndian.PutUint32(b[8:], flags)
	binary.NativeEndian.PutUint32(b[12:], change)
	return b
}

// index finds a device. ENODEV.
func (s *Socket) index(name string) (int32, error) {
	got, err := s.ask(unix.RTM_GETLINK, unix.NLM_F_ACK, attribute(link(0, 0, 0), unix.IFLA_IFNAME, append([]byte(name), 0)))
	if err != nil {
		return 0, err
	}
	if len(got) != 1 || len(got[0].body) < unix.SizeofIfInfomsg {
		return 0, unix.EBADMSG
	}
	return int32(binary.NativeEndian.Uint32(got[0].body[4:])), nil
}

// move sends a device to another namespace, under a name that is free there.
func (s *Socket) move(index int32, netns int, name string) error {
	b := attribute(link(index, 0, 0), unix.IFLA_NET_NS_FD, binary.NativeEndian.AppendUint32(nil, uint32(netns)))
	b = attribute(b, unix.IFLA_IFNAME, append([]byte(name), 0))
	_, err := s.ask(unix.RTM_NEWLINK, unix.NLM_F_ACK, b)
	return err
}

func (s *Socket) up(index int32) error {
	_, err := s.ask(unix.RTM_NEWLINK, unix.NLM_F_ACK, link(index, unix.IFF_UP, unix.IFF_UP))
	return err
}

// Attributes of addresses that are kept, and flags, of linux/if_addr.h.
const (
	ifaRtPriority = 9
	ifaProto      = 11
	keptFlags     = unix.IFA_F_NODAD | unix.IFA_F_HOMEADDRESS | unix.IFA_F_MANAGETEMPADDR | unix.IFA_F_NOPREFIXROUTE | unix.IFA_F_MCAUTOJOIN
)

// addresses of a device that are permanent and global, as messages to add them.
func (s *Socket) addresses(index int32) ([][]byte, error) {
	all, err := s.ask(unix.RTM_GETADDR, unix.NLM_F_DUMP, make([]byte, unix.SizeofIfAddrmsg))
	if err != nil {
		return nil, err
	}
	var out [][]byte
	for _, m := range all {
		if m.typ != unix.RTM_NEWADDR || len(m.body) < unix.SizeofIfAddrmsg || int32(binary.NativeEndian.Uint32(m.body[4:])) != index {
			continue
		}
		if a := keep(m.body); a != nil {
			out = append(out, a)
		}
	}
	return out, nil
}

// keep is what of an address goes along; nil if it stays.
func keep(body []byte) []byte {
	flags, scope := uint32(body[2]), body[3]
	out := append([]byte(nil), body[:unix.SizeofIfAddrmsg]...)
	for rest := body[unix.SizeofIfAddrmsg:]; len(rest) >= 4; {
		size, typ := int(binary.NativeEndian.Uint16(rest)), binary.NativeEndian.Uint16(rest[2:])
		if size < 4 || size > len(rest) {
			return nil
		}
		value := rest[4:size]
		switch typ {
		case unix.IFA_FLAGS:
			if len(value) == 4 {
				flags = binary.NativeEndian.Uint32(value)
			}
		case unix.IFA_ADDRESS, unix.IFA_LOCAL, unix.IFA_BROADCAST, ifaRtPriority, ifaProto:
			out = attribute(out, typ, value)
		}
		rest = rest[min(align(size), len(rest)):]
	}
	if scope != unix.RT_SCOPE_UNIVERSE || flags&unix.IFA_F_PERMANENT == 0 {
		return nil
	}
	out[2] = 0 // the flags are in the attribute
	return attribute(out, unix.IFA_FLAGS, binary.NativeEndian.AppendUint32(nil, flags&keptFlags))
}

func (s *Socket) addAddress(index int32, message []byte) error {
	binary.NativeEndian.PutUint32(message[4:], uint32(index))
	_, err := s.ask(unix.RTM_NEWADDR, unix.NLM_F_ACK|unix.NLM_F_CREATE|unix.NLM_F_EXCL, message)
	return err
}
