package rtnl

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

func family(a netip.Addr) byte {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// AddAddr gives a link an address with its prefix. IPv6 addresses are usable
// at once: duplicates were excluded when they were allocated.
func (b *Batch) AddAddr(index int, p netip.Prefix) {
	b.addr("add address "+p.String(), unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, index, p)
}

// DelAddr takes an address from a link.
func (b *Batch) DelAddr(index int, p netip.Prefix) {
	b.addr("delete address "+p.String(), unix.RTM_DELADDR, 0, index, p)
}

func (b *Batch) addr(op string, typ uint16, flags, index int, p netip.Prefix) {
	b.begin(op, typ, flags)
	b.raw(family(p.Addr()), byte(p.Bits()), 0, unix.RT_SCOPE_UNIVERSE)
	b.u32(uint32(index))
	v := p.Addr().AsSlice()
	b.attr(unix.IFA_LOCAL, v)
	b.attr(unix.IFA_ADDRESS, v)
	if p.Addr().Is4() {
		if p.Bits() < 31 {
			b.attr(unix.IFA_BROADCAST, broadcast(p))
		}
		return
	}
	b.attr32(unix.IFA_FLAGS, unix.IFA_F_NODAD)
}

func broadcast(p netip.Prefix) []byte {
	a := p.Addr().As4()
	n := binary.BigEndian.Uint32(a[:]) | (1<<(32-p.Bits()) - 1)
	return binary.BigEndian.AppendUint32(nil, n)
}

// Route is a way to a destination.
type Route struct {
	Dst  netip.Prefix // the zero value means default; its family is that of Via
	Via  netip.Addr   // the zero value means directly connected
	Link int          // index
}

// AddRoute adds or replaces a route.
func (b *Batch) AddRoute(r Route) {
	b.route("add route", unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, r)
}

// DelRoute removes a route.
func (b *Batch) DelRoute(r Route) { b.route("delete route", unix.RTM_DELROUTE, 0, r) }

func (b *Batch) route(op string, typ uint16, flags int, r Route) {
	fam, bits := byte(unix.AF_INET), 0
	if r.Via.IsValid() {
		fam = family(r.Via)
	}
	if r.Dst.IsValid() {
		fam, bits = family(r.Dst.Addr()), r.Dst.Bits()
	}
	scope := byte(unix.RT_SCOPE_UNIVERSE)
	if !r.Via.IsValid() {
		scope = unix.RT_SCOPE_LINK
	}
	b.begin(op, typ, flags)
	b.raw(fam, byte(bits), 0, 0, unix.RT_TABLE_MAIN, unix.RTPROT_BOOT, scope, unix.RTN_UNICAST)
	b.u32(0)
	if bits > 0 {
		b.attr(unix.RTA_DST, r.Dst.Masked().Addr().AsSlice())
	}
	if r.Via.IsValid() {
		b.attr(unix.RTA_GATEWAY, r.Via.AsSlice())
	}
	b.attr32(unix.RTA_OIF, uint32(r.Link))
}

// Prefixes lists the addresses of all links with their prefixes, by link index.
func (c *Conn) Prefixes() (map[int][]netip.Prefix, error) {
	var b Batch
	b.begin("list addresses", unix.RTM_GETADDR, unix.NLM_F_DUMP)
	b.raw(unix.AF_UNSPEC, 0, 0, 0)
	b.u32(0)
	out := map[int][]netip.Prefix{}
	err := c.Dump(&b, func(_ uint16, p []byte) {
		if len(p) < unix.SizeofIfAddrmsg {
			return
		}
		bits, index := int(p[1]), int(binary.NativeEndian.Uint32(p[4:]))
		var local, addr netip.Addr
		attrs(p[unix.SizeofIfAddrmsg:], func(typ uint16, v []byte) {
			switch typ {
			case unix.IFA_LOCAL:
				local, _ = netip.AddrFromSlice(v)
			case unix.IFA_ADDRESS:
				addr, _ = netip.AddrFromSlice(v)
			}
		})
		if !local.IsValid() {
			local = addr
		}
		if local.IsValid() {
			out[index] = append(out[index], netip.PrefixFrom(local, bits))
		}
	})
	return out, err
}

// Destinations lists the routes of the main table, by the index of their
// outgoing link; default routes have a prefix of 0 bits.
func (c *Conn) Destinations() (map[int][]netip.Prefix, error) {
	var b Batch
	b.begin("list routes", unix.RTM_GETROUTE, unix.NLM_F_DUMP)
	b.raw(unix.AF_UNSPEC, 0, 0, 0, 0, 0, 0, 0)
	b.u32(0)
	out := map[int][]netip.Prefix{}
	err := c.Dump(&b, func(_ uint16, p []byte) {
		if len(p) < unix.SizeofRtMsg || p[7] != unix.RTN_UNICAST {
			return
		}
		table, oif := uint32(p[4]), 0
		dst := netip.IPv4Unspecified()
		if p[0] == unix.AF_INET6 {
			dst = netip.IPv6Unspecified()
		}
		attrs(p[unix.SizeofRtMsg:], func(typ uint16, v []byte) {
			switch typ {
			case unix.RTA_DST:
				dst, _ = netip.AddrFromSlice(v)
			case unix.RTA_OIF:
				oif = int(binary.NativeEndian.Uint32(v))
			case unix.RTA_TABLE:
				table = binary.NativeEndian.Uint32(v)
			}
		})
		if table == unix.RT_TABLE_MAIN && dst.IsValid() {
			out[oif] = append(out[oif], netip.PrefixFrom(dst, int(p[1])))
		}
	})
	return out, err
}
