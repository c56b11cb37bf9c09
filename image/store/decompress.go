package store

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"fmt"
	"io"

	"github.com/containerd/errdefs"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// compression of a stream, found by its first bytes.
type compression string

const (
	plain     compression = ""
	gzipped   compression = "gzip"
	zstandard compression = "zstd"
	bzipped   compression = "bzip2"
	xzipped   compression = "xz"
)

// zstdWindow bounds the memory a zstd stream may ask for, in bytes.
const zstdWindow = 128 << 20

// detect looks at the first bytes of a stream.
func detect(br *bufio.Reader) compression {
	head, _ := br.Peek(6) // a short stream is plain
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		return gzipped
	case bytes.HasPrefix(head, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		return zstandard
	case len(head) >= 4 && head[0]&0xf0 == 0x50 && bytes.Equal(head[1:4], []byte{0x2a, 0x4d, 0x18}):
		return zstandard // a skippable frame first
	case bytes.HasPrefix(head, []byte("BZh")):
		return bzipped
	case bytes.HasPrefix(head, []byte{0xfd, '7', 'z', 'X', 'Z', 0}):
		return xzipped
	}
	return plain
}

// decompress undoes whatever compression r has. The result must be closed; r is not.
func decompress(r io.Reader) (io.ReadCloser, compression, error) {
	br := bufio.NewReaderSize(r, 128<<10)
	kind := detect(br)
	switch kind {
	case gzipped:
		z, err := gzip.NewReader(br)
		if err != nil {
			return nil, kind, fmt.Errorf("gzip: %w", err)
		}
		return z, kind, nil
	case zstandard:
		z, err := zstd.NewReader(br, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(zstdWindow))
		if err != nil {
			return nil, kind, fmt.Errorf("zstd: %w", err)
		}
		return z.IOReadCloser(), kind, nil
	case bzipped:
		return io.NopCloser(bzip2.NewReader(br)), kind, nil
	case xzipped:
		return nil, kind, fmt.Errorf("xz compression is not supported: %w", errdefs.ErrNotImplemented)
	}
	return io.NopCloser(br), kind, nil
}
