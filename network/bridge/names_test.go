package bridge

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	apinetwork "github.com/moby/moby/api/types/network"
	"golang.org/x/net/dns/dnsmessage"

	"github.com/wherry-engine/wherry/network"
	"github.com/wherry-engine/wherry/network/netns"
)

func (h *host) network(name string, change func(*apinetwork.CreateRequest)) {
	h.t.Helper()
	req := apinetwork.CreateRequest{Name: name}
	if change != nil {
		change(&req)
	}
	_, err := h.m.Create(context.Background(), req)
	check(h.t, err)
	h.t.Cleanup(func() {
		if err := h.m.Delete(context.Background(), name); err != nil {
			h.t.Errorf("delete network: %v", err)
		}
	})
}

// ask puts a question to the container's name server: the answers in order, or
// the response's code.
func ask(ns *os.File, proto, name string, t dnsmessage.Type) (out []string, err error) {
	m := dnsmessage.Message{Header: dnsmessage.Header{ID: 7, RecursionDesired: true}, Questions: []dnsmessage.Question{
		{Name: dnsmessage.MustNewName(name + "."), Type: t, Class: dnsmessage.ClassINET},
	}}
	q, err := m.Pack()
	if err != nil {
		return nil, err
	}
	var answer []byte
	err = netns.Do(ns, func() error {
		c, err := net.DialTimeout(proto, "127.0.0.11:53", time.Second)
		if err != nil {
			return err
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(20 * time.Second))
		if proto == "tcp" {
			_, err = c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(q))), q...))
		} else {
			_, err = c.Write(q)
		}
		if err != nil {
			return err
		}
		if proto == "tcp" {
			var head [2]byte
			if _, err := io.ReadFull(c, head[:]); err != nil {
				return err
			}
			answer = make([]byte, binary.BigEndian.Uint16(head[:]))
			_, err = io.ReadFull(c, answer)
			return err
		}
		answer = make([]byte, 4096)
		n, err := c.Read(answer)
		answer = answer[:n]
		return err
	})
	if err != nil {
		return nil, err
	}
	var r dnsmessage.Message
	if err := r.Unpack(answer); err != nil {
		return nil, err
	}
	if r.ID != 7 || !r.Response {
		return nil, errors.New("not an answer")
	}
	if r.RCode != dnsmessage.RCodeSuccess {
		return []string{r.RCode.String()}, nil
	}
	for _, a := range r.Answers {
		switch b := a.Body.(type) {
		case *dnsmessage.AResource:
			out = append(out, netip.AddrFrom4(b.A).String())
		case *dnsmessage.AAAAResource:
			out = append(out, netip.AddrFrom16(b.AAAA).String())
		case *dnsmessage.PTRResource:
			out = append(out, b.PTR.String())
		}
	}
	slices.Sort(out)
	return out, nil
}

// upstream is a name server in the neighbour that knows one name.
func upstream(t *testing.T, ns *os.File) {
	t.Helper()
	reply := func(q []byte) []byte {
		var m dnsmessage.Message
		if m.Unpack(q) != nil {
			return nil
		}
		m.Response = true
		if m.Questions[0].Name.String() == "outside.example." {
			m.Answers = []dnsmessage.Resource{{
				Header: dnsmessage.ResourceHeader{Name: m.Questions[0].Name, Class: dnsmessage.ClassINET, TTL: 1},
				Body:   &dnsmessage.AResource{A: [4]byte{203, 0, 113, 9}},
			}}
		} else {
			m.RCode = dnsmessage.RCodeNameError
		}
		b, _ := m.Pack()
		return b
	}
	var pc net.PacketConn
	var l net.Listener
	check(t, netns.Do(ns, func() (err error) {
		if pc, err = net.ListenPacket("udp", nextAddr+":53"); err == nil {
			l, err = net.Listen("tcp", nextAddr+":53")
		}
		return err
	}))
	t.Cleanup(func() { _ = pc.Close(); _ = l.Close() })
	go func() {
		buf := make([]byte, 4096)
		for {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = pc.WriteTo(reply(buf[:n]), from)
		}
	}()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			var head [2]byte
			if _, err := io.ReadFull(c, head[:]); err == nil {
				q := make([]byte, binary.BigEndian.Uint16(head[:]))
				_, _ = io.ReadFull(c, q)
				a := reply(q)
				_, _ = c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(a))), a...))
			}
			_ = c.Close()
		}
	}()
}

func yes() *bool { v := true; return &v }

