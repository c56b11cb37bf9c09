package cli

import (
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"github.com/containerd/errdefs"

	"net/url"

	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/cli/terminal"
	"github.com/wherry-engine/wherry/client"
)

// session joins the caller's streams with a hijacked connection.
type session struct {
	a      *app
	stream *client.Hijacked
	stdin  bool
	stdout bool
	stderr bool
	tty    bool
	// detachKeys is the sequence in the user's notation, "" for the default.
	detachKeys string
	// again, if not nil, is asked for another connection when the stream ends;
	// nil if that was the session's end.
	again func(context.Context) (*client.Hijacked, error)
}

// errNotTTY refuses -t when the input is a pipe or a file.
var errNotTTY = errors.New("the input device is not a TTY")

// checkTTY refuses a terminal session without a terminal.
func (a *app) checkTTY(stdin, tty bool) error {
	if stdin && tty && !terminal.Is(a.in) {
		return errNotTTY
	}
	return nil
}

// run copies until the other end closes, the user detaches
// (terminal.ErrDetached) or ctx ends. The terminal's mode is restored before it
// returns, whatever happened.
func (s *session) run(ctx context.Context) (err error) {
	p := newPipe(s.stream)
	defer func() {
		_ = p.current().Close() // its end is all we wanted
		p.end()
	}()
	restore, err := s.raw()
	if err != nil {
		return err
	}
	defer restore()
	input, err := s.input()
	if err != nil {
		return err
	}
	out := make(chan error, 1)
	go func() { out <- s.copyOut() }()
	in := make(chan error, 1)
	if input != nil {
		go func() {
			_, err := io.Copy(p, input)
			in <- err
		}()
	}
	for {
		select {
		case err := <-out:
			if s.again == nil || !isCut(err) {
				return err
			}
			next, err := s.again(ctx)
			if next == nil {
				return err
			}
			s.stream = next
			p.exchange(next)
			go func() { out <- s.copyOut() }()
		case err := <-in:
			if errors.Is(err, terminal.ErrDetached) {
				return err
			}
			if err := p.CloseWrite(); err != nil && !s.stdout && !s.stderr {
				return err
			}
			in = nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// raw sets the terminal up for a remote one.
func (s *session) raw() (func(), error) {
	if !s.tty || !s.stdin || !terminal.Is(s.a.in) {
		return func() {}, nil
	}
	s.a.signals.watch() // to restore it when one arrives
	st, err := terminal.MakeRaw(s.a.in, true)
	return func() { _ = st.Restore() }, err
}

func (s *session) input() (io.Reader, error) {
	if !s.stdin {
		return nil, nil
	}
	if !s.tty {
		return s.a.in, nil
	}
	keys, err := terminal.ParseDetachKeys(s.keys())
	if err != nil {
		return nil, err
	}
	return terminal.NewDetachReader(s.a.in, keys), nil
}

func (s *session) keys() string { return s.a.detachKeys(s.detachKeys) }

// detachKeys returns the flag's value, config.json's or "".
func (a *app) detachKeys(flag string) string {
	if flag != "" {
		return flag
	}
	return a.config().DetachKeys
}

func (s *session) copyOut() error {
	var out, errOut io.Writer = io.Discard, io.Discard
	if s.stdout {
		out = s.a.out
	}
	if s.stderr {
		errOut = s.a.err
	}
	if s.tty {
		_, err := io.CopyBuffer(struct{ io.Writer }{out}, struct{ io.Reader }{s.stream}, make([]byte, 32<<10))
		return endOfStream(err)
	}
	return endOfStream(client.Demux(out, errOut, s.stream))
}

// endOfStream takes a reset connection for its end: a daemon that is done may
// close with input of ours unread.
func endOfStream(err error) error {
	if errors.Is(err, syscall.ECONNRESET) {
		return nil
	}
	return err
}

// follow keeps a remote terminal at the size of ours until ctx ends. path is
// the resize endpoint. The first call is repeated for a while, as the process
// may not be there yet.
func (a *app) followSize(ctx context.Context, cl *client.Client, path string) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	ch := make(chan os.Signal, 1)
	signal.Notify(ch, unix.SIGWINCH)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for try := range 10 {
			if a.resize(ctx, cl, path) == nil {
				break
			}
			select {
			case <-ctx.Done():
				return
			case <-time.After(time.Duration(try+1) * 10 * time.Millisecond):
			}
		}
		for {
			select {
			case <-ctx.Done():
				return
			case <-ch:
				_ = a.resize(ctx, cl, path)
			}
		}
	}()
	return func() {
		signal.Stop(ch)
		cancel()
		<-done
	}
}

func (a *app) resize(ctx context.Context, cl *client.Client, path string) error {
	h, w := a.terminalSize()
	if h == 0 && w == 0 {
		return nil
	}
	return resizeTo(ctx, cl, path, h, w)
}

func resizeTo(ctx context.Context, cl *client.Client, path string, h, w uint) error {
	return cl.Post(ctx, path, url.Values{"h": {strconv.Itoa(int(h))}, "w": {strconv.Itoa(int(w))}}, nil, nil)
}

// terminalSize is the size of the output's terminal, or the input's.
func (a *app) terminalSize() (height, width uint) {
	if f := a.outFile(); f != nil {
		if h, w := terminal.Size(f); h != 0 || w != 0 {
			return h, w
		}
	}
	return terminal.Size(a.in)
}

// proxySignals passes signals on to the container until released. Those that
// come before it runs wait for that.
func (a *app) proxySignals(ctx context.Context, cl *client.Client, id string, runs <-chan struct{}) (release func()) {
	return a.signals.take(func(sig syscall.Signal) {
		select {
		case <-runs:
		case <-ctx.Done():
			return
		}
		err := cl.Post(ctx, containerPath(id, "kill"), url.Values{"signal": {unix.SignalName(sig)}}, nil, nil)
		if err != nil && !errdefs.IsConflict(err) && !errdefs.IsNotFound(err) && a.flags.debug {
			_, _ = io.WriteString(a.err, a.message(err)+"\n")
		}
	})
}
