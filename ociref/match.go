package ociref

import "strconv"

// Rank tells how well a host of platform p runs images of platform q: 0 is
// best, higher is worse, -1 is not at all. Processors run the variants before
// their own: arm/v7 runs arm/v6, amd64/v3 runs amd64, amd64 runs 386, and
// arm64 runs arm/v8 and below.
func (p Platform) Rank(q Platform) int {
	p, q = p.Normalize(), q.Normalize()
	if p.OS != q.OS || p.OSVersion != "" && q.OSVersion != "" && p.OSVersion != q.OSVersion {
		return -1
	}
	for i, c := range p.runs() {
		if c.Architecture == q.Architecture && c.Variant == q.Variant {
			return i
		}
	}
	return -1
}

// Matches reports whether a host of platform p runs images of platform q.
func (p Platform) Matches(q Platform) bool { return p.Rank(q) >= 0 }

// Equal compares normalized platforms.
func (p Platform) Equal(q Platform) bool { return p.Normalize() == q.Normalize() }

// runs lists the processors a normalized p can run, best first; OS is left out.
func (p Platform) runs() []Platform {
	list := []Platform{{Architecture: p.Architecture, Variant: p.Variant}}
	switch p.Architecture {
	case "amd64":
		for v := number(p.Variant) - 1; v >= 1; v-- {
			list = append(list, Platform{Architecture: "amd64", Variant: variant(v, 1)})
		}
		list = append(list, Platform{Architecture: "386"})
	case "arm":
		list = append(list, olderArm(number(p.Variant))...)
	case "arm64":
		list = append(list, olderArm64(p.Variant)...)
		list = append(list, Platform{Architecture: "arm", Variant: "v8"})
		list = append(list, olderArm(8)...)
	}
	return list
}

func olderArm(n int) []Platform {
	var list []Platform
	for v := n - 1; v >= 5; v-- {
		list = append(list, Platform{Architecture: "arm", Variant: "v" + strconv.Itoa(v)})
	}
	return list
}

// olderArm64 lists what precedes an arm64 variant: v9.n contains v8.(n+5).
func olderArm64(v string) []Platform {
	major, minor := 8, 0
	if v != "" {
		f, err := strconv.ParseFloat(v[1:], 64)
		if err != nil || f < 8 || f >= 10 {
			return nil
		}
		major = int(f)
		if i := len("v8."); len(v) > i {
			minor, _ = strconv.Atoi(v[i:])
		}
	}
	var list []Platform
	add := func(major, from int) {
		for m := from; m >= 0; m-- {
			name := "v" + strconv.Itoa(major)
			if m > 0 {
				name += "." + strconv.Itoa(m)
			} else if major == 8 {
				name = ""
			}
			list = append(list, Platform{Architecture: "arm64", Variant: name})
		}
	}
	minor = min(minor, 9)
	if major == 9 {
		add(9, minor-1)
		add(8, min(minor+5, 9))
		return list
	}
	add(8, minor-1)
	return list
}

// number reads the n of "vn"; 0 if there is none.
func number(v string) int {
	if len(v) < 2 || v[0] != 'v' {
		return 0
	}
	n, err := strconv.Atoi(v[1:])
	if err != nil || n > 16 {
		return 0
	}
	return n
}

// variant writes "vn", or nothing for the architecture's first.
func variant(n, first int) string {
	if n == first {
		return ""
	}
	return "v" + strconv.Itoa(n)
}
