package containers

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"

	"github.com/wherry-engine/wherry/api/route"
	"github.com/wherry-engine/wherry/container"
)

const (
	rawStream         = "application/vnd.docker.raw-stream"
	multiplexedStream = "application/vnd.docker.multiplexed-stream"
)

// streamType is the content type of output.
func streamType(r *http.Request, tty bool) string {
	if tty || !route.AtLeast(r, "1.42") {
		return rawStream
	}
	return multiplexedStream
}

// hijacker takes a connection from the HTTP server; it implements container.Conn.
type hijacker struct {
	w http.ResponseWriter
	r *http.Request
}

// Hijack implements container.Conn.
func (h *hijacker) Hijack(tty, deferHead bool) (container.Stream, error) {
	head := h.head(streamType(h.r, tty))
	conn, buffered, err := take(h.w)
	if err != nil {
		return container.Stream{}, err
	}
	s := container.Stream{Conn: conn, Buffered: buffered}
	if deferHead {
		s.Head = head
		return s, nil
	}
	if _, err := conn.Write(head); err != nil {
		return s, errors.Join(err, conn.Close())
	}
	return s, nil
}

// head switches protocols for a client that asked for it; older ones get a 200
// and then the stream.
func (h *hijacker) head(contentType string) []byte {
	var b strings.Builder
	if h.r.Header.Get("Upgrade") != "" {
		b.WriteString("HTTP/1.1 101 UPGRADED\r\nContent-Type: " + contentType + "\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n")
	} else {
		b.WriteString("HTTP/1.1 200 OK\r\nContent-Type: " + contentType + "\r\n")
	}
	writeHeaders(&b, h.w.Header())
	return []byte(b.String())
}

// writeHeaders adds what the server sets on every answer (version headers).
func writeHeaders(b *strings.Builder, hdr http.Header) {
	for _, name := range []string{"Api-Version", "Docker-Experimental", "Ostype", "Server"} {
		if v := hdr.Get(name); v != "" {
			fmt.Fprintf(b, "%s: %s\r\n", name, v)
		}
	}
	b.WriteString("\r\n")
}

// take hijacks a connection and returns what was read from it too far.
func take(w http.ResponseWriter) (net.Conn, []byte, error) {
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return nil, nil, fmt.Errorf("take over the connection: %w", err)
	}
	return conn, drain(rw.Reader), nil
}

func drain(r *bufio.Reader) []byte {
	n := r.Buffered()
	if n == 0 {
		return nil
	}
	p := make([]byte, n)
	_, _ = io.ReadFull(r, p) // buffered bytes cannot fail
	return p
}

// isSocket reports whether the request came over a socket with nothing between,
// such as TLS, so that the connection can be given to another process.
func isSocket(r *http.Request) bool {
	addr, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	return ok && r.TLS == nil && (addr.Network() == "unix" || addr.Network() == "tcp")
}
