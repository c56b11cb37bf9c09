package nameserver

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"
)

const (
	// inFlight bounds the questions of one sandbox that are being asked elsewhere.
	inFlight = 256
	// maxTCP bounds the connections of one sandbox; idleTCP their silence.
	maxTCP  = 32
	idleTCP = 10 * time.Second
	// Port of name servers.
	defaultPort = 53
	// safeUDP is the length of a datagram that every resolver takes.
	safeUDP = 512
)

// Server is the name service of all sandboxes.
type Server struct {
	Index *Index
	host  hostServers
	port  uint16 // of other servers
}

// NewServer returns a server over an empty index.
func NewServer() *Server { return &Server{Index: NewIndex(), port: defaultPort} }

// Service is the name service of one sandbox. Close ends it.
type Service struct {
	s      *Server
	id     string
	udp    *os.File
	tcp    net.Listener
	cancel context.CancelFunc
	ctx    context.Context //nolint:containedctx // bounds the goroutines below
	slots  chan struct{}
	conns  chan struct{}
	wg     sync.WaitGroup
}

// Serve answers on a bound UDP socket and a listening TCP socket, which it
// takes over.
func (s *Server) Serve(id string, udp, tcp int) (*Service, error) {
	f := os.NewFile(uintptr(tcp), "dns-tcp")
	l, err := net.FileListener(f) // works on a duplicate
	err = errors.Join(err, f.Close(), unix.SetNonblock(udp, true))
	if err != nil {
		return nil, errors.Join(err, unix.Close(udp))
	}
	sv := &Service{
		s: s, id: id, udp: os.NewFile(uintptr(udp), "dns-udp"), tcp: l,
		slots: make(chan struct{}, inFlight), conns: make(chan struct{}, maxTCP),
	}
	sv.ctx, sv.cancel = context.WithCancel(context.Background())
	sv.wg.Add(2)
	go sv.datagrams()
	go sv.connections()
	return sv, nil
}

// Close ends the service and closes its sockets.
func (sv *Service) Close() error {
	sv.cancel()
	err := errors.Join(sv.udp.Close(), sv.tcp.Close())
	sv.wg.Wait()
	return err
}

// datagrams reads questions. A buffer is taken only when there is one.
func (sv *Service) datagrams() {
	defer sv.wg.Done()
	raw, err := sv.udp.SyscallConn()
	if err != nil {
		return
	}
	for {
		var query []byte
		var from unix.Sockaddr
		var failed error
		err := raw.Read(func(fd uintptr) bool {
			buf := buffers.Get().(*[]byte)
			defer buffers.Put(buf)
			n, sa, err := unix.Recvfrom(int(fd), *buf, unix.MSG_DONTWAIT)
			if errors.Is(err, unix.EAGAIN) {
				return false
			}
			if failed = err; err == nil {
				query, from = append([]byte(nil), (*buf)[:n]...), sa
			}
			return true
		})
		if err != nil {
			return // closed
		}
		if failed != nil || from == nil {
			continue // an error of an earlier answer
		}
		sv.datagram(raw.Write, query, from)
	}
}

// datagram answers one question: at once if it is about containers.
func (sv *Service) datagram(write func(func(uintptr) bool) error, query []byte, from unix.Sockaddr) {
	send := func(answer []byte) {
		if answer == nil {
			return
		}
		_ = write(func(fd uintptr) bool {
			return !errors.Is(unix.Sendto(int(fd), answer, unix.MSG_DONTWAIT, from), unix.EAGAIN)
		})
	}
	answer, forward := sv.own(query)
	if !forward {
		send(truncate(answer, safeUDP))
		return
	}
	select {
	case sv.slots <- struct{}{}:
	default:
		send(refuse(query, dnsmessage.RCodeServerFailure)) // too many at once
		return
	}
	sv.wg.Add(1)
	go func() {
		defer sv.wg.Done()
		defer func() { <-sv.slots }()
		send(sv.forward(query, false))
	}()
}

// own answers what needs no other server.
func (sv *Service) own(query []byte) (answer []byte, forward bool) {
	answer, _, err := sv.s.Index.local(sv.id, query)
	switch {
	case err != nil:
		return refuse(query, dnsmessage.RCodeFormatError), false
	case answer != nil:
		return answer, false
	}
	if d, ok := sv.s.Index.dns(sv.id); !ok || d.NoForward {
		return refuse(query, dnsmessage.RCodeNameError), false
	}
	return nil, true
}

// forward asks the sandbox's servers, or those of the host.
func (sv *Service) forward(query []byte, tcp bool) []byte {
	d, _ := sv.s.Index.dns(sv.id)
	var servers []netip.Addr = d.Servers
	if len(servers) == 0 {
		servers = sv.s.host.get()
	}
	if answer := ask(sv.ctx, servers, query, tcp, sv.s.port); answer != nil {
		return answer
	}
	return refuse(query, dnsmessage.RCodeServerFailure)
}

// connections serves TCP.
func (sv *Service) connections() {
	defer sv.wg.Done()
	for {
		c, err := sv.tcp.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			select {
			case <-time.After(100 * time.Millisecond): // out of descriptors
			case <-sv.ctx.Done():
				return
			}
			continue
		}
		select {
		case sv.conns <- struct{}{}:
		default:
			_ = c.Close()
			continue
		}
		sv.wg.Add(1)
		go func() {
			defer sv.wg.Done()
			defer func() { <-sv.conns }()
			sv.connection(c)
		}()
	}
}

func (sv *Service) connection(c net.Conn) {
	defer c.Close()
	stop := context.AfterFunc(sv.ctx, func() { _ = c.Close() })
	defer stop()
	for {
		if err := c.SetDeadline(time.Now().Add(idleTCP)); err != nil {
			return
		}
		query, err := readTCP(c)
		if err != nil {
			return
		}
		answer, forward := sv.own(query)
		if forward {
			answer = sv.forward(query, true)
			_ = c.SetDeadline(time.Now().Add(idleTCP))
		}
		if answer == nil || writeTCP(c, answer) != nil {
			return
		}
	}
}
