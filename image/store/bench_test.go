package store

import (
	"os"
	"testing"

	"github.com/wherry-engine/wherry/image"
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
