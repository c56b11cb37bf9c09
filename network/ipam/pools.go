// Package ipam allocates subnets and addresses. It owns no state on disk and
// asks the kernel nothing: what is in use is told to it.
package ipam

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/containerd/errdefs"
)

// Pool is a range from which subnets of Size bits are taken.
type Pool struct {
	Base netip.Prefix
	Size int // prefix length of the subnets
}

// DefaultPools are Docker's: 172.17.0.0/16 to 172.31.0.0/16, then the /20s of
// 192.168.0.0/16.
func DefaultPools() []Pool {
	var out []Pool
	for i := byte(17); i < 32; i++ {
		out = append(out, Pool{netip.PrefixFrom(netip.AddrFrom4([4]byte{172, i, 0, 0}), 16), 16})
	}
	return append(out, Pool{netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 168, 0, 0}), 16), 20})
}

// ULA returns the unique local pool of an instance, fdxx:xxxx:xxxx::/48 in
// subnets of 64 bits, from five bytes of its identity.
func ULA(id [5]byte) Pool {
	a := [16]byte{0: 0xfd}
	copy(a[1:], id[:])
	return Pool{netip.PrefixFrom(netip.AddrFrom16(a), 48), 64}
}

// CheckPools refuses pools that cannot be used. InvalidArgument.
func CheckPools(pools []Pool) error {
	for _, p := range pools {
		if !p.Base.IsValid() || p.Size < p.Base.Bits() || p.Size > p.Base.Addr().BitLen() || p.Size == 0 {
			return fmt.Errorf("invalid pools size: %d of base %s: %w", p.Size, p.Base, errdefs.ErrInvalidArgument)
		}
	}
	return nil
}

// Subnet chooses the first subnet of the pools' family that overlaps none of
// those in use, which may have any length. FailedPrecondition if there is none.
func Subnet(pools []Pool, v6 bool, used []netip.Prefix) (netip.Prefix, error) {
	taken := index(used, v6)
	for _, p := range pools {
		if p.Base.Addr().Is4() == v6 {
			continue
		}
		if s, ok := taken.free(p); ok {
			return s, nil
		}
	}
	return netip.Prefix{}, errdefs.ErrFailedPrecondition.WithMessage("all predefined address pools have been fully subnetted")
}

// ranges is a sorted list of address ranges that do not overlap.
type ranges []span

type span struct{ first, last netip.Addr }

// index sorts the prefixes of one family and drops those inside others.
func index(used []netip.Prefix, v6 bool) ranges {
	var r ranges
	for _, p := range used {
		if p.IsValid() && p.Addr().Is4() != v6 {
			r = append(r, span{p.Masked().Addr(), last(p)})
		}
	}
	slices.SortFunc(r, func(a, b span) int {
		if c := a.first.Compare(b.first); c != 0 {
			return c
		}
		return b.last.Compare(a.last)
	})
	out := r[:0]
	for _, s := range r {
		if n := len(out); n == 0 || out[n-1].last.Less(s.last) {
			out = append(out, s)
		}
	}
	return out
}

// free finds a subnet of the pool, jumping over what is in use.
func (r ranges) free(p Pool) (netip.Prefix, bool) {
	base := p.Base.Masked()
	at := base.Addr()
	for base.Contains(at) {
		s := netip.PrefixFrom(at, p.Size)
		end := last(s)
		i, _ := slices.BinarySearchFunc(r, at, func(x span, a netip.Addr) int { return x.last.Compare(a) })
		if i == len(r) || end.Less(r[i].first) {
			return s, true
		}
		// The next subnet after the one that is in the way.
		beyond := r[i].last
		if beyond.Less(end) {
			beyond = end
		}
		at = last(netip.PrefixFrom(beyond, p.Size).Masked()).Next()
		if !at.IsValid() {
			break
		}
	}
	return netip.Prefix{}, false
}

// last is the highest address of a prefix.
func last(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}
