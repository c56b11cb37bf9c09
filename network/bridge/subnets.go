package bridge

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"

	"github.com/containerd/errdefs"
	apinetwork "github.com/moby/moby/api/types/network"

	"github.com/wherry-engine/wherry/network/ipam"
	"github.com/wherry-engine/wherry/network/resolv"
)

// chooseSubnets checks the subnets asked for and chooses those that are missing.
func (m *Manager) chooseSubnets(r *record, want *apinetwork.IPAM) error {
	r.IPAM = apinetwork.IPAM{Driver: "default", Config: []apinetwork.IPAMConfig{}}
	var have4, have6 bool
	if want != nil {
		r.IPAM.Options = want.Options
		for _, c := range want.Config {
			c, use, err := r.given(c)
			if err != nil {
				return err
			}
			if !use {
				continue
			}
			if err := m.overlaps(r, c.Subnet); err != nil {
				return err
			}
			have4, have6 = have4 || c.Subnet.Addr().Is4(), have6 || c.Subnet.Addr().Is6()
			r.IPAM.Config = append(r.IPAM.Config, c)
		}
	}
	for _, f := range []struct{ want, v6 bool }{{r.EnableIPv4 && !have4, false}, {r.EnableIPv6 && !have6, true}} {
		if !f.want {
			continue
		}
		p, err := m.freeSubnet(f.v6, r)
		if err != nil {
			return err
		}
		r.IPAM.Config = append(r.IPAM.Config, apinetwork.IPAMConfig{Subnet: p})
	}
	return r.gateways()
}

// given checks one subnet that was asked for; use tells whether it counts.
func (r *record) given(c apinetwork.IPAMConfig) (_ apinetwork.IPAMConfig, use bool, err error) {
	if !c.Subnet.IsValid() {
		if c.IPRange.IsValid() || c.Gateway.IsValid() || len(c.AuxAddress) > 0 {
			return c, false, errdefs.ErrInvalidArgument.WithMessage("invalid network config: a subnet is needed for a gateway, an ip-range or auxiliary addresses")
		}
		return c, false, nil
	}
	if v6 := c.Subnet.Addr().Is6(); v6 && !r.EnableIPv6 || !v6 && !r.EnableIPv4 {
		return c, false, nil // as Docker: a subnet of a family that is off is not used
	}
	if c.Subnet.Masked() != c.Subnet {
		return c, false, errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("invalid network config:\ninvalid subnet %s: it should be %s", c.Subnet, c.Subnet.Masked()))
	}
	if size := c.Subnet.Addr().BitLen() - c.Subnet.Bits(); size < 1 || c.Subnet.Bits() == 0 {
		return c, false, errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("invalid subnet %s: it has no room for a network", c.Subnet))
	}
	for what, a := range addresses(c) {
		if a.IsValid() && !c.Subnet.Contains(a) {
			return c, false, errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("invalid network config:\ninvalid %s %s: parent subnet %s doesn't contain this address", what, a, c.Subnet))
		}
	}
	return c, true, nil
}

func addresses(c apinetwork.IPAMConfig) map[string]netip.Addr {
	out := map[string]netip.Addr{"gateway": c.Gateway}
	if c.IPRange.IsValid() {
		out["ip-range"] = c.IPRange.Addr()
	}
	for name, a := range c.AuxAddress {
		out["auxiliary address "+name] = a
	}
	return out
}

// gateways chooses the bridge's own address in each subnet that names none.
func (r *record) gateways() error {
	for i, c := range r.IPAM.Config {
		if c.Gateway.IsValid() {
			continue
		}
		rng := netip.Prefix{}
		if c.IPRange.IsValid() {
			rng = c.IPRange
		}
		s, err := ipam.NewSpace(c.Subnet, rng)
		if err != nil {
			return err
		}
		for _, a := range c.AuxAddress {
			if err := s.Take(a); err != nil {
				return fmt.Errorf("auxiliary address %s: %w", a, err)
			}
		}
		if r.IPAM.Config[i].Gateway, err = s.Next(); err != nil {
			return fmt.Errorf("subnet %s: %w: %w", c.Subnet, err, errdefs.ErrInvalidArgument)
		}
	}
	return nil
}

// overlaps refuses a subnet that another network has. FailedPrecondition.
func (m *Manager) overlaps(r *record, p netip.Prefix) error {
	const text = "invalid pool request: Pool overlaps with other one on this address space"
	for _, c := range r.IPAM.Config {
		if c.Subnet.Overlaps(p) {
			return errdefs.ErrFailedPrecondition.WithMessage(text)
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, other := range m.networks {
		for _, c := range other.IPAM.Config {
			if other.ID != r.ID && c.Subnet.Overlaps(p) {
				return errdefs.ErrFailedPrecondition.WithMessage(text)
			}
		}
	}
	return nil
}

// freeSubnet chooses a subnet that nothing on the machine uses.
func (m *Manager) freeSubnet(v6 bool, r *record) (netip.Prefix, error) {
	used, err := m.taken()
	if err != nil {
		return netip.Prefix{}, err
	}
	for _, c := range r.IPAM.Config {
		used = append(used, c.Subnet)
	}
	pools := m.o.Pools
	if v6 {
		pools = append(slices.Clone(pools), ipam.ULA(m.machine()))
	}
	return ipam.Subnet(pools, v6, used)
}

// taken lists what a new subnet must not touch: our networks, the machine's
// addresses, routes and name servers.
func (m *Manager) taken() ([]netip.Prefix, error) {
	routes, err1 := m.nl.Destinations()
	addrs, err2 := m.nl.Prefixes()
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	var out []netip.Prefix
	for _, list := range []map[int][]netip.Prefix{routes, addrs} {
		for _, ps := range list {
			out = append(out, ps...)
		}
	}
	for _, s := range resolv.Host().Servers {
		s = s.WithZone("")
		out = append(out, netip.PrefixFrom(s, s.BitLen()))
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, n := range m.networks {
		for _, c := range n.IPAM.Config {
			out = append(out, c.Subnet)
		}
	}
	return slices.DeleteFunc(out, func(p netip.Prefix) bool { return !p.IsValid() || p.Bits() == 0 }), nil
}

// machine is 40 bits that differ between daemons and stay the same for one.
func (m *Manager) machine() (id [5]byte) {
	seed, err := os.ReadFile("/etc/machine-id")
	if err != nil || len(seed) == 0 {
		name, _ := os.Hostname()
		seed = []byte(name)
	}
	sum := sha256.Sum256(append(seed, m.o.ExecRoot...))
	copy(id[:], sum[:])
	return id
}
