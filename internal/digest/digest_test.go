package digest

import (
	_ "crypto/sha256"
	_ "crypto/sha512"
	"errors"
	"strings"
	"testing"
)

// Test vectors: FIPS 180-4 examples, of "abc".
const (
	abc256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
	abc512 = "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f"
	abc384 = "cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed8086072ba1e7cc2358baeca134c825a7"
)

func TestFrom(t *testing.T) {
	for alg, hex := range map[Algorithm]string{SHA256: abc256, SHA384: abc384, SHA512: abc512} {
		want := Digest(string(alg) + ":" + hex)
		read, err := alg.FromReader(strings.NewReader("abc"))
		if err != nil || read != want || alg.FromString("abc") != want || alg.Size()*2 != len(hex) {
			t.Errorf("%s: %s, %v", alg, read, err)
		}
		d := alg.Digester()
		_, _ = d.Hash().Write([]byte("abc"))
		if got, err := Parse(d.Digest().String()); err != nil || got != want || got.Encoded() != hex || got.Algorithm() != alg {
			t.Errorf("%s: %s, %v", alg, got, err)
		}
		v := want.Verifier()
		_, _ = v.Write([]byte("ab"))
		if v.Verified() {
			t.Errorf("%s: verified by a part", alg)
		}
		if _, _ = v.Write([]byte("c")); !v.Verified() {
			t.Errorf("%s: not verified", alg)
		}
	}
	if FromString("abc") != SHA256.FromBytes([]byte("abc")) {
		t.Error("the canonical algorithm is another")
	}
}

func TestParse(t *testing.T) {
	for s, want := range map[string]error{
		"sha256:" + abc256:                          nil,
		"sha512:" + abc512:                          nil,
		"sha256:" + abc256[1:]:                      ErrDigestInvalidLength,
		"sha256:" + strings.ToUpper(abc256):         ErrDigestInvalidFormat,
		"sha256:" + abc256[:63] + "\n":              ErrDigestInvalidFormat,
		"sha256:" + abc256 + "\n":                   ErrDigestInvalidLength,
		"sha256:" + strings.Repeat("../", 21) + "x": ErrDigestInvalidFormat,
		"sha384:" + abc256:                          ErrDigestInvalidLength,
		"":                                          ErrDigestInvalidFormat,
		":":                                         ErrDigestInvalidFormat,
		"sha256":                                    ErrDigestInvalidFormat,
		"sha256:":                                   ErrDigestInvalidFormat,
		":" + abc256:                                ErrDigestInvalidFormat,
		"md5:d41d8cd98f00b204e9800998ecf8427e":      ErrDigestUnsupported,
		"tree+sha.2_5-6:AZaz09=_-":                  ErrDigestUnsupported,
		"SHA256:" + abc256:                          ErrDigestInvalidFormat,
		"sha256+:x":                                 ErrDigestInvalidFormat,
		"sha..256:x":                                ErrDigestInvalidFormat,
		"+sha:x":                                    ErrDigestInvalidFormat,
		"md5:a/b":                                   ErrDigestInvalidFormat,
		"md5:a:b":                                   ErrDigestInvalidFormat,
	} {
		if _, err := Parse(s); !errors.Is(err, want) {
			t.Errorf("%q: %v, want %v", s, err, want)
		}
	}
}

func TestAlgorithm(t *testing.T) {
	var a Algorithm
	if err := a.Set(""); err != nil || a != Canonical {
		t.Errorf("%s, %v", a, err)
	}
	if err := a.Set("md5"); !errors.Is(err, ErrDigestUnsupported) || a.Available() || a.Size() != 0 {
		t.Errorf("%s, %v", a, err)
	}
	for name, f := range map[string]func(){
		"hash":      func() { Algorithm("md5").Hash() },
		"separator": func() { _ = Digest("abc").Encoded() },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			f()
		}()
	}
}
