package rtnl

import (
	"encoding/binary"
	"net"
	"strings"

	"golang.org/x/sys/unix"
)

// Attributes of a bridge port and a veth pair that x/sys does not name.
const (
	brportHairpin  = 4
	brportIsolated = 33
	vethPeer       = 1
	addrGenNone    = 1 // IN6_ADDR_GEN_MODE_NONE
	inet6GenMode   = 8 // IFLA_INET6_ADDR_GEN_MODE
)

// LinkChange says what to change of a link; zero fields stay.
type LinkChange struct {
	Name    string
	MTU     int
	Address net.HardwareAddr
	Alias   string
	Master  int // index of the bridge
	Up      bool
	Down    bool
}

// Link is what LinkByName and Links tell.
type Link struct {
	Index  int
	Name   string
	Kind   string // "bridge", "veth", …
	Alias  string
	Master int
	Up     bool
	MTU    int
	// Address is the hardware address.
	Address net.HardwareAddr
}

// AddVeth makes a pair: one end here, its peer in the namespace peerNS (a
// descriptor). The end here is up, and makes itself no IPv6 link-local address.
func (b *Batch) AddVeth(name, alias, peer string, peerNS, mtu int) {
	b.begin("add veth "+name, unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL)
	b.ifinfo(unix.AF_UNSPEC, 0, 0, 0)
	b.attrString(unix.IFLA_IFNAME, name)
	b.vethEnd(mtu)
	b.nest(unix.IFLA_LINKINFO, func() {
		b.attr(unix.IFLA_INFO_KIND, []byte("veth"))
		b.nest(unix.IFLA_INFO_DATA, func() {
			b.nest(vethPeer, func() {
				b.ifinfo(unix.AF_UNSPEC, 0, 0, 0)
				b.attrString(unix.IFLA_IFNAME, peer)
				b.vethEnd(mtu)
				b.attr32(unix.IFLA_NET_NS_FD, uint32(peerNS))
			})
		})
	})
	b.begin("set up veth "+name, unix.RTM_NEWLINK, 0)
	b.ifinfo(unix.AF_UNSPEC, 0, 0, 0)
	b.attrString(unix.IFLA_IFNAME, name)
	b.attrString(unix.IFLA_IFALIAS, alias)
	b.noLinkLocal()
	b.Up(name)
}

// vethEnd is what both ends have in common. The driver uses one queue in any
// case; unless told so, it makes one for each processor and takes all others back,
// which waits twice for all processors (synchronize_net).
func (b *Batch) vethEnd(mtu int) {
	if mtu > 0 {
		b.attr32(unix.IFLA_MTU, uint32(mtu))
	}
	b.attr32(unix.IFLA_NUM_TX_QUEUES, 1)
	b.attr32(unix.IFLA_NUM_RX_QUEUES, 1)
}

// Up turns a link on.
func (b *Batch) Up(name string) {
	b.begin("turn on link "+name, unix.RTM_NEWLINK, 0)
	b.ifinfo(unix.AF_UNSPEC, 0, unix.IFF_UP, unix.IFF_UP)
	b.attrString(unix.IFLA_IFNAME, name)
}

// noLinkLocal keeps the link from making IPv6 addresses of its own.
func (b *Batch) noLinkLocal() {
	b.nest(unix.IFLA_AF_SPEC, func() {
		b.nest(unix.AF_INET6, func() { b.attr(inet6GenMode, []byte{addrGenNone}) })
	})
}

// AddBridge makes a bridge.
func (b *Batch) AddBridge(name, alias string, mac net.HardwareAddr, mtu int) {
	b.begin("add bridge "+name, unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL)
	b.ifinfo(unix.AF_UNSPEC, 0, 0, 0)
	b.attrString(unix.IFLA_IFNAME, name)
	b.attr(unix.IFLA_ADDRESS, mac)
	if mtu > 0 {
		b.attr32(unix.IFLA_MTU, uint32(mtu))
	}
	b.nest(unix.IFLA_LINKINFO, func() { b.attr(unix.IFLA_INFO_KIND, []byte("bridge")) })
	if alias != "" {
		b.begin("name bridge "+name, unix.RTM_NEWLINK, 0)
		b.ifinfo(unix.AF_UNSPEC, 0, 0, 0)
		b.attrString(unix.IFLA_IFNAME, name)
		b.attrString(unix.IFLA_IFALIAS, alias)
	}
}

// AddDummy makes a dummy link.
func (b *Batch) AddDummy(name string) {
	b.begin("add dummy "+name, unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL)
	b.ifinfo(unix.AF_UNSPEC, 0, 0, 0)
	b.attrString(unix.IFLA_IFNAME, name)
	b.nest(unix.IFLA_LINKINFO, func() { b.attr(unix.IFLA_INFO_KIND, []byte("dummy")) })
}

// SetLink changes a link.
func (b *Batch) SetLink(index int, c LinkChange) {
	b.begin("set link "+c.Name, unix.RTM_SETLINK, 0)
	var flags, mask uint32
	if c.Up || c.Down {
		mask = unix.IFF_UP
	}
	if c.Up {
		flags = unix.IFF_UP
	}
	b.ifinfo(unix.AF_UNSPEC, index, flags, mask)
	if c.Name != "" {
		b.attrString(unix.IFLA_IFNAME, c.Name)
	}
	if c.MTU > 0 {
		b.attr32(unix.IFLA_MTU, uint32(c.MTU))
	}
	if len(c.Address) > 0 {
		b.attr(unix.IFLA_ADDRESS, c.Address)
	}
	if c.Alias != "" {
		b.attrString(unix.IFLA_IFALIAS, c.Alias)
	}
	if c.Master > 0 {
		b.attr32(unix.IFLA_MASTER, uint32(c.Master))
	}
}

