// Package ipam gives out subnets and addresses. It holds them in memory only;
// the network manager persists networks and rebuilds the rest from the
// sandboxes that live.
package ipam

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/containerd/errdefs"
)

// Subnet gives out the addresses of one prefix. Addresses are not reused at
// once: the search goes on where it ended, so that a peer's stale cache does
// not reach the wrong container. Not safe for concurrent use.
type Subnet struct {
	prefix netip.Prefix
	pool   netip.Prefix // the part that addresses come from
	next   netip.Addr
	used   map[netip.Addr]struct{}
}

// New returns the allocator of prefix. pool, if valid, limits the addresses
// chosen by it; addresses asked for may be anywhere in prefix. InvalidArgument.
func New(prefix, pool netip.Prefix) (*Subnet, error) {
	if !prefix.IsValid() || prefix.Bits() > prefix.Addr().BitLen()-1 {
		return nil, fmt.Errorf("invalid subnet %s: %w", prefix, errdefs.ErrInvalidArgument)
	}
	prefix = prefix.Masked()
	if !pool.IsValid() {
		pool = prefix
	}
	pool = pool.Masked()
	if !prefix.Contains(pool.Addr()) || pool.Bits() < prefix.Bits() {
		return nil, fmt.Errorf("invalid ip-range %s: it is not inside the subnet %s: %w", pool, prefix, errdefs.ErrInvalidArgument)
	}
	s := &Subnet{prefix: prefix, pool: pool, next: pool.Addr(), used: map[netip.Addr]struct{}{}}
	if prefix.Bits() < prefix.Addr().BitLen()-1 { // RFC 3021: a /31 has neither
		s.used[prefix.Addr()] = struct{}{}
		if prefix.Addr().Is4() {
			s.used[Last(prefix)] = struct{}{}
		}
	}
	return s, nil
}

// Prefix of the subnet.
func (s *Subnet) Prefix() netip.Prefix { return s.prefix }

// Take reserves an address: want if it is valid, the next free one otherwise.
// InvalidArgument if want is outside, FailedPrecondition if it is in use or
// none is left.
func (s *Subnet) Take(want netip.Addr) (netip.Addr, error) {
	if want.IsValid() {
		if !s.prefix.Contains(want) {
			return want, fmt.Errorf("no configured subnet contains IP address %s: %w", want, errdefs.ErrInvalidArgument)
		}
		if _, ok := s.used[want]; ok {
			return want, fmt.Errorf("Address already in use: %s: %w", want, errdefs.ErrFailedPrecondition) //nolint:staticcheck // Docker's words
		}
		s.used[want] = struct{}{}
		return want, nil
	}
	first := s.next
	for a := first; ; {
		following := a.Next()
		if !following.IsValid() || !s.pool.Contains(following) {
			following = s.pool.Addr()
		}
		if _, ok := s.used[a]; !ok {
			s.used[a], s.next = struct{}{}, following
			return a, nil
		}
		if a = following; a == first {
			return netip.Addr{}, fmt.Errorf("no available IPv%d addresses on the network's address pool %s: %w", family(s.pool), s.pool, errdefs.ErrFailedPrecondition)
		}
	}
}

func family(p netip.Prefix) int {
	if p.Addr().Is4() {
		return 4
	}
	return 6
}

// Free gives an address back; one that is not in use is ignored.
func (s *Subnet) Free(a netip.Addr) { delete(s.used, a) }

// Used counts the addresses in use, the network's own included.
func (s *Subnet) Used() int { return len(s.used) }

// Last address of a prefix.
func Last(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// Pool is a range that subnets of a size are cut from.
type Pool struct {
	Base netip.Prefix
	Size int // prefix length of each subnet
}

// DefaultPools are Docker's: 172.17.0.0/16 … 172.31.0.0/16, then
// 192.168.0.0/16 in /20s.
func DefaultPools() []Pool {
	pools := []Pool{
		{netip.MustParsePrefix("172.17.0.0/16"), 16},
		{netip.MustParsePrefix("172.18.0.0/15"), 16},
		{netip.MustParsePrefix("172.20.0.0/14"), 16},
		{netip.MustParsePrefix("172.24.0.0/14"), 16},
		{netip.MustParsePrefix("172.28.0.0/14"), 16},
		{netip.MustParsePrefix("192.168.0.0/16"), 20},
	}
	return pools
}

// maxSubnets bounds the search in one pool.
const maxSubnets = 1 << 16

// Pick returns the first subnet of pools, of IPv4 or IPv6, that overlaps none
// of taken. FailedPrecondition if there is none.
func Pick(pools []Pool, v6 bool, taken []netip.Prefix) (netip.Prefix, error) {
	for _, p := range pools {
		if p.Base.Addr().Is4() == v6 {
			continue
		}
		cand := netip.PrefixFrom(p.Base.Masked().Addr(), p.Size)
		for range maxSubnets {
			hit, ok := overlapping(cand, taken)
			if !ok {
				return cand, nil
			}
			// Go on behind whichever is larger.
			if hit.Bits() > cand.Bits() {
				hit = cand
			}
			after := Last(hit).Next()
			if !after.IsValid() || !p.Base.Contains(after) {
				break
			}
			cand = netip.PrefixFrom(after, p.Size).Masked()
		}
	}
	return netip.Prefix{}, fmt.Errorf("all predefined address pools have been fully subnetted: %w", errdefs.ErrFailedPrecondition)
}

func overlapping(p netip.Prefix, taken []netip.Prefix) (netip.Prefix, bool) {
	for _, t := range taken {
		if t.IsValid() && t.Bits() > 0 && p.Overlaps(t) {
			return t, true
		}
	}
	return netip.Prefix{}, false
}

// LocalPrefix returns a /64 of the machine's own ULA range (RFC 4193) for the
// n-th network; seed is 40 bits that differ between machines.
func LocalPrefix(seed uint64, n uint16) netip.Prefix {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:], 0xfd<<56|seed&(1<<40-1)<<16|uint64(n))
	return netip.PrefixFrom(netip.AddrFrom16(b), 64)
}
