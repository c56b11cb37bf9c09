package store

import (
	"errors"
	"io"
	"sync"
)

// teeChunks is how many pieces of a download may wait to be unpacked.
const teeChunks = 16

// errNotStreamed ends a stream whose bytes will not come, or not all; the
// layer is unpacked from its blob instead.
var errNotStreamed = errors.New("the layer is not streamed")

// tee hands the bytes of a download to whoever unpacks them at the same time.
// Writing never fails and blocks only while the reader lives.
type tee struct {
	c    chan []byte
	gone chan struct{} // the reader does not want more
	once sync.Once

	mu   sync.Mutex
	err  error
	done bool

	cur []byte // of the reader
}

func newTee() *tee {
	return &tee{c: make(chan []byte, teeChunks), gone: make(chan struct{})}
}

// write passes a copy on.
func (t *tee) write(p []byte) {
	if t == nil {
		return
	}
	t.mu.Lock()
	done := t.done
	t.mu.Unlock()
	select {
	case <-t.gone:
		return
	default:
	}
	if done { // an earlier attempt failed
		return
	}
	select {
	case t.c <- append([]byte(nil), p...):
	case <-t.gone:
	}
}

// end says that no more comes: nil after the last byte. Only the first counts.
func (t *tee) end(err error) {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.done {
		return
	}
	t.done, t.err = true, err
	close(t.c)
}

// Read implements io.Reader.
func (t *tee) Read(p []byte) (int, error) {
	if len(t.cur) == 0 {
		var c []byte
		ok := false
		select {
		case c, ok = <-t.c:
		case <-t.gone:
			return 0, errNotStreamed
		}
		if !ok {
			t.mu.Lock()
			defer t.mu.Unlock()
			if t.err != nil {
				return 0, t.err
			}
			return 0, io.EOF
		}
		t.cur = c
	}
	n := copy(p, t.cur)
	t.cur = t.cur[n:]
	return n, nil
}

// leave ends the interest of the reader.
func (t *tee) leave() { t.once.Do(func() { close(t.gone) }) }
