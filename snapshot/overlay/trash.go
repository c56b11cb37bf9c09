package overlay

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wherry-engine/wherry/container"
	"github.com/wherry-engine/wherry/internal/rmtree"
)

// trash deletes directories in the background, one after the other.
type trash struct {
	dir  string
	log  *slog.Logger
	wake chan struct{}
	quit chan struct{}
	once sync.Once
	done chan struct{}
}

var trashCount atomic.Uint64

// trashName is unique, so that an identifier can be used and removed again at once.
func trashName(id container.ID) string {
	return string(id) + "-" + strconv.FormatInt(time.Now().UnixNano(), 36) + "-" + strconv.FormatUint(trashCount.Add(1), 36)
}

func (t *trash) start(dir string, log *slog.Logger) {
	t.dir, t.log = dir, log
	t.wake, t.quit, t.done = make(chan struct{}, 1), make(chan struct{}), make(chan struct{})
	go t.run()
	t.poke()
}

func (t *trash) poke() {
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

func (t *trash) run() {
	defer close(t.done)
	for {
		select {
		case <-t.wake:
			t.empty()
		case <-t.quit:
			t.empty()
			return
		}
	}
}

func (t *trash) empty() {
	entries, err := os.ReadDir(t.dir)
	if err != nil {
		t.log.Warn("read removed layers", "err", err)
		return
	}
	for _, e := range entries {
		if err := rmtree.Remove(filepath.Join(t.dir, e.Name())); err != nil {
			t.log.Warn("delete a removed layer", "layer", e.Name(), "err", err)
		}
	}
}

// stop deletes what is left and waits.
func (t *trash) stop(ctx context.Context) error {
	t.once.Do(func() { close(t.quit) })
	select {
	case <-t.done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