func TestNames(t *testing.T) {
	h := newHost(t, nil)
	upstream(t, h.next)
	h.network("front", func(r *apinetwork.CreateRequest) { r.EnableIPv6 = yes() })
	h.network("back", func(r *apinetwork.CreateRequest) { r.Internal = true })
	with := func(name string, aliases ...string) network.EndpointRequest {
		return network.EndpointRequest{Network: name, Settings: &apinetwork.EndpointSettings{Aliases: aliases}}
	}
	dns := network.DNS{Servers: []netip.Addr{netip.MustParseAddr("192.0.2.77"), netip.MustParseAddr(nextAddr)}}
	dns.Servers = dns.Servers[1:]
	web := h.open(network.SandboxRequest{ContainerName: "web", Endpoints: []network.EndpointRequest{with("front", "www", "pair")}, DNS: dns})
	web2 := h.open(network.SandboxRequest{ContainerName: "web2", Endpoints: []network.EndpointRequest{with("front", "pair"), with("back")}, DNS: dns})
	db := h.open(network.SandboxRequest{ContainerName: "db", Endpoints: []network.EndpointRequest{with("back", "store")}, DNS: dns})
	// The container may have port 53 for itself.
	serveUDP(t, web.ns, "0.0.0.0:53")
	both := []string{web.ip().String(), web2.ip().String()}
	slices.Sort(both)
	rev := func(a netip.Addr) string {
		b := a.As4()
		return netip.AddrFrom4([4]byte{b[3], b[2], b[1], b[0]}).String() + ".in-addr.arpa"
	}
	tests := []struct {
		name, proto string
		from        box
		ask         string
		typ         dnsmessage.Type
		want        []string
	}{
		{"name", "udp", web2, "web", dnsmessage.TypeA, []string{web.ip().String()}},
		{"name in capitals", "udp", web2, "WEB", dnsmessage.TypeA, []string{web.ip().String()}},
		{"name over tcp", "tcp", web2, "web", dnsmessage.TypeA, []string{web.ip().String()}},
		{"alias", "udp", web2, "www", dnsmessage.TypeA, []string{web.ip().String()}},
		{"shared alias", "udp", web2, "pair", dnsmessage.TypeA, both},
		{"short id", "udp", web2, string(web.ID)[:12], dnsmessage.TypeA, []string{web.ip().String()}},
		{"with network", "udp", web2, "web.front", dnsmessage.TypeA, []string{web.ip().String()}},
		{"of the other network", "udp", web, "db", dnsmessage.TypeA, []string{"RCodeNameError"}},
		{"in both networks", "udp", web2, "store", dnsmessage.TypeA, []string{db.ip().String()}},
		{"v6", "udp", web2, "web", dnsmessage.TypeAAAA, []string{web.ip6().String()}},
		{"no v6", "udp", web2, "db", dnsmessage.TypeAAAA, nil},
		{"other type", "udp", web2, "web", dnsmessage.TypeMX, nil},
		{"reverse", "udp", web2, rev(web.ip()), dnsmessage.TypePTR, []string{"web.front."}},
		{"outside", "udp", web, "outside.example", dnsmessage.TypeA, []string{"203.0.113.9"}},
		{"outside over tcp", "tcp", web, "outside.example", dnsmessage.TypeA, []string{"203.0.113.9"}},
		{"unknown", "udp", web, "nowhere.example", dnsmessage.TypeA, []string{"RCodeNameError"}},
		{"internal does not forward", "udp", db, "outside.example", dnsmessage.TypeA, []string{"RCodeNameError"}},
	}
	run := func(t *testing.T) {
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				got, err := ask(tt.from.ns, tt.proto, tt.ask, tt.typ)
				if err != nil {
					t.Fatal(err)
				}
				if d := cmp.Diff(tt.want, got); d != "" {
					t.Error(d)
				}
			})
		}
	}
	run(t)
	if c := string(web.ResolvConf); !strings.Contains(c, "nameserver 127.0.0.11\n") || !strings.Contains(c, "options ndots:0\n") {
		t.Errorf("resolv.conf:\n%s", c)
	}
	check(t, h.sb.Rename(context.Background(), web.ID, "site"))
	if got, err := ask(web2.ns, "udp", "site", dnsmessage.TypeA); err != nil || !slices.Equal(got, []string{web.ip().String()}) {
		t.Errorf("after rename: %v, %v", got, err)
	}
	check(t, h.sb.Rename(context.Background(), web.ID, "web"))
	t.Run("after the daemon died", func(t *testing.T) {
		h.restart(map[network.SandboxID]*os.File{web.ID: web.ns, web2.ID: web2.ns, db.ID: db.ns})
		run(t)
	})
	t.Run("after helper and keeper died", func(t *testing.T) {
		h.stop()
		check(t, os.RemoveAll(h.o.ExecRoot+"/net"))
		h.helper()
		h.restart(map[network.SandboxID]*os.File{web.ID: web.ns, web2.ID: web2.ns, db.ID: db.ns})
		run(t)
	})
}
