package ociref

import (
	"fmt"
	"runtime"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
)

// Platform is an operating system and a processor. Variant is that of the
// processor: "v7" for arm, "v3" for amd64.
type Platform struct {
	OS           string
	Architecture string
	Variant      string
	OSVersion    string
}

// ParsePlatform reads "os", "arch", "os/arch" or "os/arch/variant" and
// normalizes it; what is left out is the host's. InvalidArgument.
func ParsePlatform(s string) (Platform, error) {
	if s == "" {
		return Platform{}, fmt.Errorf("platform specifier is empty: %w", errdefs.ErrInvalidArgument)
	}
	parts := strings.Split(s, "/")
	for i, part := range parts {
		name, version, err := splitOSVersion(part, i == 0)
		if err != nil || !validPlatformPart(name) {
			return Platform{}, fmt.Errorf("%q is an invalid component of %q: platform specifier component must be letters, digits, dots, dashes or underscores: %w", part, s, errdefs.ErrInvalidArgument)
		}
		_ = version
	}
	switch len(parts) {
	case 1:
		return parseOnePart(s)
	case 2, 3:
		os, version, _ := splitOSVersion(parts[0], true)
		p := Platform{OS: os, OSVersion: version, Architecture: parts[1]}
		if len(parts) == 3 {
			p.Variant = parts[2]
		}
		return p.Normalize(), nil
	}
	return Platform{}, fmt.Errorf("%q: cannot parse platform specifier: %w", s, errdefs.ErrInvalidArgument)
}

func parseOnePart(s string) (Platform, error) {
	name, version, _ := splitOSVersion(s, true)
	if p := (Platform{OS: name}).Normalize(); knownOS(p.OS) {
		p = Host()
		if n := (Platform{OS: name}).Normalize().OS; n != p.OS {
			p.OS, p.Variant = n, ""
		}
		p.OSVersion = version
		return p, nil
	}
	p := Platform{OS: runtime.GOOS, Architecture: s}.Normalize()
	if knownArch(p.Architecture) {
		return p, nil
	}
	return Platform{}, fmt.Errorf("%q: unknown operating system or architecture: %w", s, errdefs.ErrInvalidArgument)
}

// splitOSVersion parts "windows(10.0.17763)".
func splitOSVersion(s string, allowed bool) (name, version string, err error) {
	name, rest, ok := strings.Cut(s, "(")
	if !ok {
		return s, "", nil
	}
	version, tail, closed := strings.Cut(rest, ")")
	if !allowed || !closed || tail != "" || !validPlatformPart(version) {
		return "", "", errdefs.ErrInvalidArgument
	}
	return name, version, nil
}

func validPlatformPart(s string) bool {
	for i := range len(s) {
		if c := s[i]; !letter(c) && !digit(c) && c != '_' && c != '-' && c != '.' {
			return false
		}
	}
	return s != ""
}

// Host is the platform of this machine.
func Host() Platform {
	return Platform{OS: runtime.GOOS, Architecture: runtime.GOARCH}.Normalize()
}

// String is "os/arch" or "os/arch/variant".
func (p Platform) String() string {
	if p.OS == "" {
		return "unknown"
	}
	os := p.OS
	if p.OSVersion != "" {
		os += "(" + p.OSVersion + ")"
	}
	return strings.Join(slices.DeleteFunc([]string{os, p.Architecture, p.Variant}, func(s string) bool { return s == "" }), "/")
}

// Normalize turns common spellings into the canonical ones and removes the
// variants that are the architecture's default.
func (p Platform) Normalize() Platform {
	p.OS = strings.ToLower(p.OS)
	switch p.OS {
	case "":
		p.OS = runtime.GOOS
	case "macos":
		p.OS = "darwin"
	}
	p.Architecture, p.Variant = normalizeArch(strings.ToLower(p.Architecture), strings.ToLower(p.Variant))
	return p
}

func normalizeArch(arch, variant string) (string, string) {
	switch arch {
	case "i386":
		return "386", ""
	case "x86_64", "x86-64", "amd64":
		if variant == "v1" {
			variant = ""
		}
		return "amd64", variant
	case "aarch64", "arm64":
		switch variant {
		case "8", "v8", "v8.0":
			variant = ""
		case "9", "9.0", "v9.0":
			variant = "v9"
		}
		return "arm64", variant
	case "armhf":
		return "arm", "v7"
	case "armel":
		return "arm", "v6"
	case "arm":
		switch variant {
		case "", "7":
			variant = "v7"
		case "5", "6", "8":
			variant = "v" + variant
		}
	}
	return arch, variant
}

func knownOS(s string) bool {
	switch s {
	case "aix", "android", "darwin", "dragonfly", "freebsd", "hurd", "illumos", "ios", "js",
		"linux", "nacl", "netbsd", "openbsd", "plan9", "solaris", "windows", "zos":
		return true
	}
	return false
}

func knownArch(s string) bool {
	switch s {
	case "386", "amd64", "arm", "armbe", "arm64", "arm64be", "loong64", "mips", "mipsle", "mips64",
		"mips64le", "ppc", "ppc64", "ppc64le", "riscv", "riscv64", "s390", "s390x", "sparc", "sparc64", "wasm":
		return true
	}
	return false
}
