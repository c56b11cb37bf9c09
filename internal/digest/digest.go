// Package digest names content by its hash, as "algorithm:encoded" (image-spec
// v1.1, descriptor.md, "Digests").
//
// It stands in for github.com/opencontainers/go-digest v1.0.0 in this program and
// in the libraries it uses (go.mod replaces that module; see ADR 19), and does
// what its documentation says, but for its regular expressions: compiling those
// took a third of the time in which the command line starts.
package digest

import (
	"errors"
	"fmt"
	"hash"
	"io"
	"strings"
)

var (
	// ErrDigestInvalidFormat is the answer to what does not look like a digest.
	ErrDigestInvalidFormat = errors.New("invalid checksum digest format")
	// ErrDigestInvalidLength is the answer to one of another length than its algorithm's.
	ErrDigestInvalidLength = errors.New("invalid checksum digest length")
	// ErrDigestUnsupported is the answer to an algorithm that is not known or not linked.
	ErrDigestUnsupported = errors.New("unsupported digest algorithm")
)

// Digest is a digest's text. One that came from outside is to be parsed first.
type Digest string

// NewDigest returns the digest of what was written to h.
func NewDigest(alg Algorithm, h hash.Hash) Digest { return NewDigestFromBytes(alg, h.Sum(nil)) }

// NewDigestFromBytes returns the digest whose hash is p.
func NewDigestFromBytes(alg Algorithm, p []byte) Digest {
	return NewDigestFromEncoded(alg, alg.Encode(p))
}

// NewDigestFromHex is NewDigestFromEncoded.
//
// Deprecated: use NewDigestFromEncoded.
func NewDigestFromHex(alg, hex string) Digest { return NewDigestFromEncoded(Algorithm(alg), hex) }

// NewDigestFromEncoded puts a digest together. It checks nothing.
func NewDigestFromEncoded(alg Algorithm, encoded string) Digest {
	return Digest(string(alg) + ":" + encoded)
}

// Parse returns s as a digest, or what Validate has against it.
func Parse(s string) (Digest, error) {
	d := Digest(s)
	return d, d.Validate()
}

// FromReader returns the canonical digest of all of r.
func FromReader(r io.Reader) (Digest, error) { return Canonical.FromReader(r) }

// FromBytes returns the canonical digest of p.
func FromBytes(p []byte) Digest { return Canonical.FromBytes(p) }

// FromString returns the canonical digest of s.
func FromString(s string) Digest { return Canonical.FromString(s) }

// Validate returns nil or one of the errors of this package.
func (d Digest) Validate() error {
	algorithm, encoded, found := strings.Cut(string(d), ":")
	if !found || algorithm == "" || encoded == "" {
		return ErrDigestInvalidFormat
	}
	if alg := Algorithm(algorithm); alg.Available() {
		return alg.Validate(encoded)
	}
	if !isAlgorithm(algorithm) || !isEncoded(encoded) {
		return ErrDigestInvalidFormat
	}
	return ErrDigestUnsupported
}

// isAlgorithm knows the grammar of algorithms, [a-z0-9]+ separated by one of
// ".+_-" each.
func isAlgorithm(s string) bool {
	separated := true
	for _, c := range []byte(s) {
		switch {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9':
			separated = false
		case !separated && strings.IndexByte(".+_-", c) >= 0:
			separated = true
		default:
			return false
		}
	}
	return !separated
}

// isEncoded knows the grammar of what follows the colon, [a-zA-Z0-9=_-]+.
func isEncoded(s string) bool {
	for _, c := range []byte(s) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '=', c == '_', c == '-':
		default:
			return false
		}
	}
	return s != ""
}

// Algorithm returns what stands before the colon. It panics if there is none.
func (d Digest) Algorithm() Algorithm { return Algorithm(d[:d.colon()]) }

// Encoded returns what follows the colon. It panics if there is none.
func (d Digest) Encoded() string { return string(d[d.colon()+1:]) }

// Hex is Encoded.
//
// Deprecated: use Encoded.
func (d Digest) Hex() string { return d.Encoded() }

func (d Digest) String() string { return string(d) }

func (d Digest) colon() int {
	i := strings.IndexByte(string(d), ':')
	if i < 0 {
		panic(fmt.Sprintf("no ':' separator in digest %q", string(d)))
	}
	return i
}

// Verifier compares what is written to it with a digest.
type Verifier interface {
	io.Writer
	// Verified tells whether all that was written so far has the digest.
	Verified() bool
}

type verifier struct {
	hash.Hash
	want Digest
}

// Verifier returns one for d. It panics if d is not valid.
func (d Digest) Verifier() Verifier { return verifier{d.Algorithm().Hash(), d} }

func (v verifier) Verified() bool { return NewDigest(v.want.Algorithm(), v.Hash) == v.want }
