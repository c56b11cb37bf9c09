package ociref

import (
	"testing"

	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestParsePlatform(t *testing.T) {
	for in, want := range map[string]string{
		"linux/amd64": "linux/amd64", "linux/x86_64": "linux/amd64", "linux/arm/7": "linux/arm/v7", "linux/arm": "linux/arm/v7",
		"linux/aarch64/v8": "linux/arm64", "arm64": "linux/arm64", "Linux/ARMHF": "linux/arm/v7", "linux/amd64/v3": "linux/amd64/v3",
		"windows(10.0.1)/amd64": "windows(10.0.1)/amd64", "macos/arm64": "darwin/arm64",
	} {
		got, err := ParsePlatform(in)
		if err != nil || got.String() != want {
			t.Errorf("%q: %q, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "bogus", "linux/amd64/v1/x", "linux/", "/amd64", "li nux/amd64", "linux/am(d)64"} {
		if p, err := ParsePlatform(in); err == nil {
			t.Errorf("%q: accepted as %v", in, p)
		}
	}
}

// TestRank compares the order with containerd's.
func TestRank(t *testing.T) {
	all := []Platform{}
	for _, s := range []string{"linux/amd64", "linux/amd64/v2", "linux/amd64/v3", "linux/386", "linux/arm/v5", "linux/arm/v6", "linux/arm/v7", "linux/arm/v8",
		"linux/arm64", "linux/arm64/v8.2", "linux/arm64/v9", "linux/arm64/v9.1", "linux/arm64/v8.5", "linux/riscv64", "windows/amd64"} {
		p, err := ParsePlatform(s)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	spec := func(p Platform) ocispec.Platform {
		return ocispec.Platform{OS: p.OS, Architecture: p.Architecture, Variant: p.Variant}
	}
	for _, host := range all {
		m := platforms.Only(spec(host))
		for _, q := range all {
			if got, want := host.Matches(q), m.Match(spec(q)); got != want {
				t.Errorf("%v runs %v: %v, want %v", host, q, got, want)
			}
			for _, r := range all {
				if host.Matches(q) && host.Matches(r) && q != r {
					if got, want := host.Rank(q) < host.Rank(r), m.Less(spec(q), spec(r)); got != want {
						t.Errorf("on %v: %v before %v: %v, want %v", host, q, r, got, want)
					}
				}
			}
		}
	}
}

func FuzzParsePlatform(f *testing.F) {
	for _, s := range []string{"linux/amd64", "arm", "windows(1)/x", "linux/arm/7"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := ParsePlatform(s)
		if err != nil {
			return
		}
		again, err := ParsePlatform(p.String())
		if err != nil || again != p {
			t.Fatalf("%q: %v does not survive: %v, %v", s, p, again, err)
		}
	})
}
