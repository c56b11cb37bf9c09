package initproc

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

// TestRetry looks up a path while others rename, for a while and for ever.
func TestRetry(t *testing.T) {
	fails := func(times int, with error) func() (int, error) {
		return func() (int, error) {
			if times == 0 {
				return 7, nil
			}
			times--
			return -1, with
		}
	}
	for name, tt := range map[string]struct {
		lookUp func() (int, error)
		fd     int
		err    error
	}{
		"at once":       {fails(0, nil), 7, nil},
		"renamed often": {fails(maxTries-1, unix.EAGAIN), 7, nil},
		"interrupted":   {fails(3, unix.EINTR), 7, nil},
		"missing":       {fails(1, unix.ENOENT), -1, unix.ENOENT},
		"renamed ever":  {fails(-1, unix.EAGAIN), -1, errRenames},
	} {
		if fd, err := retry(tt.lookUp); fd != tt.fd || !errors.Is(err, tt.err) {
			t.Errorf("%s: %d, %v; want %d, %v", name, fd, err, tt.fd, tt.err)
		}
	}
}
