package store

import (
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wherry-engine/wherry/ociref"
)

func fromSpec(p ocispec.Platform) ociref.Platform {
	return ociref.Platform{OS: p.OS, Architecture: p.Architecture, Variant: p.Variant, OSVersion: p.OSVersion}.Normalize()
}

func toSpec(p ociref.Platform) ocispec.Platform {
	return ocispec.Platform{OS: p.OS, Architecture: p.Architecture, Variant: p.Variant, OSVersion: p.OSVersion}
}

func hostPlatform() ocispec.Platform { return toSpec(ociref.Host()) }

// rank tells how well an image for got runs where want is asked for; -1 is not at all.
func rank(want, got ocispec.Platform) int { return fromSpec(want).Rank(fromSpec(got)) }

func platformText(p ocispec.Platform) string { return fromSpec(p).String() }
