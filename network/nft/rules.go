package nft

import (
	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Registers of 32 bits; a longer value occupies those that follow.
const (
	reg0 = unix.NFT_REG32_00
	reg1 = unix.NFT_REG32_00 + 1
	reg2 = unix.NFT_REG32_00 + 2
	reg4 = unix.NFT_REG32_00 + 4
	reg5 = unix.NFT_REG32_00 + 5
)

const (
	chainForward = "forward"
	// Bits of the connection's state and status.
	ctEstablishedRelated = 2 | 4
	ctDNAT               = 1 << 5
	rtnLocal             = 2
)

// rules adds the chains and their rules.
func (t *Table) rules(c *nftables.Conn) {
	guard := t.chain(c, "guard", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, *nftables.ChainPriorityRaw)
	forward := t.chain(c, chainForward, nftables.ChainTypeFilter, nftables.ChainHookForward, *nftables.ChainPriorityFilter)
	pre := t.chain(c, "prerouting", nftables.ChainTypeNAT, nftables.ChainHookPrerouting, *nftables.ChainPriorityNATDest)
	out := t.chain(c, "output", nftables.ChainTypeNAT, nftables.ChainHookOutput, *nftables.ChainPriorityNATDest)
	post := t.chain(c, "postrouting", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, *nftables.ChainPriorityNATSource)
	publish := c.AddChain(&nftables.Chain{Name: "publish", Table: t.t})

	if t.o.IPv4 {
		// Bridges accept loopback addresses (route_localnet), for the host's own use.
		t.rule(c, guard, family(unix.NFPROTO_IPV4), t.in(t.sets.bridges), daddrLoopback(), verdict(expr.VerdictDrop))
	}
	t.forwardRules(c, forward)
	t.publishRules(c, publish)
	if t.o.IPv4 {
		// A neighbour that sends to 127.0.0.1 must meet the kernel's own refusal.
		t.rule(c, pre, family(unix.NFPROTO_IPV4), notFromLoopback(), daddrLoopback(), verdict(expr.VerdictReturn))
	}
	// Containers that may not talk to each other do so through published ports
	// all the same: the proxy carries that, as no bridge port would let it pass.
	t.rule(c, pre, t.in(t.sets.closed), verdict(expr.VerdictReturn))
	t.rule(c, pre, jump("publish"))
	t.rule(c, out, jump("publish"))
	t.postroutingRules(c, post)
}

// forwardRules decide what crosses the host.
func (t *Table) forwardRules(c *nftables.Conn, ch *nftables.Chain) {
	s := t.sets
	if !t.o.IPv4 {
		t.rule(c, ch, family(unix.NFPROTO_IPV4), verdict(expr.VerdictAccept))
	}
	if !t.o.IPv6 {
		t.rule(c, ch, family(unix.NFPROTO_IPV6), verdict(expr.VerdictAccept))
	}
	t.rule(c, ch, ctBits(expr.CtKeySTATE, ctEstablishedRelated), verdict(expr.VerdictAccept))
	t.rule(c, ch, t.pair(s.open), verdict(expr.VerdictAccept))
	t.rule(c, ch, t.in(s.internal), verdict(expr.VerdictDrop))
	t.rule(c, ch, t.out(s.internal), verdict(expr.VerdictDrop))
	t.rule(c, ch, t.out(s.bridges), ctBits(expr.CtKeySTATUS, ctDNAT), verdict(expr.VerdictAccept))
	// From another network, or from a neighbour who knows a container's address.
	t.rule(c, ch, t.out(s.bridges), verdict(expr.VerdictDrop))
}

// publishRules translate published ports, the more specific first.
func (t *Table) publishRules(c *nftables.Conn, ch *nftables.Chain) {
	s := t.sets
	if t.o.IPv4 {
		t.rule(c, ch, family(unix.NFPROTO_IPV4), daddr(16, 4), l4proto(reg1), dport(reg2), translate(s.dnat4, unix.NFPROTO_IPV4, reg1))
		t.rule(c, ch, family(unix.NFPROTO_IPV4), local(), l4proto(reg0), dport(reg1), translate(s.any4, unix.NFPROTO_IPV4, reg1))
	}
	if t.o.IPv6 {
		t.rule(c, ch, family(unix.NFPROTO_IPV6), daddr(24, 16), l4proto(reg4), dport(reg5), translate(s.dnat6, unix.NFPROTO_IPV6, reg4))
		// ::1 cannot leave the loopback device: that is left to the proxy.
		t.rule(c, ch, family(unix.NFPROTO_IPV6), notToLoopback6(), local(), l4proto(reg0), dport(reg1), translate(s.any6, unix.NFPROTO_IPV6, reg4))
	}
}

// postroutingRules replace source addresses.
func (t *Table) postroutingRules(c *nftables.Conn, ch *nftables.Chain) {
	s := t.sets
	masquerade := []expr.Any{&expr.Masq{}}
	if !t.o.IPv4 {
		t.rule(c, ch, family(unix.NFPROTO_IPV4), verdict(expr.VerdictReturn))
	}
	if !t.o.IPv6 {
		t.rule(c, ch, family(unix.NFPROTO_IPV6), verdict(expr.VerdictReturn))
	}
	// A container that reaches its neighbour, or itself, through a published
	// port: the answer must come back the same way. (The incoming device is not
	// known here where a bridge translates by itself.)
	if t.o.IPv6 {
		t.rule(c, ch, ctBits(expr.CtKeySTATUS, ctDNAT), family(unix.NFPROTO_IPV6), payload(8, 16, reg0), oifname(reg4), lookup(s.home6), masquerade)
	}
	if t.o.IPv4 {
		t.rule(c, ch, ctBits(expr.CtKeySTATUS, ctDNAT), family(unix.NFPROTO_IPV4), payload(12, 4, reg0), oifname(reg1), lookup(s.home4), masquerade)
		t.rule(c, ch, t.out(s.bridges), family(unix.NFPROTO_IPV4), saddrLoopback(), masquerade)
	}
	t.rule(c, ch, t.out(s.bridges), verdict(expr.VerdictReturn))
	if t.o.IPv4 {
		t.rule(c, ch, family(unix.NFPROTO_IPV4), payload(12, 4, reg0), lookup(s.masq4), masquerade)
	}
	if t.o.IPv6 {
		t.rule(c, ch, family(unix.NFPROTO_IPV6), payload(8, 16, reg0), lookup(s.masq6), masquerade)
	}
}

func (t *Table) chain(c *nftables.Conn, name string, typ nftables.ChainType, hook *nftables.ChainHook, prio nftables.ChainPriority) *nftables.Chain {
	accept := nftables.ChainPolicyAccept
	return c.AddChain(&nftables.Chain{Name: name, Table: t.t, Type: typ, Hooknum: hook, Priority: &prio, Policy: &accept})
}

func (t *Table) rule(c *nftables.Conn, ch *nftables.Chain, parts ...[]expr.Any) {
	var all []expr.Any
	for _, p := range parts {
		all = append(all, p...)
	}
	c.AddRule(&nftables.Rule{Table: t.t, Chain: ch, Exprs: all})
}

func (t *Table) in(s *nftables.Set) []expr.Any {
	return append([]expr.Any{&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: reg0}}, lookup(s)...)
}

