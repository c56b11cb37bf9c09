// Package handoff gives the connections of clients away to the supervisor: their
// descriptors, or one end of a pair of sockets through which they are copied. It
// also says on such a connection what the supervisor would have said.
package handoff

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/container"
)

// Descriptor returns a descriptor for the supervisor. A connection that is
// nothing but a socket is given away itself; any other is copied through this
// daemon by the returned function, which returns at the connection's end.
func Descriptor(s container.Stream) (*os.File, func(context.Context), error) {
	if IsSocket(s.Conn) {
		f, err := File(s.Conn)
		if err != nil {
			return nil, nil, fmt.Errorf("take over the connection: %w", err)
		}
		return f, func(context.Context) {}, nil
	}
	local, theirs, err := Pair()
	if err != nil {
		return nil, nil, err
	}
	return theirs, func(ctx context.Context) { relay(ctx, s.Conn, local) }, nil
}

// IsSocket tells whether there is nothing between us and a connection's socket.
func IsSocket(c net.Conn) bool {
	switch c.(type) {
	case *net.UnixConn, *net.TCPConn:
		return true
	}
	return false
}

// File duplicates the descriptor of a unix or TCP connection and closes the connection.
func File(conn net.Conn) (*os.File, error) {
	defer conn.Close()
	fc, ok := conn.(interface{ File() (*os.File, error) })
	if !ok {
		return nil, errdefs.ErrInternal.WithMessage("the connection has no descriptor")
	}
	return fc.File()
}

// Pair makes a connected pair of sockets, one for the supervisor.
func Pair() (net.Conn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "pair"), os.NewFile(uintptr(fds[1]), "pair")
	defer ours.Close()
	conn, err := net.FileConn(ours)
	if err != nil {
		_ = theirs.Close()
		return nil, nil, err
	}
	return conn, theirs, nil
}

// goodbye is how long the supervisor may take to note that a client ended its
// input before its end of everything follows.
const goodbye = 200 * time.Millisecond

// relay copies both ways until the supervisor closed its end. A client that
// goes away ends its input first, so that the supervisor can tell it from a
// daemon that goes away.
func relay(ctx context.Context, client, local net.Conn) {
	stop := context.AfterFunc(ctx, func() { _ = local.Close() })
	defer stop()
	var wg sync.WaitGroup
	ended := make(chan struct{})
	wg.Go(func() {
		defer close(ended)
		_, _ = io.Copy(local, client)
		if ctx.Err() == nil {
			closeWrite(local)
		}
	})
	_, err := io.Copy(client, local)
	_ = client.Close()
	if err != nil { // the client is gone
		<-ended
		t := time.NewTimer(goodbye)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
		}
	}
	_ = local.Close()
	wg.Wait()
}

func closeWrite(c net.Conn) {
	if w, ok := c.(interface{ CloseWrite() error }); ok {
		_ = w.CloseWrite()
	}
}
