package ipam

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
)

func prefixes(s ...string) (out []netip.Prefix) {
	for _, p := range s {
		out = append(out, netip.MustParsePrefix(p))
	}
	return out
}

func TestSubnet(t *testing.T) {
	small := []Pool{{netip.MustParsePrefix("10.1.0.0/22"), 24}}
	tests := []struct {
		name  string
		pools []Pool
		v6    bool
		used  []netip.Prefix
		want  string // "" for none
	}{
		{name: "first", pools: DefaultPools(), want: "172.17.0.0/16"},
		{name: "after what is used", pools: DefaultPools(), used: prefixes("172.17.0.0/16", "172.18.3.0/24"), want: "172.19.0.0/16"},
		{name: "after a large route", pools: DefaultPools(), used: prefixes("172.16.0.0/12"), want: "192.168.0.0/20"},
		{name: "between small routes", pools: DefaultPools(), used: prefixes("172.16.0.0/12", "192.168.1.7/32", "192.168.17.0/24"), want: "192.168.32.0/20"},
		{name: "last of a pool", pools: small, used: prefixes("10.1.0.0/23", "10.1.2.1/32"), want: "10.1.3.0/24"},
		{name: "full", pools: small, used: prefixes("10.1.0.0/23", "10.1.2.1/32", "10.1.3.255/32")},
		{name: "family", pools: DefaultPools(), v6: true},
		{name: "unique local", pools: []Pool{ULA([5]byte{1, 2, 3, 4, 5})}, v6: true, used: prefixes("fd01:203:405::/64"), want: "fd01:203:405:1::/64"},
		{name: "end of the addresses", pools: []Pool{{netip.MustParsePrefix("255.255.255.0/24"), 25}}, used: prefixes("255.255.255.0/24")},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Subnet(tt.pools, tt.v6, tt.used)
			if tt.want == "" {
				if !errdefs.IsFailedPrecondition(err) {
					t.Fatalf("Subnet = %v, %v; want FailedPrecondition", got, err)
				}
				return
			}
			if err != nil || got.String() != tt.want {
				t.Errorf("Subnet = %v, %v; want %s", got, err, tt.want)
			}
		})
	}
}

func take(t *testing.T, s *Space, n int) (out []string) {
	t.Helper()
	for range n {
		a, err := s.Next()
		if err != nil {
			out = append(out, err.Error())
			continue
		}
		out = append(out, a.String())
	}
	return out
}

func TestSpaceGoesInACircle(t *testing.T) {
	s, err := NewSpace(netip.MustParsePrefix("10.0.0.0/29"), netip.Prefix{})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Take(netip.MustParseAddr("10.0.0.1")); err != nil {
		t.Fatal(err)
	}
	if err := s.Take(netip.MustParseAddr("10.0.0.1")); !errdefs.IsAlreadyExists(err) {
		t.Errorf("second Take = %v, want AlreadyExists", err)
	}
	if err := s.Take(netip.MustParseAddr("10.0.1.1")); !errdefs.IsInvalidArgument(err) {
		t.Errorf("Take outside = %v, want InvalidArgument", err)
	}
	got := take(t, s, 3)
	s.Free(netip.MustParseAddr("10.0.0.2"))
	got = append(got, take(t, s, 4)...)
	want := []string{"10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6", "10.0.0.2", ErrFull.Error()}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if s.Used() != 6 || s.Available() != 0 {
		t.Errorf("used %d, available %d", s.Used(), s.Available())
	}
}

func TestSpaceRanges(t *testing.T) {
	tests := []struct {
		name, subnet, rng string
		want              []string
	}{
		{"range", "10.0.0.0/16", "10.0.5.0/31", []string{"10.0.5.0", "10.0.5.1", ErrFull.Error()}},
		{"range at the start", "10.0.0.0/16", "10.0.0.0/30", []string{"10.0.0.1", "10.0.0.2", "10.0.0.3", ErrFull.Error()}},
		{"point to point", "10.0.0.0/31", "", []string{"10.0.0.0", "10.0.0.1", ErrFull.Error()}},
		{"single", "10.0.0.9/32", "", []string{"10.0.0.9", ErrFull.Error()}},
		{"v6", "fd00::/64", "", []string{"fd00::1", "fd00::2"}},
		{"huge v6", "fd00::/16", "", []string{"fd00::1", "fd00::2"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var rng netip.Prefix
			if tt.rng != "" {
				rng = netip.MustParsePrefix(tt.rng)
			}
			s, err := NewSpace(netip.MustParsePrefix(tt.subnet), rng)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tt.want, take(t, s, len(tt.want))); d != "" {
				t.Error(d)
			}
		})
	}
	if _, err := NewSpace(netip.MustParsePrefix("10.0.0.0/24"), netip.MustParsePrefix("10.0.1.0/25")); !errdefs.IsInvalidArgument(err) {
		t.Errorf("range outside: %v, want InvalidArgument", err)
	}
}

func TestSpaceFull(t *testing.T) {
	s, err := NewSpace(netip.MustParsePrefix("10.0.0.0/16"), netip.Prefix{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 65534 {
		if _, err := s.Next(); err != nil {
			t.Fatalf("address %d: %v", i, err)
		}
	}
	if _, err := s.Next(); !errors.Is(err, ErrFull) {
		t.Fatalf("Next on a full space = %v", err)
	}
	s.Free(netip.MustParseAddr("10.0.200.7"))
	if a, err := s.Next(); err != nil || a.String() != "10.0.200.7" {
		t.Fatalf("Next = %v, %v", a, err)
	}
}

func BenchmarkNextAlmostFull(b *testing.B) {
	s, err := NewSpace(netip.MustParsePrefix("10.0.0.0/16"), netip.Prefix{})
	if err != nil {
		b.Fatal(err)
	}
	for range 65533 {
		if _, err := s.Next(); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		a, err := s.Next()
		if err != nil {
			b.Fatal(err)
		}
		s.Free(a)
	}
}
