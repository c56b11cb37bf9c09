package proxy

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// idleUDP is how long a peer may be silent before it is forgotten.
	idleUDP = 90 * time.Second
	// maxPeers bounds the peers of one port.
	maxPeers    = 4096
	maxDatagram = 65535
)

// udp is a bound port. Each peer has a socket of its own towards the container.
type udp struct {
	c      *net.UDPConn
	target atomic.Pointer[netip.AddrPort]
	ctx    context.Context //nolint:containedctx // bounds the goroutines below
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu    sync.Mutex
	peers map[peer]*net.UDPConn
}

// peer is who sent a datagram, and to which of our addresses.
type peer struct {
	from netip.AddrPort
	to   netip.Addr
}

func newUDP(fd int, target netip.AddrPort) (*udp, error) {
	f := os.NewFile(uintptr(fd), "port")
	pc, err := net.FilePacketConn(f) // works on a duplicate
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	c, ok := pc.(*net.UDPConn)
	if !ok {
		return nil, errors.Join(errors.New("not a UDP socket"), pc.Close())
	}
	p := &udp{c: c, peers: map[peer]*net.UDPConn{}}
	p.target.Store(&target)
	p.ctx, p.cancel = context.WithCancel(context.Background())
	p.wg.Add(1)
	go p.read()
	return p, nil
}

func (p *udp) SetTarget(t netip.AddrPort) {
	p.target.Store(&t)
	p.forgetAll()
}

func (p *udp) Close() error {
	p.cancel()
	err := p.c.Close()
	p.forgetAll()
	p.wg.Wait()
	return err
}

// Retire is Close: there are no connections.
func (p *udp) Retire() { _ = p.Close() }

func (p *udp) forgetAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for k, c := range p.peers {
		_ = c.Close()
		delete(p.peers, k)
	}
}

var datagrams = sync.Pool{New: func() any { b := make([]byte, maxDatagram); return &b }}

// read waits without a buffer, because most ports never get a datagram.
func (p *udp) read() {
	defer p.wg.Done()
	raw, err := p.c.SyscallConn()
	if err != nil {
		return
	}
	for p.ctx.Err() == nil {
		err := raw.Read(func(fd uintptr) bool { return readable(int(fd)) })
		if err != nil {
			return // closed
		}
		p.one()
	}
}

// readable reports whether there is a datagram, or an error, to be read.
func readable(fd int) bool {
	var b [1]byte
	_, _, err := unix.Recvfrom(fd, b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
	return !errors.Is(err, unix.EAGAIN)
}

// one passes one datagram on.
func (p *udp) one() {
	buf := datagrams.Get().(*[]byte)
	defer datagrams.Put(buf)
	var oob [128]byte
	n, oobn, _, from, err := p.c.ReadMsgUDPAddrPort(*buf, oob[:])
	if err != nil {
		return
	}
	k := peer{netip.AddrPortFrom(from.Addr().Unmap(), from.Port()), destination(oob[:oobn])}
	if c := p.conn(k); c != nil {
		_ = c.SetReadDeadline(time.Now().Add(idleUDP))
		_, _ = c.Write((*buf)[:n])
	}
}

// conn is the socket for a peer, a new one if need be.
func (p *udp) conn(k peer) *net.UDPConn {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c := p.peers[k]; c != nil {
		return c
	}
	if len(p.peers) >= maxPeers || p.ctx.Err() != nil {
		return nil
	}
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(*p.target.Load()))
	if err != nil {
		return nil
	}
	p.peers[k] = c
	p.wg.Add(1)
	go p.answers(k, c)
	return c
}

// answers brings the container's datagrams back, from the address that was asked.
func (p *udp) answers(k peer, c *net.UDPConn) {
	defer p.wg.Done()
	defer func() {
		p.mu.Lock()
		if p.peers[k] == c {
			delete(p.peers, k)
		}
		p.mu.Unlock()
		_ = c.Close()
	}()
	raw, err := c.SyscallConn()
	if err != nil {
		return
	}
	oob := source(k.to)
	_ = c.SetReadDeadline(time.Now().Add(idleUDP))
	for {
		if err := raw.Read(func(fd uintptr) bool { return readable(int(fd)) }); err != nil {
			return // silent for long, or closed
		}
		if !p.answer(k, c, oob) {
			return
		}
	}
}

// answer brings one datagram back. False: the socket is of no use any more.
func (p *udp) answer(k peer, c *net.UDPConn, oob []byte) bool {
	buf := datagrams.Get().(*[]byte)
	defer datagrams.Put(buf)
	n, err := c.Read(*buf)
	if errors.Is(err, unix.ECONNREFUSED) {
		return true // the container does not listen yet
	}
	if err != nil {
		return false
	}
	_, _, _ = p.c.WriteMsgUDPAddrPort((*buf)[:n], oob, k.from)
	_ = c.SetReadDeadline(time.Now().Add(idleUDP))
	return true
}

// destination finds the address a datagram was sent to; not valid if unknown.
func destination(oob []byte) netip.Addr {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return netip.Addr{}
	}
	for _, m := range msgs {
		switch {
		case m.Header.Level == unix.IPPROTO_IP && m.Header.Type == unix.IP_PKTINFO && len(m.Data) >= 12:
			return netip.AddrFrom4([4]byte(m.Data[8:12]))
		case m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_PKTINFO && len(m.Data) >= 16:
			return netip.AddrFrom16([16]byte(m.Data[:16]))
		}
	}
	return netip.Addr{}
}

// source is the control message that sets the address a datagram is sent from.
func source(a netip.Addr) []byte {
	switch {
	case a.Is4():
		return unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: a.As4()})
	case a.Is6():
		return unix.PktInfo6(&unix.Inet6Pktinfo{Addr: a.As16()})
	}
	return nil
}
