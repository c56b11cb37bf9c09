package store

import "testing"

func TestSetLimits(t *testing.T) {
	s := open(t, Options{MaxConcurrentDownloads: 1})
	before := s.downloads.Load()
	if !before.TryAcquire(1) || before.TryAcquire(1) {
		t.Error("room for other than one download")
	}
	s.SetLimits(1, 0, 0)
	if s.downloads.Load() != before {
		t.Error("the same limit was made anew: those under way are not counted any more")
	}
	s.SetLimits(2, 0, 9)
	if now := s.downloads.Load(); !now.TryAcquire(2) || now.TryAcquire(1) {
		t.Error("room for other than two downloads")
	}
	if s.uploads.Load().n != defaultUploads || s.attempts.Load() != 9 {
		t.Errorf("%d uploads, %d attempts", s.uploads.Load().n, s.attempts.Load())
	}
	before.Release(1) // by one that began before
}
