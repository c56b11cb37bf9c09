package ociref

import "strings"

// ValidTag reports whether s can be a tag: up to 128 letters, digits,
// underscores, dots and dashes, not led by a dot or a dash.
func ValidTag(s string) bool {
	if s == "" || len(s) > 128 || s[0] == '.' || s[0] == '-' {
		return false
	}
	for i := range len(s) {
		if c := s[i]; !letter(c) && !digit(c) && c != '_' && c != '.' && c != '-' {
			return false
		}
	}
	return true
}

// validPath checks a repository path: components of lower-case letters and
// digits, parted by single dots, one or two underscores, or any dashes.
func validPath(s string) bool {
	for part := range strings.SplitSeq(s, "/") {
		if !validComponent(part) {
			return false
		}
	}
	return true
}

func validComponent(s string) bool {
	if s == "" || !lower(s[0]) && !digit(s[0]) {
		return false
	}
	last := s[len(s)-1]
	if !lower(last) && !digit(last) {
		return false
	}
	for i := 0; i < len(s); {
		if lower(s[i]) || digit(s[i]) {
			i++
			continue
		}
		j := i
		for j < len(s) && !lower(s[j]) && !digit(s[j]) {
			j++
		}
		if !validSeparator(s[i:j]) {
			return false
		}
		i = j
	}
	return true
}

func validSeparator(s string) bool {
	return s == "." || s == "_" || s == "__" || strings.Trim(s, "-") == ""
}

// validDomain checks a host name, IPv4 address or bracketed IPv6 address with an optional port.
func validDomain(s string) bool {
	if strings.HasPrefix(s, "[") {
		addr, port, ok := strings.Cut(s[1:], "]")
		if !ok || addr == "" {
			return false
		}
		for i := range len(addr) {
			if c := addr[i]; c != ':' && !lowerHex(c) && (c < 'A' || c > 'F') {
				return false
			}
		}
		return port == "" || port[0] == ':' && validPort(port[1:])
	}
	host, port, hasPort := strings.Cut(s, ":")
	if hasPort && !validPort(port) {
		return false
	}
	for label := range strings.SplitSeq(host, ".") {
		if !validLabel(label) {
			return false
		}
	}
	return true
}

func validLabel(s string) bool {
	if s == "" || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for i := range len(s) {
		if c := s[i]; !letter(c) && !digit(c) && c != '-' {
			return false
		}
	}
	return true
}

func validPort(s string) bool {
	for i := range len(s) {
		if !digit(s[i]) {
			return false
		}
	}
	return s != ""
}
