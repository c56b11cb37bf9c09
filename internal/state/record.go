package state

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/containerd/errdefs"
)

// Op is one change of a batch: a value for a key, or its deletion.
type Op struct {
	Bucket, Key string
	Value       []byte
	Delete      bool
}

const (
	recordHeader = 8        // length and checksum, both uint32 little endian
	maxRecord    = 64 << 20 // bytes of payload; more is a caller's error or garbage
	maxKey       = 32 << 10 // the database takes no longer ones
	opPut        = 1
	opDelete     = 2
)

// castagnoli is the polynomial with hardware support.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var (
	errTorn    = errors.New("record is incomplete")
	errCorrupt = errors.New("record is corrupt")
)

// encode returns one record holding all ops.
func encode(ops []Op) ([]byte, error) {
	size := recordHeader
	for _, op := range ops {
		if op.Bucket == "" || op.Key == "" || len(op.Key) > maxKey {
			return nil, fmt.Errorf("bucket %q, key %.80q: empty or too long: %w", op.Bucket, op.Key, errdefs.ErrInvalidArgument)
		}
		size += 1 + 3*binary.MaxVarintLen32 + len(op.Bucket) + len(op.Key) + len(op.Value)
	}
	buf := make([]byte, recordHeader, size)
	for _, op := range ops {
		kind := byte(opPut)
		if op.Delete {
			kind = opDelete
		}
		buf = append(buf, kind)
		buf = appendBytes(buf, op.Bucket)
		buf = appendBytes(buf, op.Key)
		if !op.Delete {
			buf = appendBytes(buf, op.Value)
		}
	}
	payload := buf[recordHeader:]
	if len(payload) > maxRecord {
		return nil, fmt.Errorf("a change of %d bytes exceeds the limit of %d", len(payload), maxRecord)
	}
	binary.LittleEndian.PutUint32(buf, uint32(len(payload)))
	binary.LittleEndian.PutUint32(buf[4:], crc32.Checksum(payload, castagnoli))
	return buf, nil
}

func appendBytes[T string | []byte](buf []byte, b T) []byte {
	buf = binary.AppendUvarint(buf, uint64(len(b)))
	return append(buf, b...)
}

// decode reads the record at the start of b and returns its operations and its
// length. errTorn: b ends before the record does. errCorrupt: it is garbage.
// Values alias b.
func decode(b []byte) ([]Op, int, error) {
	if len(b) < recordHeader {
		return nil, 0, errTorn
	}
	n := int(binary.LittleEndian.Uint32(b))
	if n == 0 || n > maxRecord {
		return nil, 0, errCorrupt
	}
	if len(b)-recordHeader < n {
		return nil, 0, errTorn
	}
	payload := b[recordHeader : recordHeader+n]
	if crc32.Checksum(payload, castagnoli) != binary.LittleEndian.Uint32(b[4:]) {
		return nil, 0, errCorrupt
	}
	ops, err := decodeOps(payload)
	return ops, recordHeader + n, err
}

func decodeOps(p []byte) ([]Op, error) {
	var ops []Op
	for len(p) > 0 {
		op := Op{Delete: p[0] == opDelete}
		if p[0] != opPut && p[0] != opDelete {
			return nil, errCorrupt
		}
		var bucket, key []byte
		var ok bool
		if bucket, p, ok = takeBytes(p[1:]); !ok {
			return nil, errCorrupt
		}
		if key, p, ok = takeBytes(p); !ok {
			return nil, errCorrupt
		}
		if !op.Delete {
			if op.Value, p, ok = takeBytes(p); !ok {
				return nil, errCorrupt
			}
		}
		op.Bucket, op.Key = string(bucket), string(key)
		ops = append(ops, op)
	}
	return ops, nil
}

func takeBytes(p []byte) (head, rest []byte, ok bool) {
	n, w := binary.Uvarint(p)
	if w <= 0 || n > uint64(len(p)-w) {
		return nil, nil, false
	}
	return p[w : w+int(n) : w+int(n)], p[w+int(n):], true
}
