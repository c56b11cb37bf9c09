// Package nft owns the engine's one nftables table: address translation of
// published ports, masquerading, and what may cross from one network to
// another. It writes through netlink and never touches what others own, but
// for tagged accept rules in a foreign FORWARD chain that would drop
// everything (see foreign.go).
//
// # Layout
//
// The rules are the same for any number of networks and containers; what
// differs stands in sets and maps, so that publishing a port is one element:
//
//	bridges            our bridge devices
//	open               (bridge, bridge): networks whose containers may talk to each other
//	closed             bridges whose containers may not
//	internal           bridges without a way out
//	home4, home6       (subnet, bridge): where addresses are at home
//	masq4, masq6       subnets to masquerade
//	dnat4, dnat6       (host address, protocol, port) → (container address, port)
//	any4, any6         (protocol, port) → (container address, port), for every address of the host
package nft

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Bridge is a network as the rules see it.
type Bridge struct {
	Device   string
	Internal bool
	// Open lets its containers talk to each other.
	Open    bool
	Subnets []netip.Prefix
	// Masquerade replaces the subnets' addresses on the way out.
	Masquerade bool
}

// Port is a published port. HostIP is unspecified for all addresses of its family.
type Port struct {
	Proto  uint8 // unix.IPPROTO_TCP, …
	Host   netip.AddrPort
	Target netip.AddrPort
}

// Options of a Table.
type Options struct {
	// Name of the table.
	Name string
	// IPv4, IPv6 tell for which families rules are wanted.
	IPv4, IPv6 bool
}

// Table is the engine's table in the network namespace of the process. It is
// safe for concurrent use; every change is one transaction.
type Table struct {
	o Options
	t *nftables.Table

	mu   sync.Mutex
	conn *nftables.Conn
	sets sets
}

// rcvBuf holds the answers to the largest transaction, in bytes.
const rcvBuf = 4 << 20

// New opens a connection; nothing is written before Reset.
func New(o Options) (*Table, error) {
	t := &Table{o: o, t: &nftables.Table{Name: o.Name, Family: nftables.TableFamilyINet}}
	t.sets = newSets(t.t)
	return t, t.dial()
}

func (t *Table) dial() error {
	c, err := dial()
	if err != nil {
		return err
	}
	t.conn = c
	return nil
}

func dial() (*nftables.Conn, error) {
	c, err := nftables.New(nftables.AsLasting(), nftables.WithSockOptions(func(c *netlink.Conn) error {
		return c.SetReadBuffer(rcvBuf)
	}))
	if err != nil {
		return nil, fmt.Errorf("open nftables connection: %w", err)
	}
	return c, nil
}

// off reports that no rules are wanted at all.
func (t *Table) off() bool { return !t.o.IPv4 && !t.o.IPv6 }

// do sends what fill adds as one transaction.
func (t *Table) do(fill func(c *nftables.Conn) error) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.conn == nil {
		if err := t.dial(); err != nil {
			return err
		}
	}
	err := fill(t.conn)
	if err == nil {
		err = t.conn.Flush()
	}
	if err != nil {
		// What was queued or is still to be answered must not reach the next one.
		_ = t.conn.CloseLasting()
		t.conn = nil
		return fmt.Errorf("nftables: %w", err)
	}
	return nil
}

// Reset replaces the table by one for these networks and ports, in one
// transaction: connections that stand are not disturbed.
func (t *Table) Reset(bridges []Bridge, ports []Port) error {
	if t.off() {
		return t.Remove()
	}
	return t.do(func(c *nftables.Conn) error {
		c.AddTable(t.t) // so that there is one to delete
		c.DelTable(t.t)
		c.AddTable(t.t)
		if err := t.sets.add(c, t.o); err != nil {
			return err
		}
		t.rules(c)
		for _, b := range bridges {
			if err := t.sets.bridge(c.SetAddElements, b, t.o); err != nil {
				return err
			}
		}
		return t.sets.ports(c.SetAddElements, ports, t.o)
	})
}

// AddBridge lets a network take part.
func (t *Table) AddBridge(b Bridge) error {
	if t.off() {
		return nil
	}
	return t.do(func(c *nftables.Conn) error { return t.sets.bridge(c.SetAddElements, b, t.o) })
}

// DelBridge undoes AddBridge.
func (t *Table) DelBridge(b Bridge) error {
	if t.off() {
		return nil
	}
	return t.do(func(c *nftables.Conn) error { return t.sets.bridge(c.SetDeleteElements, b, t.o) })
}

// AddPorts publishes ports.
func (t *Table) AddPorts(ports []Port) error {
	if t.off() || len(ports) == 0 {
		return nil
	}
	return t.do(func(c *nftables.Conn) error { return t.sets.ports(c.SetAddElements, ports, t.o) })
}

// DelPorts undoes AddPorts.
func (t *Table) DelPorts(ports []Port) error {
	if t.off() || len(ports) == 0 {
		return nil
	}
	return t.do(func(c *nftables.Conn) error { return t.sets.ports(c.SetDeleteElements, ports, t.o) })
}

// Missing reports whether the table is gone, as after somebody flushed the ruleset.
func (t *Table) Missing() (bool, error) {
	if t.off() {
		return false, nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.conn == nil {
		if err := t.dial(); err != nil {
			return false, err
		}
	}
	chains, err := t.conn.ListChainsOfTableFamily(nftables.TableFamilyINet)
	if err != nil {
		return false, fmt.Errorf("nftables: list chains: %w", err)
	}
	for _, c := range chains {
		if c.Table.Name == t.o.Name && c.Name == chainForward {
			return false, nil
		}
	}
	return true, nil
}

// Remove deletes the table; it is no error if there is none.
func (t *Table) Remove() error {
	err := t.do(func(c *nftables.Conn) error {
		c.AddTable(t.t)
		c.DelTable(t.t)
		return nil
	})
	if t.off() && errors.Is(err, unix.EOPNOTSUPP) {
		return nil // a kernel without nftables has no table of ours
	}
	return err
}

// Close ends the connection; the table stays.
func (t *Table) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.conn == nil {
		return nil
	}
	c := t.conn
	t.conn = nil
	return c.CloseLasting()
}
