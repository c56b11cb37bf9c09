package ipam

import (
	"net/netip"
	"testing"

	"github.com/containerd/errdefs"
)

func TestTake(t *testing.T) {
	s, err := New(netip.MustParsePrefix("10.0.0.0/29"), netip.Prefix{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Take(netip.MustParseAddr("10.0.0.1")); err != nil {
		t.Fatal(err)
	}
	a, _ := s.Take(netip.Addr{})
	if a.String() != "10.0.0.2" {
		t.Errorf("first is %s", a)
	}
	s.Free(a)
	if b, _ := s.Take(netip.Addr{}); b.String() != "10.0.0.3" {
		t.Errorf("a freed address was reused at once: %s", b)
	}
	for range 4 {
		if _, err = s.Take(netip.Addr{}); err != nil {
			break
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Take(netip.Addr{}); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("a full subnet: %v", err)
	}
	if _, err := s.Take(netip.MustParseAddr("10.0.0.1")); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("a used address: %v", err)
	}
	if _, err := s.Take(netip.MustParseAddr("10.0.1.1")); !errdefs.IsInvalidArgument(err) {
		t.Errorf("a foreign address: %v", err)
	}
}

func TestRange(t *testing.T) {
	s, err := New(netip.MustParsePrefix("10.0.0.0/16"), netip.MustParsePrefix("10.0.5.0/24"))
	if err != nil {
		t.Fatal(err)
	}
	if a, _ := s.Take(netip.Addr{}); a.String() != "10.0.5.0" {
		t.Errorf("%s is not the first of the range", a)
	}
	for _, bad := range [][2]string{{"10.0.0.0/16", "10.1.0.0/24"}, {"10.0.0.0/24", "10.0.0.0/16"}, {"10.0.0.0/32", "10.0.0.0/32"}} {
		if _, err := New(netip.MustParsePrefix(bad[0]), netip.MustParsePrefix(bad[1])); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%v: %v", bad, err)
		}
	}
}

func TestPick(t *testing.T) {
	pools := DefaultPools()
	var taken []netip.Prefix
	seen := map[netip.Prefix]bool{}
	for range 31 {
		p, err := Pick(pools, false, taken)
		if err != nil {
			t.Fatal(err)
		}
		if seen[p] {
			t.Fatalf("%s twice", p)
		}
		seen[p] = true
		taken = append(taken, p)
	}
	if _, err := Pick(pools, false, taken); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("pools exhausted: %v", err)
	}
	p, _ := Pick(pools, false, []netip.Prefix{netip.MustParsePrefix("172.16.0.0/12"), netip.MustParsePrefix("192.168.1.0/24")})
	if p.String() != "192.168.16.0/20" {
		t.Errorf("behind a host's routes: %s", p)
	}
}

func TestLocalPrefix(t *testing.T) {
	p := LocalPrefix(0x1234567890, 2)
	if p.String() != "fd12:3456:7890:2::/64" {
		t.Errorf("%s", p)
	}
	if Last(netip.MustParsePrefix("10.0.0.0/8")).String() != "10.255.255.255" {
		t.Error("Last")
	}
}
