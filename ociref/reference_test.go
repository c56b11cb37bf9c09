package ociref

import (
	_ "crypto/sha512" // as a daemon has it linked
	"errors"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/google/go-cmp/cmp"
)

var sum = "sha256:" + strings.Repeat("0123456789abcdef", 4)

func TestParse(t *testing.T) {
	for in, want := range map[string]Reference{
		"busybox":                          {"docker.io", "library/busybox", "", ""},
		"busybox:1":                        {"docker.io", "library/busybox", "1", ""},
		"docker.io/busybox":                {"docker.io", "library/busybox", "", ""},
		"index.docker.io/busybox":          {"docker.io", "library/busybox", "", ""},
		"me/app:v1@" + sum:                 {"docker.io", "me/app", "v1", Digest(sum)},
		"localhost/app":                    {"localhost", "app", "", ""},
		"127.0.0.1:5000/a/b:c":             {"127.0.0.1:5000", "a/b", "c", ""},
		"[::1]:5000/a":                     {"[::1]:5000", "a", "", ""},
		"Registry/a":                       {"Registry", "a", "", ""},
		"a__b/c---d/e.f":                   {"docker.io", "a__b/c---d/e.f", "", ""},
		"example.com:443/x@" + sum:         {"example.com:443", "x", "", Digest(sum)},
		"docker.io/library/busybox:latest": {"docker.io", "library/busybox", "latest", ""},
	} {
		got, err := Parse(in)
		if err != nil {
			t.Errorf("Parse(%q): %v", in, err)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("Parse(%q): %s", in, d)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for in, text := range map[string]string{
		"":                                 "invalid reference format",
		"Busybox":                          "invalid reference format: repository name (library/Busybox) must be lowercase",
		"a:b:c":                            "invalid reference format",
		"a@sha256:12":                      "invalid reference format",
		"a@md5:" + strings.Repeat("a", 32): "unsupported digest algorithm",
		strings.Repeat("a", 64):            "invalid repository name (" + strings.Repeat("a", 64) + "), cannot specify 64-byte hexadecimal strings",
		"-a":                               "invalid reference format",
		"a..b":                             "invalid reference format",
		"a:":                               "invalid reference format",
		"x/" + strings.Repeat("a", 300):    "repository name must not be more than 255 characters",
		"a/../b":                           "invalid reference format",
		"a b":                              "invalid reference format",
	} {
		_, err := Parse(in)
		if !errors.Is(err, errdefs.ErrInvalidArgument) {
			t.Errorf("Parse(%q): class of %v", in, err)
			continue
		}
		if got := strings.TrimSuffix(err.Error(), ": invalid argument"); got != text {
			t.Errorf("Parse(%q) = %q, want %q", in, got, text)
		}
	}
}

func TestFamiliar(t *testing.T) {
	for in, want := range map[string]string{
		"docker.io/library/busybox:1": "busybox:1", "docker.io/me/app": "me/app",
		"docker.io/library/a/b": "library/a/b", "localhost:5000/a:b": "localhost:5000/a:b",
	} {
		r, err := Parse(in)
		if err != nil || r.Familiar() != want {
			t.Errorf("%q: %q, %v", in, r.Familiar(), err)
		}
	}
}

// FuzzParse compares with the parser that Docker uses.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"busybox", "A/b", "a:b@" + sum, "[::1]:1/a", "a.b/c", "localhost:1/x__y", "a@sha512:" + strings.Repeat("a", 128), "İ/a", "x/İ"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := Parse(s)
		want, werr := reference.ParseNormalizedNamed(s)
		if (err == nil) != (werr == nil) {
			t.Fatalf("%q: %v, docker says %v", s, err, werr)
		}
		if err != nil {
			return
		}
		if got.String() != want.String() || got.Familiar() != reference.FamiliarString(want) {
			t.Fatalf("%q: %q %q, docker says %q %q", s, got, got.Familiar(), want, reference.FamiliarString(want))
		}
		again, err := Parse(got.String())
		if err != nil || again != got {
			t.Fatalf("%q: does not survive: %v %v", s, again, err)
		}
	})
}
