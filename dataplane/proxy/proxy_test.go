package proxy

import (
	"bytes"
	"crypto/rand"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/network/ports"
)

// reserve binds a free port of loopback.
func reserve(t *testing.T, proto uint8, addr string) ports.Bound {
	t.Helper()
	b, err := ports.NewTable().Reserve(proto, []netip.Addr{netip.MustParseAddr(addr)}, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	return b[0]
}

func listen(t *testing.T, b ports.Bound, target string) Forwarder {
	t.Helper()
	f, err := Listen(b.Proto, b.FD, netip.MustParseAddrPort(target))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestTCPCarriesBothWaysToTheEnd(t *testing.T) {
	srv, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer srv.Close()
	go func() { // reads everything, then sends it back
		c, err := srv.Accept()
		if err != nil {
			return
		}
		b, _ := io.ReadAll(c)
		_, _ = c.Write(b)
		_ = c.Close()
	}()
	b := reserve(t, unix.IPPROTO_TCP, "127.0.0.1")
	f := listen(t, b, srv.Addr().String())
	c, err := net.Dial("tcp", b.Key.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	want := make([]byte, 4<<20)
	_, _ = rand.Read(want)
	if _, err := c.Write(want); err != nil {
		t.Fatal(err)
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(c)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d of %d bytes came back, %v", len(got), len(want), err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	free(t, b.Key)
}

func TestTCPDeadTargetAndOpenConnections(t *testing.T) {
	b := reserve(t, unix.IPPROTO_TCP, "127.0.0.1")
	f := listen(t, b, "127.0.0.1:1")
	if c, err := net.Dial("tcp", b.Key.String()); err == nil { // or the reset comes at once
		_ = c.SetDeadline(time.Now().Add(5 * time.Second))
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Error("a closed target answers")
		}
		_ = c.Close()
	}
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	f.SetTarget(netip.MustParseAddrPort(silent.Addr().String()))
	open, err := net.Dial("tcp", b.Key.String())
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	if _, err := silent.Accept(); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil { // does not wait for its peers
		t.Error(err)
	}
	free(t, b.Key)
}

func TestUDP(t *testing.T) {
	srv, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer srv.Close()
	go func() {
		buf := make([]byte, 65535)
		for {
			n, from, err := srv.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = srv.WriteTo(buf[:n], from)
		}
	}()
	b := reserve(t, unix.IPPROTO_UDP, "127.0.0.1")
	f := listen(t, b, srv.LocalAddr().String())
	for range 3 { // three peers
		c, err := net.Dial("udp", b.Key.String())
		if err != nil {
			t.Fatal(err)
		}
		for _, size := range []int{1, 9000, 1} {
			_ = c.SetDeadline(time.Now().Add(5 * time.Second))
			if _, err := c.Write(make([]byte, size)); err != nil {
				t.Fatal(err)
			}
			if n, err := c.Read(make([]byte, 65535)); err != nil || n != size {
				t.Errorf("%d of %d bytes came back, %v", n, size, err)
			}
		}
		_ = c.Close()
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	free(t, b.Key)
}

// free fails if a port is not free at once.
func free(t *testing.T, k ports.Key) {
	t.Helper()
	fd, err := ports.Bind(k)
	if err != nil {
		t.Fatalf("the port is not free: %v", err)
	}
	_ = unix.Close(fd)
}
