package rotate

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// watcher tells when something happened to a log.
type watcher struct {
	ctx  context.Context //nolint:containedctx // lives as long as the call of Read
	done <-chan struct{}
	f    *os.File
	quit chan struct{}
	gone chan struct{}
	buf  [4096]byte
}

// watch observes the directory: writes, rotations, and the making of the
// first file, which may not exist yet.
func watch(ctx context.Context, path string, done <-chan struct{}) (*watcher, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("inotify: %w", err)
	}
	if _, err := unix.InotifyAddWatch(fd, filepath.Dir(path), unix.IN_MODIFY|unix.IN_CREATE|unix.IN_MOVED_FROM|unix.IN_MOVED_TO|unix.IN_DELETE_SELF); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("watch log: %w", err)
	}
	w := &watcher{ctx: ctx, done: done, f: os.NewFile(uintptr(fd), "inotify"), quit: make(chan struct{}), gone: make(chan struct{})}
	go w.interrupt()
	return w, nil
}

// interrupt wakes wait when the context or the log ends.
func (w *watcher) interrupt() {
	defer close(w.gone)
	select {
	case <-w.ctx.Done():
	case <-w.done:
	case <-w.quit:
	}
	_ = w.f.SetReadDeadline(time.Unix(1, 0))
}

func (w *watcher) isDone() bool {
	select {
	case <-w.done:
		return true
	default:
		return false
	}
}

// wait returns when there may be more to read.
func (w *watcher) wait() error {
	_, err := w.f.Read(w.buf[:])
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = nil
	}
	return errors.Join(w.ctx.Err(), err)
}

func (w *watcher) close() {
	close(w.quit)
	<-w.gone
	_ = w.f.Close()
}
