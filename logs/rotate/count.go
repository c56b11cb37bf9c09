package rotate

import (
	"context"
	"errors"
	"io"
	"math"

	"github.com/wherry-engine/wherry/logs"
)

// CountAfter returns how many records of a stream follow a position that
// File.Position returned: what was logged since. If that file is gone, or was
// emptied, much has been logged since: everything that the caller may think of.
func CountAfter(ctx context.Context, path string, newCodec func() Codec, s logs.Stream, ino uint64, size int64) (int, error) {
	segs, err := snapshot(path)
	if err != nil {
		return 0, err
	}
	defer closeAll(segs)
	at := -1
	for i, seg := range segs {
		if (!seg.packed && seg.ino == ino) || (seg.packed && seg.from == ino) {
			at = i // the newest
		}
	}
	if at < 0 {
		return math.MaxInt32, nil
	}
	r := &reader{ctx: ctx, path: path, newCodec: newCodec}
	n := 0
	for i, seg := range segs[at:] {
		start := int64(0)
		if i == 0 && !seg.packed {
			fi, err := seg.f.Stat()
			if err != nil {
				return 0, err
			}
			if start = size; fi.Size() < size {
				return math.MaxInt32, nil
			}
		}
		c, err := r.open(seg, start)
		if err != nil {
			return 0, err
		}
		if i == 0 && seg.packed {
			if err := c.discardTo(size); err != nil {
				return 0, err
			}
		}
		if err := r.scan(c, func() error {
			if r.msg.Stream == s {
				n++
			}
			return nil
		}); err != nil {
			return 0, err
		}
	}
	return n, nil
}

// discardTo goes to an offset of a packed file's content.
func (c *cursor) discardTo(off int64) error {
	if err := c.readHeader(); err != nil {
		return err
	}
	unread := int64(c.hi - c.lo)
	ahead := off - (c.pos - unread)
	if ahead <= unread {
		c.lo += int(max(ahead, 0))
		return nil
	}
	c.lo, c.hi = 0, 0
	n, err := io.CopyN(io.Discard, c.src, ahead-unread)
	c.pos += n
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return err
}
