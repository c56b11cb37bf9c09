// Package dnsport prepares a sandbox for its name server: sockets on random
// ports of 127.0.0.11 inside it, and a small nftables table there that leads
// 127.0.0.11:53 to them, so that the container may have port 53 for itself.
package dnsport

import (
	"errors"
	"fmt"
	"os"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/network/conntrack"
	"github.com/wherry-engine/wherry/network/netns"
)

// Address is where containers find their name server.
var Address = [4]byte{127, 0, 0, 11}

// tableName of the table inside the sandbox.
const tableName = "wherry_dns"

// Sockets are bound inside a sandbox; TCP listens.
type Sockets struct{ UDP, TCP int }

// Close closes them.
func (s *Sockets) Close() error {
	return errors.Join(unix.Close(s.UDP), unix.Close(s.TCP))
}

// Open makes the sockets and writes the rules, replacing earlier ones.
func Open(ns *os.File) (*Sockets, error) {
	s := &Sockets{UDP: -1, TCP: -1}
	err := netns.Do(ns, func() (err error) {
		var udp, tcp uint16
		if s.UDP, udp, err = listen(unix.SOCK_DGRAM); err != nil {
			return err
		}
		if s.TCP, tcp, err = listen(unix.SOCK_STREAM); err != nil {
			return err
		}
		return redirect(udp, tcp)
	})
	if err != nil {
		for _, fd := range []int{s.UDP, s.TCP} {
			if fd >= 0 {
				_ = unix.Close(fd)
			}
		}
		return nil, err
	}
	return s, nil
}

func listen(typ int) (fd int, port uint16, err error) {
	fd, err = unix.Socket(unix.AF_INET, typ|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, 0, err
	}
	err = unix.Bind(fd, &unix.SockaddrInet4{Addr: Address})
	if err == nil && typ == unix.SOCK_STREAM {
		err = unix.Listen(fd, 64)
	}
	if err == nil {
		var sa unix.Sockaddr
		if sa, err = unix.Getsockname(fd); err == nil {
			return fd, uint16(sa.(*unix.SockaddrInet4).Port), nil
		}
	}
	return -1, 0, errors.Join(err, unix.Close(fd))
}

// redirect writes the table in the namespace of the calling thread.
func redirect(udp, tcp uint16) error {
	err := writeTable(udp, tcp, false)
	if errors.Is(err, unix.EEXIST) {
		if err = writeTable(udp, tcp, true); err == nil {
			// A resolver that happens to use a port again must not be led to the old sockets.
			err = conntrack.Forget([]conntrack.Flow{{Proto: unix.IPPROTO_UDP, Port: 53}, {Proto: unix.IPPROTO_TCP, Port: 53}})
		}
	}
	if err != nil {
		return fmt.Errorf("redirect name service: %w", err)
	}
	return nil
}

// writeTable makes the table. Replacing an earlier one makes the kernel wait
// some 10 ms for what it removes, so that is only done where there is one.
func writeTable(udp, tcp uint16, replace bool) error {
	c, err := nftables.New()
	if err != nil {
		return err
	}
	t := &nftables.Table{Name: tableName, Family: nftables.TableFamilyIPv4}
	if replace {
		c.DelTable(t)
	}
	c.CreateTable(t)
	chain := c.AddChain(&nftables.Chain{
		Name: "output", Table: t, Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookOutput, Priority: nftables.ChainPriorityNATDest,
	})
	for _, r := range []struct {
		proto byte
		port  uint16
	}{{unix.IPPROTO_UDP, udp}, {unix.IPPROTO_TCP, tcp}} {
		c.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: []expr.Any{
			&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 16, Len: 4},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: Address[:]},
			&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{r.proto}},
			&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.BigEndian.PutUint16(53)},
			&expr.Immediate{Register: 1, Data: Address[:]},
			&expr.Immediate{Register: 2, Data: binaryutil.BigEndian.PutUint16(r.port)},
			&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: 1, RegProtoMin: 2},
		}})
	}
	return c.Flush()
}
