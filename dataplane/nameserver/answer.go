package nameserver

import (
	"net/netip"
	"strconv"
	"strings"

	"golang.org/x/net/dns/dnsmessage"
)

// ttl of our answers, in seconds, as Docker's.
const ttl = 600

// local answers a question about containers. nil: the question is not ours.
func (x *Index) local(id string, query []byte) (answer []byte, q dnsmessage.Question, err error) {
	var p dnsmessage.Parser
	h, err := p.Start(query)
	if err != nil {
		return nil, q, err
	}
	if q, err = p.Question(); err != nil {
		return nil, q, err
	}
	if h.Response || h.OpCode != 0 {
		return reply(h, &q, dnsmessage.RCodeNotImplemented, nil), q, nil
	}
	if q.Class != dnsmessage.ClassINET {
		return nil, q, nil
	}
	name := strings.TrimSuffix(q.Name.String(), ".")
	switch q.Type {
	case dnsmessage.TypePTR:
		a, ok := reverseAddr(name)
		if !ok {
			return nil, q, nil
		}
		target := x.reverse(id, a)
		if target == "" {
			return nil, q, nil
		}
		n, err := dnsmessage.NewName(target + ".")
		if err != nil {
			return nil, q, nil
		}
		return reply(h, &q, dnsmessage.RCodeSuccess, []dnsmessage.ResourceBody{&dnsmessage.PTRResource{PTR: n}}), q, nil
	default:
		addrs, known := x.lookup(id, name, q.Type == dnsmessage.TypeAAAA)
		if !known {
			return nil, q, nil
		}
		// A name of ours is nobody else's: what it does not have is not asked for elsewhere.
		return reply(h, &q, dnsmessage.RCodeSuccess, records(q.Type, addrs)), q, nil
	}
}

func records(t dnsmessage.Type, addrs []netip.Addr) (out []dnsmessage.ResourceBody) {
	for _, a := range addrs {
		switch {
		case t == dnsmessage.TypeA || t == dnsmessage.TypeALL:
			out = append(out, &dnsmessage.AResource{A: a.As4()})
		case t == dnsmessage.TypeAAAA:
			out = append(out, &dnsmessage.AAAAResource{AAAA: a.As16()})
		}
	}
	return out
}

// reply builds an answer to a question.
func reply(h dnsmessage.Header, q *dnsmessage.Question, code dnsmessage.RCode, bodies []dnsmessage.ResourceBody) []byte {
	m := dnsmessage.Message{Header: dnsmessage.Header{
		ID: h.ID, Response: true, OpCode: h.OpCode, RecursionDesired: h.RecursionDesired, RecursionAvailable: true, RCode: code,
	}}
	if q != nil {
		m.Questions = []dnsmessage.Question{*q}
		for _, b := range bodies {
			m.Answers = append(m.Answers, dnsmessage.Resource{
				Header: dnsmessage.ResourceHeader{Name: q.Name, Class: dnsmessage.ClassINET, TTL: ttl}, Body: b,
			})
		}
	}
	b, err := m.Pack()
	if err != nil {
		return nil
	}
	return b
}

// refuse answers a question with nothing but a code.
func refuse(query []byte, code dnsmessage.RCode) []byte {
	var p dnsmessage.Parser
	h, err := p.Start(query)
	if err != nil {
		return nil
	}
	q, err := p.Question()
	if err != nil {
		return reply(h, nil, dnsmessage.RCodeFormatError, nil)
	}
	return reply(h, &q, code, nil)
}

// truncate cuts an answer that is too long for a datagram.
func truncate(answer []byte, limit int) []byte {
	if len(answer) <= limit {
		return answer
	}
	var p dnsmessage.Parser
	h, err := p.Start(answer)
	if err != nil {
		return answer
	}
	q, err := p.Question()
	if err != nil {
		return answer
	}
	h.Truncated = true
	m := dnsmessage.Message{Header: h, Questions: []dnsmessage.Question{q}}
	b, err := m.Pack()
	if err != nil {
		return answer
	}
	return b
}

// reverseAddr is the address that a name below in-addr.arpa or ip6.arpa stands for.
func reverseAddr(name string) (netip.Addr, bool) {
	name = strings.ToLower(name)
	if rest, ok := strings.CutSuffix(name, ".in-addr.arpa"); ok {
		f := strings.Split(rest, ".")
		if len(f) != 4 {
			return netip.Addr{}, false
		}
		a, err := netip.ParseAddr(f[3] + "." + f[2] + "." + f[1] + "." + f[0])
		return a, err == nil
	}
	rest, ok := strings.CutSuffix(name, ".ip6.arpa")
	f := strings.Split(rest, ".")
	if !ok || len(f) != 32 {
		return netip.Addr{}, false
	}
	var b [16]byte
	for i, d := range f {
		n, err := strconv.ParseUint(d, 16, 4)
		if err != nil {
			return netip.Addr{}, false
		}
		b[15-i/2] |= byte(n) << (4 * (i % 2))
	}
	return netip.AddrFrom16(b), true
}
