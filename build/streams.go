package build

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http/httputil"
	"os"
	"sync"
	"syscall"

	"github.com/moby/buildkit/executor"
	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/task"
)

// streams joins a BuildKit process's streams with the supervisor over one
// framed connection, as an attached client would.
type streams struct {
	remote *os.File // for the supervisor
	conn   *net.UnixConn
	stdin  io.ReadCloser
	done   sync.WaitGroup
}

// newStreams makes the connection and starts to copy.
func newStreams(p executor.ProcessInfo) (*streams, error) {
	local, remote, err := socketpair()
	if err != nil {
		return nil, err
	}
	s := &streams{remote: remote, conn: local, stdin: p.Stdin}
	s.done.Go(func() { s.output(p) })
	if p.Stdin != nil {
		// Not waited for: a read of the client's stdin ends only with the client.
		go func() {
			_, _ = io.Copy(local, p.Stdin)
			_ = local.CloseWrite()
		}()
	}
	return s, nil
}

func (s *streams) stdio(p executor.ProcessInfo) task.Stdio {
	return task.Stdio{Terminal: p.Meta.Tty, OpenStdin: p.Stdin != nil, StdinOnce: true}
}

func (s *streams) request(p executor.ProcessInfo) task.AttachRequest {
	return task.AttachRequest{Stdin: p.Stdin != nil, Stdout: true, Stderr: true, Framed: !p.Meta.Tty}
}

// handed closes our copy of the supervisor's end.
func (s *streams) handed() { s.remote.Close() }

// drain waits until the process's output has arrived.
func (s *streams) drain() { s.done.Wait() }

func (s *streams) close() {
	s.conn.Close()
	s.done.Wait()
	if s.stdin != nil {
		s.stdin.Close()
	}
}

// output copies what the process writes and closes its writers at the end.
func (s *streams) output(p executor.ProcessInfo) {
	defer func() {
		for _, w := range []io.WriteCloser{p.Stdout, p.Stderr} {
			if w != nil {
				w.Close()
			}
		}
	}()
	if p.Meta.Tty {
		_, _ = io.Copy(discardNil(p.Stdout), s.conn)
		return
	}
	r := bufio.NewReaderSize(s.conn, 32<<10)
	var head [8]byte
	for {
		if _, err := io.ReadFull(r, head[:]); err != nil {
			return
		}
		w := discardNil(p.Stdout)
		if head[0] == 2 {
			w = discardNil(p.Stderr)
		}
		if _, err := io.CopyN(w, r, int64(binary.BigEndian.Uint32(head[4:]))); err != nil {
			return
		}
	}
}

func discardNil(w io.Writer) io.Writer {
	if wc, ok := w.(io.WriteCloser); w == nil || ok && wc == nil {
		return io.Discard
	}
	return w
}

// waitConn is our end of a wait request handed to the supervisor.
type waitResult struct{ *net.UnixConn }

// waiter returns both ends of a wait connection.
func waiter() (waitResult, *os.File, error) {
	local, remote, err := socketpair()
	return waitResult{local}, remote, err
}

// code blocks until the supervisor answers with the exit code.
func (w waitResult) code() (int, error) {
	var out struct {
		StatusCode int
		Error      *struct{ Message string }
	}
	if err := json.NewDecoder(httputil.NewChunkedReader(w.UnixConn)).Decode(&out); err != nil {
		return 0, err
	}
	if out.Error != nil && out.Error.Message != "" {
		return out.StatusCode, errors.New(out.Error.Message)
	}
	return out.StatusCode, nil
}

// socketpair returns a connected pair: ours, and the file to pass on.
func socketpair() (*net.UnixConn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	local := os.NewFile(uintptr(fds[0]), "local")
	defer local.Close()
	c, err := net.FileConn(local)
	if err != nil {
		syscall.Close(fds[1])
		return nil, nil, err
	}
	uc, ok := c.(*net.UnixConn)
	if !ok {
		syscall.Close(fds[1])
		return nil, nil, fmt.Errorf("socketpair gave %T", c)
	}
	return uc, os.NewFile(uintptr(fds[1]), "remote"), nil
}