func (t *Table) out(s *nftables.Set) []expr.Any {
	return append([]expr.Any{&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: reg0}}, lookup(s)...)
}

func (t *Table) pair(s *nftables.Set) []expr.Any {
	return append([]expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: reg0},
		&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: reg4},
	}, lookup(s)...)
}

func lookup(s *nftables.Set) []expr.Any {
	return []expr.Any{&expr.Lookup{SourceRegister: reg0, SetName: s.Name, SetID: s.ID}}
}

// translate looks up the target and sends the connection there; the target's
// port is in the register after its address.
func translate(s *nftables.Set, fam uint32, port uint32) []expr.Any {
	return []expr.Any{
		&expr.Lookup{SourceRegister: reg0, DestRegister: reg0, IsDestRegSet: true, SetName: s.Name, SetID: s.ID},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: fam, RegAddrMin: reg0, RegProtoMin: port},
	}
}

func oifname(reg uint32) []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: reg}}
}

func verdict(k expr.VerdictKind) []expr.Any { return []expr.Any{&expr.Verdict{Kind: k}} }

func jump(chain string) []expr.Any {
	return []expr.Any{&expr.Verdict{Kind: expr.VerdictJump, Chain: chain}}
}

func family(f byte) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: reg0},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg0, Data: []byte{f}},
	}
}

func payload(offset, size, reg uint32) []expr.Any {
	return []expr.Any{&expr.Payload{DestRegister: reg, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: size}}
}

func daddr(offset, size uint32) []expr.Any { return payload(offset, size, reg0) }

func l4proto(reg uint32) []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg}}
}

func dport(reg uint32) []expr.Any {
	return []expr.Any{&expr.Payload{DestRegister: reg, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2}}
}

// local: the destination is one of the host's addresses.
func local() []expr.Any {
	return []expr.Any{
		&expr.Fib{Register: reg0, FlagDADDR: true, ResultADDRTYPE: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg0, Data: binaryutil.NativeEndian.PutUint32(rtnLocal)},
	}
}

func ctBits(key expr.CtKey, bits uint32) []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: key, Register: reg0},
		&expr.Bitwise{
			SourceRegister: reg0, DestRegister: reg0, Len: 4,
			Mask: binaryutil.NativeEndian.PutUint32(bits), Xor: make([]byte, 4),
		},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: reg0, Data: make([]byte, 4)},
	}
}

func daddrLoopback() []expr.Any { return loopback(16) }
func saddrLoopback() []expr.Any { return loopback(12) }

// loopback: the address at the offset is in 127.0.0.0/8.
func loopback(offset uint32) []expr.Any {
	return append(payload(offset, 1, reg0), &expr.Cmp{Op: expr.CmpOpEq, Register: reg0, Data: []byte{127}})
}

func notFromLoopback() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: reg0},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: reg0, Data: ifname("lo")},
	}
}

func notToLoopback6() []expr.Any {
	one := make([]byte, 16)
	one[15] = 1
	return append(payload(24, 16, reg0), &expr.Cmp{Op: expr.CmpOpNeq, Register: reg0, Data: one})
}
