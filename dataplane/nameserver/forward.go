package nameserver

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/wherry-engine/wherry/network/resolv"
)

const (
	// patience is how long one server may take.
	patience = 3 * time.Second
	// hostAge is how long the host's resolv.conf is believed.
	hostAge = 2 * time.Second
	maxMsg  = 65535
)

// hostServers remembers the host's servers for a moment.
type hostServers struct {
	mu   sync.Mutex
	at   time.Time
	list []netip.Addr
}

func (h *hostServers) get() []netip.Addr {
	h.mu.Lock()
	defer h.mu.Unlock()
	if time.Since(h.at) > hostAge {
		h.list, h.at = resolv.Host().Servers, time.Now()
		if len(h.list) == 0 {
			h.list = resolv.Public(false)
		}
	}
	return h.list
}

// ask hands a question to the servers, one after the other, until one answers
// it. A server that is in trouble itself does not count unless all are.
func ask(ctx context.Context, servers []netip.Addr, query []byte, tcp bool, port uint16) []byte {
	var worst []byte
	for _, s := range servers {
		var answer []byte
		var err error
		if tcp {
			answer, err = askTCP(ctx, netip.AddrPortFrom(s, port), query)
		} else {
			answer, err = askUDP(ctx, netip.AddrPortFrom(s, port), query)
		}
		if err != nil {
			continue
		}
		switch dnsmessage.RCode(answer[3] & 0xf) {
		case dnsmessage.RCodeServerFailure, dnsmessage.RCodeRefused, dnsmessage.RCodeNotImplemented:
			worst = answer
			continue
		}
		return answer
	}
	return worst
}

// askUDP uses a socket, and so a random port, of its own for each question.
func askUDP(ctx context.Context, server netip.AddrPort, query []byte) ([]byte, error) {
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(server))
	if err != nil {
		return nil, err
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer stop()
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return nil, err
	}
	if _, err := c.Write(query); err != nil {
		return nil, err
	}
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	for {
		n, err := c.Read(*buf)
		if err != nil {
			return nil, err
		}
		if answers(query, (*buf)[:n]) {
			return append([]byte(nil), (*buf)[:n]...), nil
		}
	}
}

func askTCP(ctx context.Context, server netip.AddrPort, query []byte) ([]byte, error) {
	d := net.Dialer{Timeout: patience}
	c, err := d.DialContext(ctx, "tcp", server.String())
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return nil, err
	}
	if err := writeTCP(c, query); err != nil {
		return nil, err
	}
	answer, err := readTCP(c)
	if err != nil {
		return nil, err
	}
	if !answers(query, answer) {
		return nil, errors.New("the answer is to another question")
	}
	return answer, nil
}

// answers reports whether b is an answer to the question.
func answers(query, b []byte) bool {
	if len(b) < 12 || len(query) < 12 || b[0] != query[0] || b[1] != query[1] || b[2]&0x80 == 0 {
		return false
	}
	var p, r dnsmessage.Parser
	if _, err := p.Start(query); err != nil {
		return false
	}
	if _, err := r.Start(b); err != nil {
		return false
	}
	asked, err := p.Question()
	if err != nil {
		return false
	}
	got, err := r.Question()
	if err != nil { // some servers leave it out when they refuse
		return b[3]&0xf != 0
	}
	return asked.Type == got.Type && asked.Class == got.Class && equalFold(asked.Name, got.Name)
}

func equalFold(a, b dnsmessage.Name) bool {
	if a.Length != b.Length {
		return false
	}
	for i := range a.Length {
		if lower(a.Data[i]) != lower(b.Data[i]) {
			return false
		}
	}
	return true
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

func writeTCP(c io.Writer, msg []byte) error {
	if len(msg) > maxMsg {
		return errors.New("message is too long")
	}
	_, err := c.Write(append(binary.BigEndian.AppendUint16(make([]byte, 0, len(msg)+2), uint16(len(msg))), msg...))
	return err
}

func readTCP(c io.Reader) ([]byte, error) {
	var head [2]byte
	if _, err := io.ReadFull(c, head[:]); err != nil {
		return nil, err
	}
	b := make([]byte, binary.BigEndian.Uint16(head[:]))
	_, err := io.ReadFull(c, b)
	return b, err
}

// buffers for datagrams of any length.
var buffers = sync.Pool{New: func() any { b := make([]byte, maxMsg); return &b }}
