package nft

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
)

// sets are the table's sets and maps.
type sets struct {
	bridges, open, internal  *nftables.Set
	closed                   *nftables.Set
	home4, home6             *nftables.Set
	masq4, masq6             *nftables.Set
	dnat4, dnat6, any4, any6 *nftables.Set
}

func newSets(t *nftables.Table) sets {
	pair := nftables.MustConcatSetType(nftables.TypeIFName, nftables.TypeIFName)
	anyPort := nftables.MustConcatSetType(nftables.TypeInetProto, nftables.TypeInetService)
	set := func(name string, key nftables.SetDatatype) *nftables.Set {
		// The byte order tells nft(8) how to show device names.
		return &nftables.Set{Table: t, Name: name, KeyType: key, KeyByteOrder: binaryutil.NativeEndian}
	}
	subnets := func(name string, key nftables.SetDatatype) *nftables.Set {
		return &nftables.Set{Table: t, Name: name, KeyType: key, Interval: true}
	}
	home := func(name string, addr nftables.SetDatatype) *nftables.Set {
		return &nftables.Set{
			Table: t, Name: name, Interval: true, Concatenation: true,
			KeyType: nftables.MustConcatSetType(addr, nftables.TypeIFName),
		}
	}
	target := func(name string, key, addr nftables.SetDatatype) *nftables.Set {
		return &nftables.Set{
			Table: t, Name: name, KeyType: key, IsMap: true,
			DataType: nftables.MustConcatSetType(addr, nftables.TypeInetService),
		}
	}
	at := func(addr nftables.SetDatatype) nftables.SetDatatype {
		return nftables.MustConcatSetType(addr, nftables.TypeInetProto, nftables.TypeInetService)
	}
	return sets{
		bridges:  set("bridges", nftables.TypeIFName),
		open:     set("open", pair),
		closed:   set("closed", nftables.TypeIFName),
		internal: set("internal", nftables.TypeIFName),
		home4:    home("home4", nftables.TypeIPAddr),
		home6:    home("home6", nftables.TypeIP6Addr),
		masq4:    subnets("masq4", nftables.TypeIPAddr),
		masq6:    subnets("masq6", nftables.TypeIP6Addr),
		dnat4:    target("dnat4", at(nftables.TypeIPAddr), nftables.TypeIPAddr),
		dnat6:    target("dnat6", at(nftables.TypeIP6Addr), nftables.TypeIP6Addr),
		any4:     target("any4", anyPort, nftables.TypeIPAddr),
		any6:     target("any6", anyPort, nftables.TypeIP6Addr),
	}
}

// add makes the empty sets.
func (s *sets) add(c *nftables.Conn, o Options) error {
	all := []*nftables.Set{s.bridges, s.open, s.closed, s.internal}
	if o.IPv4 {
		all = append(all, s.home4, s.masq4, s.dnat4, s.any4)
	}
	if o.IPv6 {
		all = append(all, s.home6, s.masq6, s.dnat6, s.any6)
	}
	for _, set := range all {
		if err := c.AddSet(set, nil); err != nil {
			return fmt.Errorf("set %s: %w", set.Name, err)
		}
	}
	return nil
}

// change is SetAddElements or SetDeleteElements of a connection.
type change func(*nftables.Set, []nftables.SetElement) error

// bridge changes the elements of one network.
func (s *sets) bridge(do change, b Bridge, o Options) error {
	name := ifname(b.Device)
	pair := append(ifname(b.Device), name...)
	one := func(key []byte) []nftables.SetElement { return []nftables.SetElement{{Key: key}} }
	if err := do(s.bridges, one(name)); err != nil {
		return err
	}
	talk := s.closed
	key := name
	if b.Open {
		talk, key = s.open, pair
	}
	if err := do(talk, one(key)); err != nil {
		return err
	}
	if b.Internal {
		if err := do(s.internal, one(name)); err != nil {
			return err
		}
	}
	for _, p := range b.Subnets {
		if err := s.subnet(do, b, p, o); err != nil {
			return err
		}
	}
	return nil
}

// subnet changes the elements of one subnet of a network.
func (s *sets) subnet(do change, b Bridge, p netip.Prefix, o Options) error {
	home, masq, on := s.home4, s.masq4, o.IPv4
	if p.Addr().Is6() {
		home, masq, on = s.home6, s.masq6, o.IPv6
	}
	if !on {
		return nil
	}
	name := ifname(b.Device)
	first, last := p.Masked().Addr().AsSlice(), lastOf(p)
	err := do(home, []nftables.SetElement{{Key: append(first, name...), KeyEnd: append(last, name...)}})
	if err != nil || !b.Masquerade {
		return err
	}
	return do(masq, interval(p))
}

// lastOf is the highest address of a prefix.
func lastOf(p netip.Prefix) []byte {
	b := p.Masked().Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	return b
}

func ifname(s string) []byte {
	b := make([]byte, 16)
	copy(b, s)
	return b
}

// interval is a subnet as the two elements that bound it.
func interval(p netip.Prefix) []nftables.SetElement {
	first := p.Masked().Addr().AsSlice()
	end := append([]byte(nil), first...)
	for i, bit := p.Bits()-1, true; i >= 0 && bit; i-- { // add one at the prefix's last bit
		end[i/8] ^= 0x80 >> (i % 8)
		bit = end[i/8]&(0x80>>(i%8)) == 0
	}
	out := []nftables.SetElement{{Key: first}}
	for _, b := range end {
		if b != 0 {
			return append(out, nftables.SetElement{Key: end, IntervalEnd: true})
		}
	}
	return out // up to the last address there is
}

// maxElements bounds the elements of one message.
const maxElements = 500

// ports changes the elements of published ports.
func (s *sets) ports(do change, ports []Port, o Options) error {
	by := map[*nftables.Set][]nftables.SetElement{}
	for _, p := range ports {
		v4 := p.Host.Addr().Is4()
		if (v4 && !o.IPv4) || (!v4 && !o.IPv6) || v4 != p.Target.Addr().Is4() {
			continue
		}
		set := s.any6
		switch {
		case v4 && p.Host.Addr().IsUnspecified():
			set = s.any4
		case v4:
			set = s.dnat4
		case !p.Host.Addr().IsUnspecified():
			set = s.dnat6
		}
		by[set] = append(by[set], element(p))
	}
	for set, elems := range by {
		for len(elems) > 0 {
			n := min(len(elems), maxElements)
			if err := do(set, elems[:n]); err != nil {
				return err
			}
			elems = elems[n:]
		}
	}
	return nil
}

// element is the map element of a port.
func element(p Port) nftables.SetElement {
	var key []byte
	if !p.Host.Addr().IsUnspecified() {
		key = p.Host.Addr().AsSlice()
	}
	key = append(key, p.Proto, 0, 0, 0)
	key = append(binary.BigEndian.AppendUint16(key, p.Host.Port()), 0, 0)
	val := binary.BigEndian.AppendUint16(p.Target.Addr().AsSlice(), p.Target.Port())
	return nftables.SetElement{Key: key, Val: append(val, 0, 0)}
}
