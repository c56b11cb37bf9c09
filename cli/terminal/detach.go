package terminal

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/containerd/errdefs"
)

// ErrDetached is what a Reader of NewDetachReader ends with after the keys.
var ErrDetached = errors.New("read escape sequence")

// DefaultDetachKeys is ctrl-p ctrl-q.
const DefaultDetachKeys = "ctrl-p,ctrl-q"

// ParseDetachKeys reads a sequence such as "ctrl-p,ctrl-q" or "a,ctrl-\\".
func ParseDetachKeys(s string) ([]byte, error) {
	if s == "" {
		s = DefaultDetachKeys
	}
	var keys []byte
	for _, k := range strings.Split(s, ",") {
		b, err := key(k)
		if err != nil {
			return nil, err
		}
		keys = append(keys, b)
	}
	return keys, nil
}

func key(k string) (byte, error) {
	if len(k) == 1 {
		return k[0], nil
	}
	if c, ok := strings.CutPrefix(k, "ctrl-"); ok && len(c) == 1 {
		switch b := c[0]; {
		case b >= 'a' && b <= 'z':
			return b - 'a' + 1, nil
		case b == '@':
			return 0, nil
		case b == '[', b == '\\', b == ']', b == '^', b == '_':
			return b - '@', nil
		}
	}
	return 0, fmt.Errorf("invalid detach keys: unknown character '%s': %w", k, errdefs.ErrInvalidArgument)
}

// NewDetachReader passes r on until keys have been typed in a row; keys held
// back because they could begin the sequence are passed on when it breaks off.
func NewDetachReader(r io.Reader, keys []byte) io.Reader {
	return &detachReader{r: r, keys: keys}
}

type detachReader struct {
	r    io.Reader
	keys []byte
	pos  int    // keys of the sequence seen
	out  []byte // ready to be returned
	err  error
}

func (d *detachReader) Read(p []byte) (int, error) {
	for len(d.out) == 0 {
		if d.err != nil {
			return 0, d.err
		}
		buf := make([]byte, max(len(p), 1))
		n, err := d.r.Read(buf)
		d.scan(buf[:n])
		if d.err == nil && err != nil {
			d.out = append(d.out, d.keys[:d.pos]...)
			d.pos, d.err = 0, err
		}
	}
	n := copy(p, d.out)
	d.out = d.out[n:]
	return n, nil
}

func (d *detachReader) scan(b []byte) {
	for _, c := range b {
		if c != d.keys[d.pos] && d.pos > 0 {
			d.out = append(d.out, d.keys[:d.pos]...)
			d.pos = 0
		}
		if c != d.keys[d.pos] {
			d.out = append(d.out, c)
			continue
		}
		if d.pos++; d.pos == len(d.keys) {
			d.err, d.pos = ErrDetached, 0
			return
		}
	}
}
