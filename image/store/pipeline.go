package store

import (
	"hash"
	"io"
	"sync"
)

const (
	chunkSize  = 256 << 10
	chunkAhead = 4
)

// pipeline reads ahead of its consumer and hashes what passes, each in a
// goroutine of its own, so that decompressing, hashing and writing files run
// side by side.
type pipeline struct {
	out  chan chunk
	quit chan struct{}
	free sync.Pool
	wg   sync.WaitGroup
	cur  []byte
	buf  []byte
	err  error
}

type chunk struct {
	p   []byte
	err error
}

func newPipeline(r io.Reader, h hash.Hash) *pipeline {
	p := &pipeline{out: make(chan chunk, chunkAhead), quit: make(chan struct{})}
	p.free.New = func() any { return make([]byte, chunkSize) }
	raw := make(chan chunk, chunkAhead)
	p.wg.Go(func() { p.read(r, raw) })
	p.wg.Go(func() { p.hash(raw, h) })
	return p
}

func (p *pipeline) read(r io.Reader, raw chan<- chunk) {
	defer close(raw)
	for {
		buf, _ := p.free.Get().([]byte)
		n, err := io.ReadFull(r, buf)
		if err == io.ErrUnexpectedEOF { //nolint:errorlint // ReadFull returns it bare
			err = io.EOF
		}
		select {
		case raw <- chunk{buf[:n], err}:
		case <-p.quit:
			return
		}
		if err != nil {
			return
		}
	}
}

func (p *pipeline) hash(raw <-chan chunk, h hash.Hash) {
	defer close(p.out)
	for c := range raw {
		_, _ = h.Write(c.p) // never fails
		select {
		case p.out <- c:
		case <-p.quit:
			return
		}
	}
}

func (p *pipeline) Read(b []byte) (int, error) {
	for len(p.cur) == 0 {
		if p.err != nil {
			return 0, p.err
		}
		if p.buf != nil {
			p.free.Put(p.buf[:cap(p.buf)]) //nolint:staticcheck // the slice header is small beside the chunk
			p.buf = nil
		}
		c, ok := <-p.out
		if !ok {
			p.err = io.ErrClosedPipe
			continue
		}
		p.cur, p.buf, p.err = c.p, c.p, c.err
	}
	n := copy(b, p.cur)
	p.cur = p.cur[n:]
	return n, nil
}

// Close stops the goroutines and waits for them; a read under way in the
// source must have ended or end by itself.
func (p *pipeline) Close() {
	close(p.quit)
	p.wg.Wait()
}
