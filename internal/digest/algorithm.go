package digest

import (
	"crypto"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
)

// Algorithm is a hash function with its encoding, which is lower-case hex for all
// those that are known.
type Algorithm string

// The algorithms of the specification. A program has those whose package it links.
const (
	SHA256 Algorithm = "sha256"
	SHA384 Algorithm = "sha384"
	SHA512 Algorithm = "sha512"

	// Canonical is the one to use where nobody asks for another.
	Canonical = SHA256
)

// function returns 0 for one that is not known.
func (a Algorithm) function() crypto.Hash {
	switch a {
	case SHA256:
		return crypto.SHA256
	case SHA384:
		return crypto.SHA384
	case SHA512:
		return crypto.SHA512
	}
	return 0
}

// Available tells whether the algorithm is known and linked.
func (a Algorithm) Available() bool { return a.function().Available() }

func (a Algorithm) String() string { return string(a) }

// Size returns the length of a hash in bytes, 0 for an unknown algorithm.
func (a Algorithm) Size() int {
	if f := a.function(); f != 0 {
		return f.Size()
	}
	return 0
}

// Set makes an Algorithm the value of a flag. An empty value is the canonical one.
func (a *Algorithm) Set(value string) error {
	if *a = Algorithm(value); value == "" {
		*a = Canonical
	}
	if !a.Available() {
		return ErrDigestUnsupported
	}
	return nil
}

// Hash returns the function's state. It panics if the algorithm is not available.
func (a Algorithm) Hash() hash.Hash {
	if !a.Available() {
		panic(fmt.Sprintf("digest algorithm %q is not available: to be checked before a hash is asked for", string(a)))
	}
	return a.function().New()
}

// Encode returns a hash as digests have it.
func (a Algorithm) Encode(d []byte) string { return hex.EncodeToString(d) }

// Validate checks what follows the colon of a digest.
func (a Algorithm) Validate(encoded string) error {
	switch size := a.Size(); {
	case size == 0:
		return ErrDigestUnsupported
	case len(encoded) != 2*size:
		return ErrDigestInvalidLength
	}
	for _, c := range []byte(encoded) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return ErrDigestInvalidFormat
		}
	}
	return nil
}

// FromReader returns the digest of all of r. It panics if the algorithm is not available.
func (a Algorithm) FromReader(r io.Reader) (Digest, error) {
	h := a.Hash()
	if _, err := io.Copy(h, r); err != nil {
		return "", err
	}
	return NewDigest(a, h), nil
}

// FromBytes returns the digest of p. It panics if the algorithm is not available.
func (a Algorithm) FromBytes(p []byte) Digest {
	h := a.Hash()
	_, _ = h.Write(p) // never fails, says hash.Hash
	return NewDigest(a, h)
}

// FromString returns the digest of s. It panics if the algorithm is not available.
func (a Algorithm) FromString(s string) Digest { return a.FromBytes([]byte(s)) }

// Digester makes a digest of what is written to its hash.
type Digester interface {
	Hash() hash.Hash
	// Digest is that of everything written so far.
	Digest() Digest
}

type digester struct {
	alg  Algorithm
	hash hash.Hash
}

// Digester returns a new one. It panics if the algorithm is not available.
func (a Algorithm) Digester() Digester { return &digester{a, a.Hash()} }

func (d *digester) Hash() hash.Hash { return d.hash }

func (d *digester) Digest() Digest { return NewDigest(d.alg, d.hash) }
