package ociref

import (
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
)

// Digest is a content digest such as "sha256:" and 64 hexadecimal digits.
type Digest string

// ParseDigest checks s and returns it as a digest. InvalidArgument.
func ParseDigest(s string) (Digest, error) {
	d := Digest(s)
	return d, d.Validate()
}

// Algorithm is the part before the colon; "" if there is none.
func (d Digest) Algorithm() string {
	a, _, ok := strings.Cut(string(d), ":")
	if !ok {
		return ""
	}
	return a
}

// Encoded is the part after the colon.
func (d Digest) Encoded() string {
	_, e, _ := strings.Cut(string(d), ":")
	return e
}

// Short is the twelve first digits, as people read them.
func (d Digest) Short() string {
	e := d.Encoded()
	if len(e) > 12 {
		return e[:12]
	}
	return e
}

func (d Digest) String() string { return string(d) }

// Validate reports whether the digest has a supported algorithm and exactly
// its number of lower-case hexadecimal digits. InvalidArgument.
func (d Digest) Validate() error {
	alg, enc, ok := strings.Cut(string(d), ":")
	if !ok || alg == "" || enc == "" || !wellFormedDigest(string(d), 1) {
		return fmt.Errorf("invalid checksum digest format: %w", errdefs.ErrInvalidArgument)
	}
	var want int
	switch alg {
	case "sha256":
		want = 64
	case "sha384":
		want = 96
	case "sha512":
		want = 128
	default:
		return fmt.Errorf("unsupported digest algorithm: %w", errdefs.ErrInvalidArgument)
	}
	if len(enc) != want {
		return fmt.Errorf("invalid checksum digest length: %w", errdefs.ErrInvalidArgument)
	}
	for i := range len(enc) {
		if !lowerHex(enc[i]) {
			return fmt.Errorf("invalid checksum digest format: %w", errdefs.ErrInvalidArgument)
		}
	}
	return nil
}

// IsID reports whether s is a full image identifier: 64 lower-case hexadecimal digits.
func IsID(s string) bool {
	return len(s) == 64 && IsIDPrefix(s)
}

// IsIDPrefix reports whether s could begin an identifier.
func IsIDPrefix(s string) bool {
	if s == "" || len(s) > 64 {
		return false
	}
	for i := range len(s) {
		if !lowerHex(s[i]) {
			return false
		}
	}
	return true
}

// wellFormedDigest checks the grammar of references: an algorithm made of
// letter-led parts, and at least least hexadecimal digits.
func wellFormedDigest(s string, least int) bool {
	alg, enc, ok := strings.Cut(s, ":")
	if !ok || len(enc) < least {
		return false
	}
	start := true
	for i := range len(alg) {
		c := alg[i]
		switch {
		case letter(c):
			start = false
		case start:
			return false
		case c == '-' || c == '_' || c == '+' || c == '.':
			start = true
		case !digit(c):
			return false
		}
	}
	if start {
		return false
	}
	for i := range len(enc) {
		if c := enc[i]; !lowerHex(c) && (c < 'A' || c > 'F') {
			return false
		}
	}
	return true
}

func digit(c byte) bool    { return c >= '0' && c <= '9' }
func lower(c byte) bool    { return c >= 'a' && c <= 'z' }
func letter(c byte) bool   { return lower(c) || c >= 'A' && c <= 'Z' }
func lowerHex(c byte) bool { return digit(c) || c >= 'a' && c <= 'f' }
