// Package proxy carries connections to published ports that the kernel does
// not translate: those to ::1, those of IPv6 to a container that has only
// IPv4, and all of them where the firewall rules are switched off.
package proxy

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const dialTimeout = 10 * time.Second

// Forwarder serves one published port until it is closed.
type Forwarder interface {
	// SetTarget changes where new connections go.
	SetTarget(netip.AddrPort)
	// Close releases the port; on return it is free.
	Close() error
	// Retire leaves the port to another process that has its socket, or binds
	// it then, and returns when the connections carried have ended.
	Retire()
}

// Listen serves a reserved port, whose socket it takes over.
func Listen(proto uint8, fd int, target netip.AddrPort) (Forwarder, error) {
	if proto == unix.IPPROTO_UDP {
		return newUDP(fd, target)
	}
	return newTCP(fd, target)
}

// tcp is a listening port.
type tcp struct {
	l      *net.TCPListener
	target atomic.Pointer[netip.AddrPort]
	ctx    context.Context //nolint:containedctx // bounds the goroutines below
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

func newTCP(fd int, target netip.AddrPort) (*tcp, error) {
	f := os.NewFile(uintptr(fd), "port")
	l, err := net.FileListener(f) // works on a duplicate
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	tl, ok := l.(*net.TCPListener)
	if !ok {
		return nil, errors.Join(errors.New("not a TCP socket"), l.Close())
	}
	p := &tcp{l: tl}
	p.target.Store(&target)
	p.ctx, p.cancel = context.WithCancel(context.Background())
	p.wg.Add(1)
	go p.accept()
	return p, nil
}

func (p *tcp) SetTarget(t netip.AddrPort) { p.target.Store(&t) }

// Close stops listening even though the keeper has a duplicate of the socket:
// shutting it down ends it for all who hold it.
func (p *tcp) Close() error {
	p.cancel()
	var err error
	if raw, e := p.l.SyscallConn(); e == nil {
		err = raw.Control(func(fd uintptr) { _ = unix.Shutdown(int(fd), unix.SHUT_RDWR) })
	}
	err = errors.Join(err, p.l.Close())
	p.wg.Wait()
	return err
}

// Retire closes nothing but our descriptor of the socket.
func (p *tcp) Retire() {
	_ = p.l.Close()
	p.wg.Wait()
}

func (p *tcp) accept() {
	defer p.wg.Done()
	for {
		c, err := p.l.AcceptTCP()
		if err != nil {
			if p.ctx.Err() != nil || errors.Is(err, net.ErrClosed) || errors.Is(err, unix.EINVAL) {
				return
			}
			select {
			case <-time.After(100 * time.Millisecond): // out of descriptors
				continue
			case <-p.ctx.Done():
				return
			}
		}
		p.wg.Add(1)
		go func() {
			defer p.wg.Done()
			p.carry(c)
		}()
	}
}

// carry connects two streams until both have ended.
func (p *tcp) carry(c *net.TCPConn) {
	defer c.Close()
	d := net.Dialer{Timeout: dialTimeout}
	out, err := d.DialContext(p.ctx, "tcp", p.target.Load().String())
	if err != nil {
		_ = c.SetLinger(0) // the peer sees a reset, as from a closed port
		return
	}
	to := out.(*net.TCPConn)
	defer to.Close()
	stop := context.AfterFunc(p.ctx, func() {
		_ = c.Close()
		_ = to.Close()
	})
	defer stop()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(to, c) // splices in the kernel
		_ = to.CloseWrite()
	}()
	_, _ = io.Copy(c, to)
	_ = c.CloseWrite()
	<-done
}
