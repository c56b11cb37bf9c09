package nameserver

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/dataplane/wire"
)

func sandbox(id, net, v4, v6 string, names ...string) wire.Sandbox {
	e := wire.Endpoint{Network: "id-" + net, NetworkName: net, Names: names, IPv4: netip.MustParseAddr(v4)}
	if v6 != "" {
		e.IPv6 = netip.MustParseAddr(v6)
	}
	return wire.Sandbox{ID: id, DNS: &wire.DNS{}, Endpoints: []wire.Endpoint{e}}
}

func TestIndex(t *testing.T) {
	x := NewIndex()
	x.Put(sandbox("a", "Front", "10.0.0.2", "fd00::2", "web", "pair"))
	x.Put(sandbox("b", "Front", "10.0.0.3", "", "web2", "pair"))
	x.Put(sandbox("c", "back", "10.1.0.2", "", "web"))
	linked := sandbox("d", "Front", "10.0.0.4", "", "d")
	linked.Endpoints[0].Links = map[string]string{"Alias": "web2"}
	x.Put(linked)
	tests := []struct {
		id, name string
		v6       bool
		want     []string
		known    bool
	}{
		{"b", "web", false, []string{"10.0.0.2"}, true},
		{"b", "web", true, []string{"fd00::2"}, true},
		{"b", "web2", true, nil, true},
		{"b", "pair", false, []string{"10.0.0.2", "10.0.0.3"}, true},
		{"b", "WEB.front", false, []string{"10.0.0.2"}, true},
		{"b", "web.back", false, nil, false},
		{"c", "web", false, []string{"10.1.0.2"}, true},
		{"d", "alias", false, []string{"10.0.0.3"}, true},
		{"b", "alias", false, nil, false},
		{"nobody", "web", false, nil, false},
		{"b", "", false, nil, false},
	}
	check := func() {
		t.Helper()
		for _, tt := range tests {
			addrs, known := x.lookup(tt.id, tt.name, tt.v6)
			var got []string
			for _, a := range addrs {
				got = append(got, a.String())
			}
			slices.Sort(got)
			if d := cmp.Diff(tt.want, got); d != "" || known != tt.known {
				t.Errorf("%s asks for %q: known %v %s", tt.id, tt.name, known, d)
			}
		}
	}
	check()
	x.Put(sandbox("a", "Front", "10.0.0.2", "fd00::2", "web", "pair")) // again
	check()
	if got := x.reverse("b", netip.MustParseAddr("10.0.0.2")); got != "web.Front" {
		t.Errorf("reverse: %q", got)
	}
	if got := x.reverse("b", netip.MustParseAddr("10.1.0.2")); got != "" {
		t.Errorf("reverse in another network: %q", got)
	}
	for _, id := range []string{"a", "b", "c", "d", "never"} {
		x.Drop(id)
	}
	if len(x.networks) != 0 || len(x.sandboxes) != 0 {
		t.Errorf("left: %v %v", x.networks, x.sandboxes)
	}
}

func TestReverseAddr(t *testing.T) {
	for name, want := range map[string]string{
		"2.0.0.10.in-addr.arpa": "10.0.0.2",
		"2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.F.ip6.arpa": "fd00::2",
		"0.10.in-addr.arpa": "", "x.0.0.10.in-addr.arpa": "", "web": "", "ip6.arpa": "",
	} {
		a, ok := reverseAddr(name)
		if ok != (want != "") || ok && a.String() != want {
			t.Errorf("%s: %v %v", name, a, ok)
		}
	}
}

// other is a name server that answers every question with a code, or not at all.
func other(t *testing.T, answer bool, code dnsmessage.RCode) netip.AddrPort {
	t.Helper()
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	go func() {
		buf := make([]byte, 2048)
		for {
			n, from, err := c.ReadFrom(buf)
			if err != nil {
				return
			}
			if answer {
				_, _ = c.WriteTo(refuse(buf[:n], code), from)
			}
		}
	}()
	return netip.MustParseAddrPort(c.LocalAddr().String())
}

func question(t *testing.T, name string) []byte {
	t.Helper()
	m := dnsmessage.Message{Header: dnsmessage.Header{ID: 99, RecursionDesired: true}, Questions: []dnsmessage.Question{{
		Name: dnsmessage.MustNewName(name), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET,
	}}}
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestAsk(t *testing.T) {
	q := question(t, "x.example.")
	nx := other(t, true, dnsmessage.RCodeNameError)
	ctx := context.Background()
	if a, err := askUDP(ctx, nx, q); err != nil || a[3]&0xf != byte(dnsmessage.RCodeNameError) {
		t.Errorf("answer %x, %v", a, err)
	}
	ctx, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	if _, err := askUDP(ctx, other(t, false, 0), q); err == nil {
		t.Error("a silent server answered")
	}
	for name, b := range map[string][]byte{
		"another id":       append([]byte{1, 2}, refuse(q, 0)[2:]...),
		"a question":       q,
		"another question": refuse(question(t, "y.example."), 0),
		"nothing":          nil,
	} {
		if answers(q, b) {
			t.Errorf("%s was taken for an answer", name)
		}
	}
}

func TestTruncate(t *testing.T) {
	x := NewIndex()
	for i := range 60 {
		x.Put(sandbox(string(rune('A'+i)), "n", netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)}).String(), "", "many"))
	}
	a, _, err := x.local("A", question(t, "many."))
	if err != nil {
		t.Fatal(err)
	}
	var full, cut dnsmessage.Message
	if err := full.Unpack(a); err != nil || len(full.Answers) != 60 {
		t.Fatalf("%d answers, %v", len(full.Answers), err)
	}
	if err := cut.Unpack(truncate(a, safeUDP)); err != nil || !cut.Truncated || len(cut.Answers) != 0 {
		t.Errorf("cut: %+v, %v", cut.Header, err)
	}
}

func FuzzLocal(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{0, 99, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 3, 'w', 'e', 'b', 0, 0, 1, 0, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		x := NewIndex()
		x.Put(sandbox("a", "n", "10.0.0.2", "", "web"))
		a, _, err := x.local("a", b)
		if err != nil {
			a = refuse(b, dnsmessage.RCodeFormatError)
		}
		if len(a) > 0 && len(a) < 12 {
			t.Errorf("answer of %d bytes", len(a))
		}
		_ = truncate(a, 20)
	})
}

func TestServiceEnds(t *testing.T) {
	s := NewServer()
	s.Index.Put(sandbox("a", "n", "10.0.0.2", "", "web"))
	udp, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	tcp, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	lo := &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}
	if err := unix.Bind(udp, lo); err != nil {
		t.Fatal(err)
	}
	if err := unix.Bind(tcp, lo); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(tcp, 8); err != nil {
		t.Fatal(err)
	}
	sa, err := unix.Getsockname(udp)
	if err != nil {
		t.Fatal(err)
	}
	sv, err := s.Serve("a", udp, tcp)
	if err != nil {
		t.Fatal(err)
	}
	at := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(sa.(*unix.SockaddrInet4).Port))
	a, err := askUDP(context.Background(), at, question(t, "web."))
	var m dnsmessage.Message
	if err != nil || m.Unpack(a) != nil || len(m.Answers) != 1 {
		t.Errorf("answer %x, %v", a, err)
	}
	if _, err := askUDP(context.Background(), at, []byte("nonsense that is no question")); err == nil {
		t.Error("nonsense was answered with an answer")
	}
	if err := sv.Close(); err != nil {
		t.Error(err)
	}
}
