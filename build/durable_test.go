package build

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestDurable looks at the file that says whether the build cache is on the disk.
func TestDurable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var syncs atomic.Int32
		var fails atomic.Bool
		d := &durable{root: t.TempDir(), boot: "boot", log: slog.New(slog.DiscardHandler), syncFS: func() error {
			if syncs.Add(1); fails.Load() {
				return errors.New("full")
			}
			return nil
		}}
		is := func(what, boot string, times int32) {
			t.Helper()
			got, err := unsyncedBoot(d.root)
			if err != nil || got != boot || syncs.Load() != times {
				t.Errorf("%s: boot %q, %d syncs, %v; want %q, %d", what, got, syncs.Load(), err, boot, times)
			}
		}
		begin := func() {
			t.Helper()
			if err := d.begin(); err != nil {
				t.Fatal(err)
			}
		}
		is("at first", "", 0)
		begin()
		begin()
		d.end()
		time.Sleep(2 * syncDelay)
		is("one of two builds runs", "boot", 0)
		d.end()
		begin()
		time.Sleep(2 * syncDelay)
		is("another has begun", "boot", 0)
		d.end()
		fails.Store(true)
		time.Sleep(2 * syncDelay)
		is("a sync failed", "boot", 1)
		fails.Store(false)
		begin()
		d.end()
		time.Sleep(2 * syncDelay)
		is("all ended", "", 2)
		begin()
		d.end()
		d.close()
		is("closed", "", 3)

		d.root = filepath.Join(d.root, "none")
		if err := d.begin(); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("a file that cannot be made: %v", err)
		}
	})
}
