// Package conntrack makes the kernel forget flows whose translation changed.
package conntrack

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Flow is every flow to a port of the host.
type Flow struct {
	Proto uint8
	Port  uint16
	V6    bool
}

type filter map[Flow]bool

// MatchConntrackFlow implements netlink.CustomConntrackFilter.
func (f filter) MatchConntrackFlow(c *netlink.ConntrackFlow) bool {
	return f[Flow{c.Forward.Protocol, c.Forward.DstPort, c.FamilyType == unix.AF_INET6}]
}

// Forget removes the flows from the tables of the process's namespace.
func Forget(flows []Flow) error {
	f := filter{}
	families := map[netlink.InetFamily]bool{}
	for _, x := range flows {
		f[x] = true
		family := netlink.InetFamily(unix.AF_INET)
		if x.V6 {
			family = unix.AF_INET6
		}
		families[family] = true
	}
	var errs []error
	for family := range families {
		if _, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, family, f); err != nil {
			errs = append(errs, fmt.Errorf("conntrack: %w", err))
		}
	}
	return errors.Join(errs...)
}
