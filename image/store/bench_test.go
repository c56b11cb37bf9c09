package store

import (
	"bytes"
	"fmt"
	"os"
	"testing"

	"github.com/wherry-engine/wherry/image"
	"github.com/wherry-engine/wherry/registry/registrytest"
)

// BenchmarkPull pulls and unpacks the reference in WHERRY_PULL_REF into a new store.
func BenchmarkPull(b *testing.B) {
	ref := os.Getenv("WHERRY_PULL_REF")
	if ref == "" {
		b.Skip("WHERRY_PULL_REF names no image")
	}
	for b.Loop() {
		b.StopTimer()
		s, err := Open(Options{Root: b.TempDir()})
		if err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		if err := s.Pull(b.Context(), image.PullRequest{Ref: ref}, nil); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}

// BenchmarkResolve is what creating a container asks the store, with fifty images.
func BenchmarkResolve(b *testing.B) {
	s := open(b, Options{})
	for i := range 50 {
		p := registrytest.Tar(b, registrytest.Regular("f", fmt.Sprint(i)))
		if _, err := s.Import(b.Context(), bytes.NewReader(p), fmt.Sprint("img", i), image.Config{}, nil); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		img, err := s.Resolve(b.Context(), "img7", nil)
		if err != nil {
			b.Fatal(err)
		}
		chain, err := s.Prepare(b.Context(), img)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := s.Acquire(b.Context(), chain); err != nil {
			b.Fatal(err)
		}
		s.Release(chain)
	}
}
