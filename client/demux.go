package client

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Demux copies a multiplexed stream to stdout and stderr until its end. Each
// frame is an 8-byte header (stream number, three zero bytes, big-endian
// length) and that many bytes. Stream 3 carries an error of the daemon.
func Demux(stdout, stderr io.Writer, r io.Reader) error {
	var header [8]byte
	buf := make([]byte, 32<<10)
	for {
		if _, err := io.ReadFull(r, header[:]); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		n := int64(binary.BigEndian.Uint32(header[4:]))
		var w io.Writer
		switch header[0] {
		case 0, 1:
			w = stdout
		case 2:
			w = stderr
		case 3:
			msg, _ := io.ReadAll(io.LimitReader(r, n))
			return fmt.Errorf("error from daemon in stream: %s", msg)
		default:
			return fmt.Errorf("unrecognized stream number %d in multiplexed stream", header[0])
		}
		if err := copyFrame(w, r, n, buf); err != nil {
			return err
		}
	}
}

func copyFrame(w io.Writer, r io.Reader, n int64, buf []byte) error {
	for n > 0 {
		m, err := io.ReadFull(r, buf[:min(n, int64(len(buf)))])
		n -= int64(m)
		if m > 0 {
			if _, werr := w.Write(buf[:m]); werr != nil {
				return werr
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}