// SetPort changes a bridge port: hairpin lets a frame leave where it came in,
// isolated keeps it from other isolated ports.
func (b *Batch) SetPort(index int, hairpin, isolated bool) {
	b.begin("set bridge port", unix.RTM_NEWLINK, 0)
	b.ifinfo(unix.AF_UNSPEC, index, 0, 0)
	b.nest(unix.IFLA_LINKINFO, func() {
		b.attr(unix.IFLA_INFO_SLAVE_KIND, []byte("bridge"))
		b.nest(unix.IFLA_INFO_SLAVE_DATA, func() {
			b.attr(brportHairpin, []byte{boolByte(hairpin)})
			b.attr(brportIsolated, []byte{boolByte(isolated)})
		})
	})
}

// DelLink removes a link.
func (b *Batch) DelLink(index int) {
	b.begin("delete link", unix.RTM_DELLINK, 0)
	b.ifinfo(unix.AF_UNSPEC, index, 0, 0)
}

// DelLinkByName removes a link.
func (b *Batch) DelLinkByName(name string) {
	b.begin("delete link "+name, unix.RTM_DELLINK, 0)
	b.ifinfo(unix.AF_UNSPEC, 0, 0, 0)
	b.attrString(unix.IFLA_IFNAME, name)
}

// SetGroup puts a link into a group of links.
func (b *Batch) SetGroup(name string, group uint32) {
	b.begin("set group of link "+name, unix.RTM_NEWLINK, 0)
	b.ifinfo(unix.AF_UNSPEC, 0, 0, 0)
	b.attrString(unix.IFLA_IFNAME, name)
	b.attr32(unix.IFLA_GROUP, group)
}

// DelGroup removes all links of a group at once, which costs the kernel hardly
// more than one of them.
func (b *Batch) DelGroup(group uint32) {
	b.begin("delete link group", unix.RTM_DELLINK, 0)
	b.ifinfo(unix.AF_UNSPEC, 0, 0, 0)
	b.attr32(unix.IFLA_GROUP, group)
}

func boolByte(v bool) byte {
	if v {
		return 1
	}
	return 0
}

// LinkByName finds a link; the error is ENODEV if there is none.
func (c *Conn) LinkByName(name string) (Link, error) {
	var b Batch
	return c.Ask(&b, name)
}

// Ask does what is in the batch and then finds a link, all in one message to
// the kernel. Being asked makes the kernel notice that a link has a carrier,
// which it does some time later otherwise: until then a bridge port does not
// forward, and packets vanish. (Since Linux 6.8; before that it has no effect.)
func (c *Conn) Ask(b *Batch, name string) (Link, error) {
	b.begin("find link "+name, unix.RTM_GETLINK, 0)
	b.ifinfo(unix.AF_UNSPEC, 0, 0, 0)
	b.attrString(unix.IFLA_IFNAME, name)
	var l Link
	err := c.Dump(b, func(_ uint16, p []byte) { l = parseLink(p) })
	return l, err
}

// Links lists all links.
func (c *Conn) Links() ([]Link, error) {
	var b Batch
	b.begin("list links", unix.RTM_GETLINK, unix.NLM_F_DUMP)
	b.ifinfo(unix.AF_UNSPEC, 0, 0, 0)
	var out []Link
	err := c.Dump(&b, func(_ uint16, p []byte) { out = append(out, parseLink(p)) })
	return out, err
}

func parseLink(p []byte) Link {
	if len(p) < unix.SizeofIfInfomsg {
		return Link{}
	}
	l := Link{
		Index: int(int32(binary.NativeEndian.Uint32(p[4:]))),
		Up:    binary.NativeEndian.Uint32(p[8:])&unix.IFF_UP != 0,
	}
	attrs(p[unix.SizeofIfInfomsg:], func(typ uint16, v []byte) {
		switch typ {
		case unix.IFLA_IFNAME:
			l.Name = text(v)
		case unix.IFLA_IFALIAS:
			l.Alias = text(v)
		case unix.IFLA_MTU:
			l.MTU = int(binary.NativeEndian.Uint32(v))
		case unix.IFLA_MASTER:
			l.Master = int(binary.NativeEndian.Uint32(v))
		case unix.IFLA_ADDRESS:
			l.Address = append(net.HardwareAddr(nil), v...)
		case unix.IFLA_LINKINFO:
			attrs(v, func(typ uint16, v []byte) {
				if typ == unix.IFLA_INFO_KIND {
					l.Kind = text(v)
				}
			})
		}
	})
	return l
}

// attrs calls fn for each attribute.
func attrs(p []byte, fn func(typ uint16, v []byte)) {
	for len(p) >= 4 {
		n := int(binary.NativeEndian.Uint16(p))
		if n < 4 || n > len(p) {
			return
		}
		fn(binary.NativeEndian.Uint16(p[2:])&^unix.NLA_F_NESTED, p[4:n])
		p = p[min(align(n), len(p)):]
	}
}

func text(v []byte) string {
	s, _, _ := strings.Cut(string(v), "\x00")
	return s
}
