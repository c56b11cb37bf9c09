package wire

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/task"
)

func pair(t testing.TB) (*Conn, *Conn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var conns [2]*Conn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "socket")
		c, err := net.FileConn(f)
		if err != nil {
			t.Fatal(err)
		}
		_ = f.Close()
		conns[i] = NewConn(c.(*net.UnixConn))
		t.Cleanup(func() { _ = conns[i].Close() })
	}
	return conns[0], conns[1]
}

func TestFramesAndDescriptors(t *testing.T) {
	a, b := pair(t)
	large := bytes.Repeat([]byte("0123456789"), 300000) // more than any socket holds
	go func() {
		for i := range 20 {
			r, w, err := os.Pipe()
			if err != nil {
				return
			}
			fmt.Fprint(w, i)
			_ = w.Close()
			_ = a.Write(Header{Kind: Request, Op: OpStart, ID: uint64(i), Epoch: 7}, []byte("plain"))
			_ = a.Write(Header{Kind: Request, Op: OpExec, ID: uint64(i)}, large, int(r.Fd()))
			_ = r.Close()
		}
		_ = a.Close()
	}()
	for i := range 20 {
		f, err := b.Read()
		if err != nil {
			t.Fatal(err)
		}
		if f.Op != OpStart || f.ID != uint64(i) || f.Epoch != 7 || string(f.Body) != "plain" || len(f.Files) != 0 {
			t.Fatalf("frame %d: %+v", i, f.Header)
		}
		if f, err = b.Read(); err != nil {
			t.Fatal(err)
		}
		if f.Op != OpExec || !bytes.Equal(f.Body, large) || len(f.Files) != 1 {
			t.Fatalf("frame %d: %+v with %d descriptors", i, f.Header, len(f.Files))
		}
		r := os.NewFile(uintptr(f.Take(0)), "pipe")
		got, err := io.ReadAll(r)
		_ = r.Close()
		if err != nil || string(got) != fmt.Sprint(i) {
			t.Fatalf("the pipe of frame %d holds %q, %v", i, got, err)
		}
	}
	if _, err := b.Read(); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v", err)
	}
}

func TestErrorsSurvive(t *testing.T) {
	for _, c := range classes() {
		err := EncodeError(fmt.Errorf("text: %w", c.err)).Err()
		if !errors.Is(err, c.err) || err.Error() != "text: "+c.err.Error() {
			t.Errorf("%s became %v", c.name, err)
		}
	}
	err := EncodeError(fmt.Errorf("start: %w", &task.StartError{Code: 127, Msg: "not found"})).Err()
	var se *task.StartError
	if !errors.As(err, &se) || se.Code != 127 || !errdefs.IsInvalidArgument(err) {
		t.Errorf("a start error became %v", err)
	}
	if err := EncodeError(errors.New("plain")).Err(); err.Error() != "plain" {
		t.Errorf("a plain error became %v", err)
	}
}

func FuzzSplit(f *testing.F) {
	f.Add(Sections([]byte("a"), nil, []byte("ccc")))
	f.Fuzz(func(t *testing.T, b []byte) {
		if parts, err := Split(b, 3); err == nil && !bytes.Equal(Sections(parts...), b) {
			t.Fatalf("%q was not restored", b)
		}
	})
}

// FuzzRead feeds arbitrary bytes: errors are fine, crashes are not.
func FuzzRead(f *testing.F) {
	f.Add(make([]byte, headerSize))
	f.Fuzz(func(t *testing.T, b []byte) {
		a, c := pair(t)
		go func() {
			_, _ = a.Unix().Write(b)
			_ = a.Close()
		}()
		for {
			fr, err := c.Read()
			if err != nil {
				break
			}
			fr.Close()
		}
		c.Discard()
	})
}
