package ipam

import (
	"errors"
	"fmt"
	"math/bits"
	"net/netip"

	"github.com/containerd/errdefs"
)

// ErrFull means that a pool has no free address.
var ErrFull = errors.New("no available addresses")

// Space is the addresses of one subnet. It is not safe for concurrent use.
// Addresses are handed out in a circle, so that one that was released is not
// used again at once. Memory grows with the addresses in use, not with the subnet.
type Space struct {
	subnet netip.Prefix
	lo, hi uint64 // offsets handed out, both included
	next   uint64 // offset to try first
	pages  map[uint64]*page
}

const pageBits = 1024

// page is a stretch of the subnet; full ones are skipped in one step.
type page struct {
	words [pageBits / 64]uint64
	used  int
}

// NewSpace returns the free addresses of subnet, to be handed out from within
// rng, which may be the zero value for the whole subnet.
func NewSpace(subnet, rng netip.Prefix) (*Space, error) {
	subnet = subnet.Masked()
	s := &Space{subnet: subnet, pages: map[uint64]*page{}, hi: maxOffset(subnet)}
	if subnet.Addr().Is4() {
		// The network's own address and the broadcast address, except in the
		// smallest subnets, which have none.
		if subnet.Bits() < 31 {
			s.lo, s.hi = 1, s.hi-1
		}
	} else if subnet.Bits() < 127 {
		s.lo = 1 // the subnet-router anycast address
	}
	if rng.IsValid() {
		rng = rng.Masked()
		if rng.Bits() < subnet.Bits() || !subnet.Contains(rng.Addr()) {
			return nil, fmt.Errorf("allocation range %s is not in subnet %s: %w", rng, subnet, errdefs.ErrInvalidArgument)
		}
		first := s.offset(rng.Addr())
		s.lo, s.hi = max(s.lo, first), min(s.hi, first+maxOffset(rng))
	}
	s.next = s.lo
	return s, nil
}

// maxOffset is the distance of the prefix's last address from its first, at
// most 2^64-1.
func maxOffset(p netip.Prefix) uint64 {
	host := p.Addr().BitLen() - p.Bits()
	if host >= 64 {
		return ^uint64(0)
	}
	return 1<<host - 1
}

// Subnet returns the subnet.
func (s *Space) Subnet() netip.Prefix { return s.subnet }

// offset is the distance from the subnet's first address.
func (s *Space) offset(a netip.Addr) uint64 {
	return low64(a) - low64(s.subnet.Addr())
}

// low64 is the address's last eight bytes.
func low64(a netip.Addr) uint64 {
	b := a.As16()
	if a.Is4() {
		v := a.As4()
		return uint64(v[0])<<24 | uint64(v[1])<<16 | uint64(v[2])<<8 | uint64(v[3])
	}
	var n uint64
	for _, x := range b[8:] {
		n = n<<8 | uint64(x)
	}
	return n
}

// at is the address at an offset.
func (s *Space) at(off uint64) netip.Addr {
	n := low64(s.subnet.Addr()) + off
	if s.subnet.Addr().Is4() {
		return netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
	}
	b := s.subnet.Addr().As16()
	for i := 15; i >= 8; i-- {
		b[i] = byte(n)
		n >>= 8
	}
	return netip.AddrFrom16(b)
}

// Take reserves one address. AlreadyExists if it is in use, InvalidArgument if
// it is not in the subnet.
func (s *Space) Take(a netip.Addr) error {
	if !s.subnet.Contains(a) {
		return fmt.Errorf("invalid address %s: It does not belong to any of this network's subnets: %w", a, errdefs.ErrInvalidArgument)
	}
	off := s.offset(a)
	p := s.page(off / pageBits)
	word, bit := &p.words[off%pageBits/64], uint64(1)<<(off%64)
	if *word&bit != 0 {
		return errdefs.ErrAlreadyExists.WithMessage("Address already in use")
	}
	*word |= bit
	p.used++
	return nil
}

func (s *Space) page(n uint64) *page {
	p := s.pages[n]
	if p == nil {
		p = &page{}
		s.pages[n] = p
	}
	return p
}

// Next reserves the next free address. ErrFull.
func (s *Space) Next() (netip.Addr, error) {
	if s.lo > s.hi {
		return netip.Addr{}, ErrFull
	}
	off, ok := s.find(s.next, s.hi)
	if !ok && s.next > s.lo {
		off, ok = s.find(s.lo, s.next-1)
	}
	if !ok {
		return netip.Addr{}, ErrFull
	}
	p := s.page(off / pageBits)
	p.words[off%pageBits/64] |= 1 << (off % 64)
	p.used++
	s.next = off + 1
	if off == s.hi {
		s.next = s.lo
	}
	return s.at(off), nil
}

// find returns the first free offset in [from, to].
func (s *Space) find(from, to uint64) (uint64, bool) {
	for off := from; ; {
		p := s.pages[off/pageBits]
		if p == nil {
			return off, true
		}
		end := min(off|(pageBits-1), to) // of this page
		if p.used < pageBits {
			if free, ok := p.find(off, end); ok {
				return free, true
			}
		}
		if end == to {
			return 0, false
		}
		off = end + 1
	}
}

// find looks for a free offset in [from, to], which lie in the page.
func (p *page) find(from, to uint64) (uint64, bool) {
	for off := from; off <= to; off = off&^63 + 64 {
		free := ^p.words[off%pageBits/64] &^ (1<<(off%64) - 1)
		if free != 0 {
			found := off&^63 + uint64(bits.TrailingZeros64(free))
			return found, found <= to
		}
		if off|63 == ^uint64(0) {
			break
		}
	}
	return 0, false
}

// Free releases an address; one that is not in use is no error.
func (s *Space) Free(a netip.Addr) {
	if !s.subnet.Contains(a) {
		return
	}
	off := s.offset(a)
	p := s.pages[off/pageBits]
	if p == nil {
		return
	}
	word, bit := &p.words[off%pageBits/64], uint64(1)<<(off%64)
	if *word&bit == 0 {
		return
	}
	*word &^= bit
	if p.used--; p.used == 0 {
		delete(s.pages, off/pageBits)
	}
}

// Used is the number of addresses in use.
func (s *Space) Used() int {
	n := 0
	for _, p := range s.pages {
		n += p.used
	}
	return n
}

// Available is the number of addresses that Next can still give, at most 2^64-1.
func (s *Space) Available() uint64 {
	if s.lo > s.hi {
		return 0
	}
	n := s.hi - s.lo
	if n != ^uint64(0) {
		n++
	}
	for i, p := range s.pages {
		for w, word := range p.words {
			for base := i*pageBits + uint64(w)*64; word != 0; word &= word - 1 {
				if off := base + uint64(bits.TrailingZeros64(word)); off >= s.lo && off <= s.hi {
					n--
				}
			}
		}
	}
	return n
}
